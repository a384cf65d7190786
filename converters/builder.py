"""What layer functions write into: a builder of graphs, typed access to a layer's configuration, and the registry.

A layer function is `(layer, build) -> tensor`: it adds nodes with `build.add` and returns the name of the tensor that is the layer's
output, or a tuple of them where the layer has several that are used. To read one more layer of Keras, write such a function under
`@reads("ClassName")` in the `layers_*.py` it belongs to.

The graph is in plain form: float filters or +-1 as bools, `binarize` where a layer quantizes its input, batch norm as `affine`, every
activation a node of its own. Making it small and fast is the work of `edge.converters.passes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from edge.converters.keras_model import Call
from edge.errors import ModelError
from edge.graph import Array, Node, constant_type
from edge.op_check import infer
from edge.ops import NO_ACTIVATION, OPS, OpCall, OpError
from edge.tensors import MAX_RANK, Encoding, TensorType

DEFAULTS: Mapping[str, int | float] = {
    **NO_ACTIVATION,
    **{"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, "value": 0.0},
    **{"pad_top": 0, "pad_bottom": 0, "pad_left": 0, "pad_right": 0},
}

# Operations that give packed tensors where they read some.
CARRY_BITS = frozenset(("max_pool2d", "concat", "reshape", "slice", "resize_nearest", "depth_to_space"))

# Beyond this a size is damage, and shapes made of it would take all memory before any check sees them.
_LARGEST_NUMBER = 1 << 31


def attributes(op: str, **given: int | float) -> dict[str, int | float]:
    """All attributes of an operation in their order, those not given at their neutral value."""
    return {name: given[name] if name in given else DEFAULTS[name] for name in OPS[op].attrs}


@dataclass(frozen=True)
class Options:
    """A configuration read with suspicion; `where` names the layer in errors."""

    where: str
    config: Mapping[str, Any]

    def error(self, problem: str) -> ModelError:
        return ModelError(f"{self.where}: {problem}")

    def number(self, name: str, default: float) -> float:
        """A finite number; `default` where absent or null."""
        value = self._scalar(self.config.get(name))
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST_NUMBER:
            raise self.error(f"{name} should be a number, got {value!r}; save the model again")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name, default)
        if not isinstance(value, (bool, int)):
            raise self.error(f"{name} should be true or false, got {value!r}; save the model again")
        return bool(value)

    def choice(self, name: str, expected: tuple[str, ...], default: str) -> str:
        value = self.config.get(name) or default
        if value not in expected:
            raise self.error(f"{name} {value!r} is not supported, expected {' or '.join(expected)}")
        return str(value)

    def wholes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Whole numbers from a list; `default` where absent or null."""
        value = self.config.get(name)
        return default if value is None else self._wholes(name, value)

    def whole(self, name: str, default: int) -> int:
        """A whole number of at least 1."""
        found = self.wholes(name, (default,))
        if len(found) != 1 or found[0] < 1:
            raise self.error(f"{name} should be a whole number of at least 1, got {self.config.get(name)!r}")
        return found[0]

    def pair(self, name: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """Two whole numbers of at least 1, for height and width; one number stands for both."""
        value = self.config.get(name)
        value = default if value is None else value
        both = self._wholes(name, [value, value] if isinstance(value, int) else value)
        if len(both) != 2 or min(both) < 1:
            raise self.error(f"{name} should be one or two whole numbers of at least 1, got {value!r}")
        return both[0], both[1]

    def _wholes(self, name: str, value: object) -> tuple[int, ...]:
        items = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) and abs(v) < _LARGEST_NUMBER for v in items):
            raise self.error(f"{name} should be whole numbers, got {value!r}; save the model again")
        return tuple(items)

    def _scalar(self, value: Any) -> Any:
        """Keras 3 writes NumPy scalars as {"class_name": "__numpy__", "config": {"value": ...}}."""
        config = value.get("config") if isinstance(value, Mapping) else None
        return config.get("value") if isinstance(config, Mapping) else value


@dataclass(frozen=True)
class Layer:
    """A call whose inputs are known: `inputs` names tensors of the graph, `types` gives theirs."""

    call: Call
    inputs: tuple[str, ...]
    types: tuple[TensorType, ...]

    @property
    def name(self) -> str:
        return self.call.name

    @property
    def options(self) -> Options:
        return Options(describe(self.call), self.call.config)

    @property
    def input(self) -> str:
        """The only input; ModelError if there are others."""
        if len(self.inputs) != 1:
            raise self.error(f"takes one input, got {len(self.inputs)}")
        return self.inputs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first input, without the batch."""
        return self.types[0].shape

    def error(self, problem: str) -> ModelError:
        return self.options.error(problem)

    def image(self) -> tuple[int, int, int]:
        """(H, W, C) of an input that must be an image, channels last."""
        self.options.choice("data_format", ("channels_last",), "channels_last")
        if len(self.shape) != 3:
            raise self.error(f"needs an input of height x width x channels, got the shape {self.shape}")
        return self.shape[0], self.shape[1], self.shape[2]

    @property
    def is_row(self) -> bool:
        """Whether the layer works along one axis: its images have height 1, as kernels see them."""
        return "1D" in self.call.class_name

    def plane(self) -> tuple[int, int, int]:
        """(H, W, C) of the input; layers along one axis take (steps, channels), which is a row of pixels."""
        if not self.is_row:
            return self.image()
        self.options.choice("data_format", ("channels_last",), "channels_last")
        if len(self.shape) != 2:
            raise self.error(f"needs an input of steps x channels, got the shape {self.shape}")
        return 1, self.shape[0], self.shape[1]

    def pair(self, name: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """An option for height and width; of layers along one axis it is one number, and the height's is 1."""
        if not self.is_row:
            return self.options.pair(name, default)
        return 1, self.options.whole(name, default[1] if default else 0)

    def kernel(self, *names: str) -> Array:
        """A weight with the axes (height, width, ...); of layers along one axis the height is added."""
        return self.weight(*names, rank=3)[np.newaxis] if self.is_row else self.weight(*names, rank=4)

    def weight(self, *names: str, rank: int) -> Array:
        """The weight known by one of `names`, with `rank` axes."""
        found = next((self.call.weights[name] for name in names if name in self.call.weights), None)
        if found is None:
            raise self.error(f"has no weight {names[0]!r}, the file gives {sorted(self.call.weights) or 'none'}; save the whole model")
        if found.ndim != rank:
            raise self.error(f"{names[0]} should have {rank} axes, got the shape {found.shape}")
        return found

    def per_channel(self, name: str, axis: int = -1) -> Array:
        """A weight with one value for each channel of the input, or for each place along another axis of its shape."""
        found = self.weight(name, rank=1)
        if found.shape != (self.shape[axis],):
            raise self.error(f"{name} should have {self.shape[axis]} values, one for each channel, got {len(found)}; save the model again")
        return found

    def bias(self) -> Array | None:
        return self.weight("bias", rank=1) if self.options.flag("use_bias", True) else None


def describe(call: Call) -> str:
    return f"layer {call.name!r} ({call.class_name})"


@dataclass
class Builder:
    """Collects nodes and tensor types.

    `reserved` are tensor names that only layer outputs may take; `keras_major` is the version of Keras that the layers' names are from;
    `trained` has the bits that quantized weights were trained at, by layer.
    """

    reserved: frozenset[str] = frozenset()
    keras_major: int = 3
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict)

    def add(
        self,
        op: str,
        layer: Layer,
        *inputs: str,
        constants: Mapping[str, Array] | None = None,
        attrs: Mapping[str, int | float] | None = None,
        encoding: Encoding | None = None,
        shape: tuple[int, ...] | None = None,
        rank: int = MAX_RANK,
    ) -> str:
        """Append a node and return the tensor it gives.

        Packed inputs that the operation cannot read are unpacked first. The output is float32 unless `encoding` says otherwise; a
        pool of packed tensors stays packed. `shape`, or the number of axes that are kept, drops leading axes of 1 from the operation's own.
        """
        arrays = dict(constants or {})
        inputs = tuple(inputs) if self._readable(op, inputs, arrays) else tuple(self.floats(layer, name) for name in inputs)
        call = OpCall(
            tuple(self.types[name] for name in inputs),
            {role: constant_type(array) for role, array in arrays.items()},
            attributes(op, **(attrs or {})),
        )
        try:
            natural = infer(OPS[op], call)
        except OpError as err:
            raise layer.error(f"does not fit its input: {err}") from err
        kept = call.inputs[0].encoding if op in CARRY_BITS else Encoding.FLOAT32
        name = self._fresh(f"{layer.name}/{op}")
        self.types[name] = TensorType(shape or natural[-rank:], kept if encoding is None else encoding)
        self.nodes.append(Node(op, inputs, name, call.attrs, arrays, (layer.name,)))
        return name

    def floats(self, layer: Layer, tensor: str) -> str:
        """A float32 view of a tensor: packed ones go through `unpack`, once."""
        if self.types[tensor].encoding is not Encoding.BITS:
            return tensor
        known = next((n.output for n in self.nodes if n.op == "unpack" and n.inputs == (tensor,)), None)
        return known or self.add("unpack", layer, tensor)

    def _readable(self, op: str, inputs: tuple[str, ...], constants: Mapping[str, Array]) -> bool:
        encodings = {self.types[name].encoding for name in inputs}
        stored = constant_type(constants["filter"]).encoding if "filter" in constants else None
        fits = all(any(sig[:2] == (e, stored) for sig in OPS[op].signatures) for e in encodings)
        whole_bytes = op != "concat" or all(self.types[name].shape[-1] % 8 == 0 for name in inputs)
        return fits and len(encodings) == 1 and (whole_bytes or Encoding.BITS not in encodings)

    def _fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.types or name in self.reserved:
            count += 1
            name = f"{wanted}.{count}"
        return name

    def rename(self, tensor: str, name: str) -> str:
        """Give the output of the last node another name, and return that."""
        node = self.nodes[-1]
        if node.output != tensor or name in self.types:
            raise ModelError(f"layer {name!r}: the model has two layers of this name; rename one")
        self.nodes[-1] = Node(node.op, node.inputs, name, node.attrs, node.constants, node.layers)
        self.types[name] = self.types.pop(tensor)
        return name


LayerFunction = Callable[[Layer, Builder], str | tuple[str, ...]]
_Function = TypeVar("_Function", bound=LayerFunction)
READERS: dict[str, LayerFunction] = {}


def reads(*class_names: str) -> Callable[[_Function], _Function]:
    """Decorator: this function reads the Keras or Larq layers of these class names."""

    def register(function: _Function) -> _Function:
        for name in class_names:
            READERS[name] = function
        return function

    return register


def same_padding(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(before, after) along one axis for Keras' `same`: the output has ceil(size / stride) values, the odd zero goes after."""
    total = max((math.ceil(size / stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def float32(array: Array) -> Array:
    """A contiguous float32 copy or view, as constants are kept."""
    return np.ascontiguousarray(array, np.float32)
