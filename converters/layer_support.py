"""What each layer becomes at each precision, found by converting a small network with that layer in its middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.converters.bits import Request, choose_bits
from edge.converters.calibration import Statistics
from edge.converters.keras_model import Call, KerasModel, Value
from edge.converters.layers import read_graph, supported_layers
from edge.converters.layers_shape import TRAINING_ONLY
from edge.converters.passes import run_passes
from edge.errors import ModelError
from edge.graph import Graph, Node
from edge.tensors import Encoding

COLUMNS = ("32 bits", "8 bits", "1 bit", "signs")
FAST, SUPPORTED, FREE, REFUSED = "fast", "supported", "free", "refused"

# Layers of Keras that are refused whatever their options, of the kinds that people ask for.
NOT_READ = (
    *("Attention", "AdditiveAttention", "MultiHeadAttention", "LSTM", "GRU", "SimpleRNN", "Bidirectional", "ConvLSTM2D", "TimeDistributed"),
    *("Conv3D", "Conv3DTranspose", "MaxPooling3D", "AveragePooling3D", "UpSampling3D", "ZeroPadding3D", "Cropping3D", "Lambda", "Dot"),
    *("Masking", "SpectralNormalization", "Hashing", "TextVectorization"),
)

CHANNELS, SIZE = 16, 8
_MERGES = ("Add", "Average", "Concatenate", "CustomScaleLayer", "Maximum", "Minimum", "Multiply", "Subtract")
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "Activation": {"activation": "tanh"},
    "QActivation": {"activation": "quantized_relu(4)"},
    "QAveragePooling2D": {"average_quantizer": "quantized_bits(8)"},
    "QGlobalAveragePooling2D": {"average_quantizer": "quantized_bits(8)"},
    "AveragePooling1D": {"pool_size": [2]},
    "MaxPooling1D": {"pool_size": [2]},
    "CenterCrop": {"height": 4, "width": 4},
    "CustomScaleLayer": {"scale": 0.5},
    "GroupNormalization": {"groups": 2},
    "Normalization": {"mean": 0.5, "variance": 2.0},
    "Rescaling": {"scale": 0.5, "offset": 1.0},
    "RepeatVector": {"n": 3},
    "Resizing": {"height": 16, "width": 12},
    "UpSampling1D": {"size": 2},
}
_OF_WEIGHTS = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
_SIGNS = dict.fromkeys(("input_quantizer", *_OF_WEIGHTS), "ste_sign")
_QKERAS = dict.fromkeys(_OF_WEIGHTS, "binary(alpha=1)")  # it has none of inputs
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_VECTORS = {
    **dict.fromkeys(("BatchNormalization", "QBatchNormalization", "QConv2DBatchnorm", "QDepthwiseConv2DBatchnorm"), _NORM),
    "LayerNormalization": ("gamma", "beta"),
    "LayerScale": ("gamma",),
    "RSign": ("shift",),
    "RPReLU": ("before", "slope", "after"),
    "GroupNormalization": ("gamma", "beta"),
}


def layer_support() -> dict[str, tuple[str, ...]]:
    """By layer: a word for each of `COLUMNS`.

    FAST: in float32, or by integers or packed bits of that precision. SUPPORTED: it converts, but works on float32 there. FREE: it
    does nothing at run time. The last column is of what reads signs and gives what a layer of signs reads.
    """
    found = {name: _words(name) for name in supported_layers() if name != "InputLayer"}
    return found | {name: (REFUSED,) * len(COLUMNS) for name in NOT_READ}


def _words(name: str) -> tuple[str, ...]:
    if name in TRAINING_ONLY:
        return (FREE,) * len(COLUMNS)
    words = _word(name, 8, Encoding.INT8), _word(name, 1, Encoding.BITS), _word(name, 1, Encoding.BITS, packed=True)
    return (FREE if words[0] == FREE else FAST), *words


def _word(name: str, bits: int, wanted: Encoding, *, packed: bool = False) -> str:
    try:
        graph = run_passes(read_graph(_model(name, packed=packed)))
    except ModelError:
        return REFUSED
    if not packed:
        statistics = {tensor: Statistics(-1.0, 1.0, 0.1, 0.5) for tensor in graph.types}
        graph = choose_bits(graph, Request(bits, 8 if bits == 8 else 32, statistics))
    own = [node for node in graph.nodes if "layer" in node.layers and node.op not in ("quantize", "dequantize", "unpack")]
    if not own:
        return FREE
    return FAST if all({wanted, Encoding.BITS} & _encodings(graph, node) for node in own) else SUPPORTED


def _encodings(graph: Graph, node: Node) -> set[Encoding]:
    """Those of the tensors that a node reads or gives, and of packed filters."""
    kinds = {graph.types[name].encoding for name in (*node.inputs, *node.outputs)}
    stored = node.constants.get("filter")
    return kinds | ({Encoding.BITS} if stored is not None and stored.dtype == np.bool_ else set())


def _model(name: str, *, packed: bool) -> KerasModel:
    """A convolution, the layer on what it gives (with `packed`, on its signs), and another convolution (of signs)."""
    shape = _shape(name)
    calls = [_call("first", _convolution(shape), ("image",), outputs=CHANNELS)]
    source = "first"
    if packed and not name.startswith("Quant"):
        calls.append(Call("signs", "Activation", None, {"activation": "ste_sign"}, {}, ("first",), ("signs",)))
        source = "signs"
    calls.append(_call("layer", name, (source,) * (2 if name in _MERGES else 1)))
    model = KerasModel("sample", "3.0", tuple(calls), (Value("image", shape),), ("layer",), ("layer",), "sample", "0" * 64, None)
    found = read_graph(model)
    kind = found.types[found.outputs[0]]
    last = _convolution(kind.shape)
    closing = _call("last", f"Quant{last}" if packed else last, ("layer",), channels=kind.shape[-1])
    return KerasModel("sample", "3.0", (*calls, closing), model.inputs, ("last",), ("last",), "sample", "0" * 64, None)


def _shape(name: str) -> tuple[int, ...]:
    if name == "RepeatVector":
        return (CHANNELS,)
    if name == "Embedding":
        return (SIZE, CHANNELS)
    return (SIZE, CHANNELS) if "1D" in name else (SIZE, SIZE, CHANNELS)


def _convolution(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return "Dense"
    return "Conv1D" if len(shape) == 2 else "Conv2D"


def _call(name: str, kind: str, inputs: tuple[str, ...], *, outputs: int = CHANNELS, channels: int = CHANNELS) -> Call:
    rank = 1 if "1D" in kind else 2
    config: dict[str, Any] = {"kernel_size": [1] * rank if name != "layer" else [3] * rank, "use_bias": False, **_OPTIONS.get(kind, {})}
    if kind.startswith("Q"):
        config |= _SIGNS if kind.startswith("Quant") else _QKERAS
    if kind == "Reshape":
        config["target_shape"] = [SIZE * 2, SIZE // 2, CHANNELS]
    if kind == "Permute":
        config["dims"] = [2, 1, 3]
    return Call(name, kind, None, config, _weights(kind, tuple(config["kernel_size"]), channels, outputs), inputs, (name,))


def _weights(kind: str, taps: tuple[int, ...], channels: int, outputs: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    if "Separable" in kind:
        shapes = {"depthwise_kernel": (*taps, channels, 1), "pointwise_kernel": (*(1 for _ in taps), channels, outputs)}
    elif "Depthwise" in kind:
        shapes = {"depthwise_kernel": (*taps, channels, 1)}
    elif "Conv" in kind:
        shapes = {"kernel": (*taps, *((outputs, channels) if kind.endswith("Transpose") else (channels, outputs)))}
    elif kind.endswith("Dense"):
        shapes = {"kernel": (channels, outputs)}
    elif kind == "Embedding":
        shapes = {"embeddings": (10, CHANNELS)}
    elif kind == "PReLU":
        shapes = {"alpha": (1, 1, channels)}
    shapes |= dict.fromkeys(_VECTORS.get(kind, ()), (channels,))
    return {role: np.abs(random.normal(size=shape)).astype(np.float32) if role == "moving_variance" else
            random.normal(size=shape).astype(np.float32) for role, shape in shapes.items()}  # fmt: skip
