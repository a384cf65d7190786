"""Layers that join tensors value by value. Where shapes differ, an axis of 1 of one tensor is repeated along the other's."""

from __future__ import annotations

import functools

import numpy as np

from edge.converters.builder import Builder, Layer, reads


@reads("Add")
def add(layer: Layer, build: Builder) -> str:
    """The sum of its inputs, from the first to the last."""
    return _joined(layer, build, "add")


@reads("Average")
def average(layer: Layer, build: Builder) -> str:
    return scaled(layer, build, _joined(layer, build, "add"), 1 / len(layer.inputs))


@reads("Multiply")
def multiply(layer: Layer, build: Builder) -> str:
    return _joined(layer, build, "multiply")


@reads("Maximum")
def maximum(layer: Layer, build: Builder) -> str:
    return _joined(layer, build, "maximum")


@reads("Minimum")
def minimum(layer: Layer, build: Builder) -> str:
    return _joined(layer, build, "minimum")


@reads("Subtract")
def subtract(layer: Layer, build: Builder) -> str:
    if len(layer.inputs) != 2:
        raise layer.error(f"takes two inputs, got {len(layer.inputs)}")
    return pair(layer, build, "subtract", *layer.inputs)


def _joined(layer: Layer, build: Builder, op: str) -> str:
    if len(layer.inputs) < 2:
        raise layer.error(f"takes two or more inputs, got {len(layer.inputs)}")
    return functools.reduce(functools.partial(pair, layer, build, op), layer.inputs)


def pair(layer: Layer, build: Builder, op: str, first: str, second: str) -> str:
    """`first` op `second`, where op is add, subtract, multiply, divide, maximum or minimum."""
    if op == "add" and build.types[first].shape == build.types[second].shape:
        return build.add("add", layer, first, second)
    if _repeats(build, first, second):
        whole, other = first, second
    elif op != "divide" and _repeats(build, second, first):
        whole, other = second, first
    else:
        shapes = f"{build.types[first].shape} and {build.types[second].shape}"
        raise layer.error(f"joins inputs of {shapes}, but each axis of one must be that of the other or 1; bring them to one shape")
    if op == "add":  # x - (-y) is x + y to the last bit
        return build.add("subtract", layer, whole, scaled(layer, build, other, -1.0))
    made = build.add(op, layer, whole, other)
    return scaled(layer, build, made, -1.0) if op == "subtract" and whole is second else made


def _repeats(build: Builder, whole: str, other: str) -> bool:
    """Whether `other` has every axis of `whole`, or 1 in its place."""
    most, some = build.types[whole], build.types[other]
    return len(most.shape) >= len(some.shape) and all(size in (n, 1) for n, size in zip(most.hwc, some.hwc, strict=True))


def scaled(layer: Layer, build: Builder, tensor: str, factor: float, added: float = 0.0) -> str:
    """x * factor + added."""
    channels = build.types[tensor].shape[-1]
    constants = {"mul": np.full(channels, factor, np.float32)} if factor != 1 else {}
    constants |= {"add": np.full(channels, added, np.float32)} if added else {}
    return build.add("affine", layer, tensor, constants=constants)
