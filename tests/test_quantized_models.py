"""Models that Larq and QKeras wrote (tests/fixtures), converted without them, against the outputs they computed themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import kernel, model_of

import edge
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.rewriting import stored
from edge.errors import ModelError
from edge.graph import Graph
from edge.kernels.reference import run_graph

FIXTURES = Path(__file__).parent / "fixtures"
LAST = {
    **{"larq_quantizers": "all", "larq_layers": "scores"},
    **{"qkeras_kernels": "all", "qkeras_activations": "all", "qkeras_layers": "softmax", "qkeras_binary": "scores"},
}
FILES = (*(f"{name}.h5" for name in LAST), "larq_layers.keras", "qkeras_layers.keras")
# Beside what was trained for more than 8 bits everything is exact at every width.
LOWERED_AT_8 = {"qkeras_kernels": slice(17 * 3, 18 * 3), "larq_quantizers": slice(14 * 2, 15 * 2)}
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def answers(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name.partition('.')[0]}.npz") as known:
        return dict(known)


@pytest.mark.parametrize("file", FILES)
def test_every_layer_equals_its_source(file: str) -> None:
    graph, known = read_graph(read_keras(FIXTURES / file)), answers(file)
    compared = set()
    for index, example in enumerate(known["input"]):
        for tensor, values in run_graph(graph, {graph.inputs[0]: example}).items():
            if f"layer/{tensor}" in known:
                got = np.where(values, -1.0, 1.0) if values.dtype == np.bool_ else values
                np.testing.assert_allclose(got, known[f"layer/{tensor}"][index], **CLOSE, err_msg=tensor)
                compared.add(tensor)
    assert len(compared) >= 0.9 * (len(known) - 1)  # the same signs of the same tensor are computed once


@pytest.mark.parametrize("bits", [32, 8, 1])
@pytest.mark.parametrize("name", LAST)
def test_converted_models_answer_as_their_source(name: str, bits: int, tmp_path: Path) -> None:
    known = answers(name)
    expected = known[f"layer/{LAST[name]}"]
    edge.convert(FIXTURES / f"{name}.h5", tmp_path, bits=bits, formats="edge", input_dtype="float32")
    got = edge.load(tmp_path / f"{name}.edge").run(known["input"])
    close = np.isclose(got, expected, **CLOSE)
    if bits == 8 and name in LOWERED_AT_8:
        lowered = LOWERED_AT_8[name]
        assert not close[..., lowered].all()
        np.testing.assert_allclose(got[..., lowered], expected[..., lowered], atol=0.1)
        close[..., lowered] = True
    assert close.all(), np.abs(got - expected).max()


@pytest.mark.parametrize("name", LAST)
def test_their_tflite_files_answer_as_their_source(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="TensorFlow Lite runs in ai-edge-litert")
    pytest.importorskip("flatbuffers")
    from edge.tflite_runner import load_tflite

    known = answers(name)
    edge.convert(FIXTURES / f"{name}.h5", tmp_path, formats="tflite", input_dtype="float32")
    model = load_tflite(tmp_path / f"{name}.tflite")
    np.testing.assert_allclose(model.run(known["input"]), known[f"layer/{LAST[name]}"], **CLOSE)


def test_pictures_to_calibrate_on_leave_what_is_quantized(tmp_path: Path) -> None:
    """Float layers become int8 by the ranges of the examples; those that read int8 or signs are as they were."""
    known = answers("qkeras_binary")
    edge.convert(FIXTURES / "qkeras_binary.h5", tmp_path, bits=8, formats="edge", calibrate=known["input"], input_dtype="float32")
    got, expected = edge.load(tmp_path / "qkeras_binary.edge").run(known["input"]), known["layer/scores"]
    assert np.corrcoef(got.reshape(-1), expected.reshape(-1))[0, 1] > 0.9


# -- what they become ----------------------------------------------------------------------------------------------------------


def signatures(graph: Graph) -> dict[str, tuple[str, str, str]]:
    """By the first layer of each node with a filter: what it reads, stores and gives."""
    return {
        node.layers[0]: tuple(kind.name for kind in (graph.types[node.inputs[0]].encoding, stored(node), graph.types[node.output].encoding))
        for node in graph.nodes
        if "filter" in node.constants
    }  # type: ignore[misc]


def simplified(name: str) -> dict[str, tuple[str, str, str]]:
    return signatures(run_passes(read_graph(read_keras(FIXTURES / f"{name}.h5"))))


def test_a_chain_of_signs_is_packed_from_end_to_end() -> None:
    found = simplified("qkeras_binary")
    assert found == {
        "first": ("FLOAT32", "INT8", "FLOAT32"),
        "second": ("BITS", "BITS", "BITS"),
        "third": ("BITS", "BITS", "FLOAT32"),
        "flat": ("INT8", "BITS", "FLOAT32"),
    }


def test_signs_and_zeros_and_ones_of_larq_are_packed() -> None:
    found = simplified("larq_quantizers")
    packed = [name for name, kinds in found.items() if kinds[:2] == ("BITS", "BITS")]
    assert packed == ["heaviside", "heaviside_kernel", "ternary_kernel", "ternary_network", "dorefa_1", "swish", "latent_signs", "function"]
    integer = {name: kinds[1] for name, kinds in found.items() if kinds[0] == "INT8"}
    assert integer == {
        **{"ternary_input": "BITS", "ternary_both": "INT8", "dorefa": "INT8", "dorefa_4": "BITS", "dorefa_8": "INT8"},
    }


def test_activations_of_qkeras_are_read_as_they_are_stored() -> None:
    found = {name: kinds[0] for name, kinds in simplified("qkeras_activations").items()}
    assert found == {
        **{"behind0": "BITS", "behind1": "FLOAT32", "behind2": "BITS", "behind4": "INT8", "behind6": "INT8", "behind7": "INT8"},
        **{"behind10": "FLOAT32", "behind13": "INT8", "behind14": "INT8", "behind28": "BITS"},
    }


def test_the_report_says_how_many_bits_were_meant(tmp_path: Path) -> None:
    report = edge.convert(FIXTURES / "qkeras_kernels.h5", tmp_path, formats="edge", input_dtype="float32")
    rows = {row.name: (row.bits_after, row.note) for row in report.layers}
    assert rows["kernel1"] == (1, "")
    assert rows["kernel8"] == (1, "trained with weights of 2 bits, stored exactly, as pairs of signs")
    taken, note = rows["kernel10"]
    assert taken in (4, 8) and note == f"trained with weights of 4 bits, stored exactly, in {taken} bits"
    report = edge.convert(FIXTURES / "qkeras_kernels.h5", tmp_path, bits=32, formats="edge", input_dtype="float32", force=True)
    rows = {row.name: (row.bits_after, row.note) for row in report.layers}
    assert rows["kernel17"] == (32, "trained with weights of 16 bits, stored exactly, in 32 bits")


def test_networks_of_quantized_weights_are_not_binarized(tmp_path: Path) -> None:
    """At `bits` 1 a network trained with more stays as it was trained."""
    report = edge.convert(FIXTURES / "qkeras_layers.h5", tmp_path, bits=1, formats="edge", input_dtype="float32")
    taken = {row.name: row.bits_after or 0 for row in report.layers if row.note.startswith("trained with weights of")}
    assert taken.keys() == {"conv", "folded", "depthwise", "separable", "depthwise_folded", "row_conv", "scores"}
    assert min(taken.values()) > 1


# -- padding -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", ["ste_sign", "ste_heaviside", "ste_tern", None])
@pytest.mark.parametrize("value", [-1.0, 0.0, 0.25, 1.0])
@pytest.mark.parametrize("channels", [5, 8])
def test_padding_counts_as_its_value(quantizer: str | None, value: float, channels: int) -> None:
    """A convolution that pads equals one of an image that was padded by hand."""
    random = np.random.default_rng(channels)
    weights = kernel(random, 3, 2, channels, 6)
    config = {"kernel_size": [3, 2], "use_bias": False, "input_quantizer": quantizer, "kernel_quantizer": "ste_sign"}
    model = model_of(("QuantConv2D", {**config, "padding": "same", "pad_values": value}, {"kernel": weights}), shape=(5, 4, channels))
    x = np.round(2 * random.normal(size=(5, 4, channels))).astype(np.float32) / 2
    quantized = {None: x, "ste_sign": np.where(x < 0, -1, 1), "ste_heaviside": x > 0, "ste_tern": np.sign(x)}[quantizer]
    padded = np.pad(quantized.astype(np.float64), ((1, 1), (0, 1), (0, 0)), constant_values=value)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(0, 1))
    expected = np.einsum("hwcyx,yxco->hwo", windows, np.where(weights < 0, -1, 1))
    graph = read_graph(model)
    for each in (graph, run_passes(graph)):
        np.testing.assert_allclose(run_graph(each, {"image": x})[each.outputs[0]], expected, atol=1e-4)
    reads = signatures(run_passes(graph))["layer0"][0]
    assert quantizer != "ste_sign" or reads == ("FLOAT32" if value == 0.25 else "BITS")


# -- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config", "says"),
    [
        ("QConv2D", {"kernel_quantizer": "quantized_ulaw(4)"}, "'layer0' .QConv2D.: kernel_quantizer 'quantized_ulaw' is not supported"),
        ("QConv2D", {"kernel_quantizer": 4}, "kernel_quantizer '4' is not supported, expected None or one of .*ste_sign, .*quantized_bits"),
        ("QConv2D", {"kernel_quantizer": "bernoulli"}, "kernel_quantizer bernoulli: draws at random"),
        ("QConv2D", {"kernel_quantizer": "quantized_bits(99)"}, "kernel_quantizer quantized_bits: bits should be 1 to 32"),
        ("QConv2D", {"activation": "quantized_bits(4,alpha='auto')"}, "alpha 'auto' is for weights"),
        ("QuantConv2D", {"input_quantizer": "binary(alpha='auto')"}, "alpha 'auto' is for weights"),
        ("QuantConv2D", {"pad_values": "zero", "padding": "same"}, "pad_values should be a number"),
        ("QAdaptiveActivation", {"activation": "quantized_relu", "total_bits": 8}, "its integer bits are found in training"),
        ("QLSTM", {}, "recurrent layers are not supported"),
    ],
)
def test_quantizers_that_cannot_be_converted_are_refused(kind: str, config: dict[str, Any], says: str) -> None:
    weights = {"kernel": np.ones((3, 3, 4, 2), np.float32)}
    with pytest.raises(ModelError, match=says):
        read_graph(model_of((kind, {"filters": 2, "kernel_size": [3, 3], "use_bias": False, **config}, weights)))


def test_damaged_folded_statistics_are_refused() -> None:
    rows = {name: np.ones(2, np.float32) for name in ("gamma", "beta", "moving_mean", "moving_variance", "bias")}
    weights = {"kernel": np.ones((3, 3, 4, 2), np.float32), **rows}
    config = {"filters": 2, "kernel_size": [3, 3]}
    for name, row, says in (("moving_variance", [-2, -2], "must be positive"), ("gamma", [1, 1, 1], "gamma should have 2 values")):
        broken = {**weights, name: np.array(row, np.float32)}
        with pytest.raises(ModelError, match=says):
            read_graph(model_of(("QConv2DBatchnorm", config, broken)))


