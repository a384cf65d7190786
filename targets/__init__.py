"""Targets: what a program costs on each class of device."""
