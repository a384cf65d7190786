"""Layers that cannot be converted, by kind, each with the way forward: what to use in their place, or how to get rid of them."""

from __future__ import annotations

from collections.abc import Callable

from edge.converters.keras_model import Call

_TEXT = ("TextVectorization", "StringLookup", "IntegerLookup", "Hashing", "HashedCrossing", "Discretization", "CategoryEncoding")
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "TimeDistributed", "LSTMCell", "GRUCell", "StackedRNNCells")
_QUANTIZED = ("QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer", "QuantizeAnnotate")
_PREFIXES = ("CuDNN", "ConvLSTM", "QSimpleRNN", "QLSTM", "QGRU", "QBidirectional")

# What a class is by its name, and what to say of it.
_KINDS: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda name: name == "Lambda",
        "a Lambda holds Python code, which edge never runs; replace it by layers, such as Rescaling or Activation, or by keras.ops",
    ),
    (
        lambda name: name in _QUANTIZED,
        "this wrapper of tensorflow_model_optimization simulates 8 bits while training; give the model as it was before quantize_model, "
        "and convert it with --bits 8 --calibrate",
    ),
    (
        lambda name: name == "QAdaptiveActivation",
        "its integer bits are found in training and are no part of its configuration; replace it by a QActivation that names them, such as "
        "'quantized_relu(8,2)', and take over the weights",
    ),
    (
        lambda name: name in _RECURRENT or name.startswith(_PREFIXES),
        "recurrent layers are not supported; replace it by Conv1D layers over the whole window, with strides or dilation, and train again",
    ),
    (
        lambda name: "Attention" in name,
        "attention is not supported; replace it by convolutions, or by a gate (GlobalAveragePooling2D, Dense, Multiply), and train again",
    ),
    (
        lambda name: "3D" in name,
        "layers of three dimensions are not supported; replace it by its 2D form, with the third among the channels, and train again",
    ),
    (
        lambda name: name in _TEXT,
        "this layer prepares text or categories, which edge does not; do it before the model, and build the model from what comes after it",
    ),
)


def reason_against(call: Call) -> str | None:
    """Why a layer of this kind cannot be converted and what to do; None for layers of which nothing is known but their name."""
    return next((reason for is_kind, reason in _KINDS if is_kind(call.class_name)), None)
