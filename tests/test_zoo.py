"""The networks of edge.zoo: their sizes as described, and that they convert with every hidden layer packed and give Keras' answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_models import invoke

import edge
from edge import zoo
from edge.engine import Engine
from edge.errors import InputError
from edge.targets.costs import program_cost
from edge.zoo_writer import save

keras = pytest.importorskip("keras", reason="the networks are Keras models")

# As printed where the networks were described, or, for resnet and alexnet, counted from the description by hand.
WEIGHTS = {"lenet": 3_274_634, "cnn-base": 1_199_882, "clock": 624_392, "cnn-mnist": 98_778, "digits8": 3_199_106}
NARROW = {"alexnet": 1 / 16, "resnet(18)": 1 / 2, "resnet-cifar100": 1 / 8}


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_networks_have_the_weights_that_were_printed(name: str) -> None:
    assert zoo.build(name).count_params() == WEIGHTS[name]


@pytest.mark.slow
def test_alexnet_has_two_wide_dense_layers() -> None:
    model = zoo.alexnet("folded")
    convolutions = 11 * 11 * 3 * 96 + 25 * 96 * 256 + 9 * (256 * 384 + 384 * 384 + 384 * 256)
    biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 102
    assert model.count_params() == convolutions + 9216 * 4096 + 4096 * 4096 + 4096 * 102 + biases
    assert model.get_layer("flatten").output.shape == (None, 9216)


@pytest.mark.parametrize("precision", zoo.PRECISIONS)
def test_alexnet_normalizes_over_neighbours_only_as_floats(precision: str) -> None:
    layers = zoo.alexnet(precision, width=1 / 16).layers
    norms = [layer.name for layer in layers if type(layer).__name__ == "LocalResponseNormalization"]
    assert norms == (["norm1", "norm2"] if precision == "float" else [])
    names = [layer.name for layer in layers]
    assert precision != "float" or names[names.index("norm1") - 1] == "pool1"
    batch = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    assert batch == (7 if precision in zoo.QUANTIZED else 0), "one before each sign"


def test_alexnet_converts_with_its_norms(tmp_path: Path) -> None:
    model = zoo.alexnet(width=1 / 16)
    engine = converted(model, tmp_path)
    pictures = np.random.default_rng(2).integers(0, 256, (2, *model.input_shape[1:])).astype(np.uint8)
    np.testing.assert_allclose(engine.run(pictures), np.asarray(model(pictures.astype(np.float32))), atol=1e-5)
    assert [step.definition.name for step in engine.program.instructions].count("local_response_norm") == 2


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("precision", zoo.PRECISIONS)
def test_resnets_have_6n_plus_2_layers_with_weights(n: int, precision: str) -> None:
    model = zoo.resnet(n, precision)
    weighted = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert len(weighted) == 6 * n + 2
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 3 * n


def test_a_shortcut_around_each_layer_doubles_the_sums() -> None:
    model = zoo.build("resnet(2)-shortcuts", "xnor")
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 12


@pytest.mark.parametrize("precision", zoo.PRECISIONS)
def test_precisions_differ_in_quantizers_and_norms(precision: str) -> None:
    hidden = zoo.cnn_digits(precision, width=0.5).get_layer("conv2")
    kinds = [getattr(hidden, f"{what}_quantizer", None) is not None for what in ("kernel", "input")]
    assert kinds == [precision in zoo.QUANTIZED, precision in zoo.QUANTIZED and not precision.endswith("weights")]
    assert getattr(hidden, "magnitude_map", False) == (precision == "xnor-k")
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in zoo.cnn_digits(precision, width=0.5).layers)
    assert norms == {"float": 2, "folded": 0}.get(precision, 5)


@pytest.mark.parametrize("precision", zoo.SIGNS)
@pytest.mark.parametrize("name", [name if name != "alexnet" else pytest.param(name, marks=pytest.mark.slow) for name in zoo.NETWORKS])
def test_at_least_95_percent_of_the_weights_are_signs(name: str, precision: str) -> None:
    weighted = [layer for layer in zoo.build(name, precision).layers if hasattr(layer, "kernel")]
    signs = sum(math.prod(layer.kernel.shape) for layer in weighted if getattr(layer, "kernel_quantizer", None) is not None)
    assert signs >= 0.95 * sum(math.prod(layer.kernel.shape) for layer in weighted)
    assert not name.startswith("mlp") or hasattr(weighted[0], "kernel_quantizer"), "in dense networks the first layer too"


def test_width_multiplies_channels_to_multiples_of_8() -> None:
    model = zoo.lenet(width=1.5)
    assert [model.get_layer(name).kernel.shape[-1] for name in ("conv1", "conv2", "dense3", "logits")] == [48, 96, 1536, 10]
    assert zoo.lenet(width=0.01).get_layer("conv1").kernel.shape[-1] == 8


QUICK = ("lenet", "resnet(2)", "clock", "mlp-base")  # the others compile many kernels


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in zoo.NETWORKS])
def test_binary_networks_convert_packed_and_give_keras_answers(name: str, tmp_path: Path) -> None:
    model = zoo.build(name, "xnor", width=NARROW.get(name, 1 / 4))
    randomize(model)
    engine = converted(model, tmp_path)
    weighted = [cost.precision for cost in program_cost(engine.program, engine.machine).instructions if cost.macs]
    heads = 2 if name == "clock" else 1
    first = (32, 1) if name.startswith("mlp") else (32, 32)  # pixels have no sign
    assert weighted.count((32, 32)) <= 1 + heads
    assert weighted[0] == first and set(weighted[1:-heads]) <= {(1, 1), (32, 32)}
    pictures = np.random.default_rng(1).integers(0, 256, (3, *model.input_shape[1:])).astype(np.uint8)
    expected, got = model(pictures.astype(np.float32), training=False), engine.run(pictures)
    for one, other in zip(*(each if heads > 1 else [each] for each in (expected, got)), strict=True):
        same = np.isclose(np.asarray(one), other, rtol=0, atol=1e-4).all(axis=1)
        assert same.sum() >= 2, f"{name}: a sign may differ where a value is almost 0, in one picture of three"


def randomize(model: Any) -> None:
    """Batch norms that split what they see, and no two channels alike."""
    random = np.random.default_rng(0)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
        norm.gamma.assign(random.uniform(0.5, 1.5, norm.gamma.shape) * random.choice([1, -1], norm.gamma.shape))
        norm.beta.assign(random.normal(0, 0.3, norm.beta.shape))
    model(random.integers(0, 256, (4, *model.input_shape[1:])).astype(np.float32), training=True)


def converted(model: Any, folder: Path) -> Engine:
    """The engine of a model, its float layers in float32."""
    model.save(folder / "model.keras")
    edge.convert(folder / "model.keras", bits=32, formats="edge")
    return edge.load(folder / "model.edge")


@pytest.mark.parametrize("name", ["lenet", pytest.param("resnet(2)", marks=pytest.mark.slow)])
def test_int8_files_stay_integer_between_first_and_last_layer(name: str, tmp_path: Path) -> None:
    model = zoo.build(name, "folded", width=0.5)
    model.save(tmp_path / "model.keras")
    pictures = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:])).astype(np.uint8)
    edge.convert(tmp_path / "model.keras", bits=8, formats="edge", calibrate=pictures)
    engine = edge.load(tmp_path / "model.edge")
    operations = [instruction.definition.name for instruction in engine.program.instructions]
    assert not {"quantize", "dequantize", "activation"} & set(operations)


def test_errors_name_what_there_is() -> None:
    with pytest.raises(InputError, match=r"lenet, alexnet"):
        zoo.build("lenet5")
    with pytest.raises(InputError, match=r"precision .* float, folded, xnor-weights, .* got '1 bit'"):
        zoo.lenet("1 bit")
    with pytest.raises(InputError, match="width"):
        zoo.lenet(width=0)
    with pytest.raises(InputError, match="n = 0"):
        zoo.resnet(0)


def test_a_network_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    network = zoo.build("mlp-base", width=0.1)
    save(network, tmp_path / "net.keras")
    before = (tmp_path / "net.keras").read_bytes()

    class Broken:
        def save(self, path: Path) -> None:
            path.write_bytes(before[:100])
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        save(Broken(), tmp_path / "net.keras")
    assert [each.name for each in tmp_path.iterdir()] == ["net.keras"] and (tmp_path / "net.keras").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere/net.keras", "there is no folder"), ("here.keras", "but it is a folder"), ("net.h5", "ends in .keras")]
)
def test_places_where_no_network_can_be_are_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "here.keras").mkdir()
    ran = invoke("zoo", "build", "mlp-base", "--width", "0.1", "-o", tmp_path / name)
    assert ran.exit_code == 1 and said in ran.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["here.keras"]


@pytest.mark.parametrize(
    ("precision", "rates"), [("float", [0.25, 0.5]), ("xnor-weights", [0.25, 0.5]), ("dorefa-2", [0.25, 0.5]), ("xnor", [0.5])]
)
def test_nothing_is_dropped_that_signs_are_taken_of(precision: str, rates: list[float]) -> None:
    model = zoo.build("cnn-base", precision, width=0.25)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == rates
