"""Errors for users: one sentence with what failed, what was expected, what was received and what to do.

The command line prints the message of an `EdgeError` to stderr and exits with 1; it never shows a traceback for one.
"""

from __future__ import annotations


class EdgeError(Exception):
    """Base of every error that is the input's or the environment's fault, not edge's."""


class ModelError(EdgeError):
    """A source model cannot be read or converted."""


class FormatError(EdgeError):
    """A `.edge` file is not one, is damaged, is too new, or fails verification."""


class InputError(EdgeError):
    """An array, picture, label file or option given by the user does not fit."""


class MissingPackage(EdgeError):
    """An optional package is needed for what was asked; the message says which and how to get it."""
