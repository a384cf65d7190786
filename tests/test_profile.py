"""`edge profile`: bytes that are exact, predictions that say so, and device profiles that are checked."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from sample_programs import GRAPHS, program

from edge.cli import cli
from edge.engine import Engine
from edge.errors import InputError
from edge.format import to_bytes, write
from edge.kernels import isa
from edge.ops import OPS
from edge.targets.costs import InstructionCost, cycles, kind_of, program_cost
from edge.targets.devices import FIGURES, FOLDER, NEEDED_FOR_TIME, Device, KernelCost, available, load_device
from edge.targets.profile import COMPUTE, MEASURED, MEMORY, OVERHEAD, PREDICTED, predict, profile

PI = "raspberry-pi-4"


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device(PI)


@pytest.fixture(params=GRAPHS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write(program(request.param), tmp_path / "model.edge")
    return tmp_path / "model.edge"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


# -- bytes ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_ram_is_what_an_engine_allocates(name: str) -> None:
    engine = Engine(program(name))
    assert program_cost(engine.program, engine.machine).footprint == engine.footprint


@pytest.mark.parametrize("name", GRAPHS)
def test_ram_is_known_for_instruction_sets_that_this_machine_lacks(name: str, device: Device) -> None:
    costs = {each: program_cost(program(name), replace(device.machine, isa=isa.ISAS[each])) for each in isa.ISAS}
    assert {cost.footprint.constants_bytes for cost in costs.values()} == {program(name).blob.nbytes}
    assert all(cost.footprint.total_bytes > cost.footprint.constants_bytes for cost in costs.values())


def test_storage_is_the_size_of_the_file(file: Path) -> None:
    found = profile(file, PI)
    assert found.storage_bytes == len(file.read_bytes())
    assert sum(layer.storage_bytes for layer in found.layers) <= found.footprint.constants_bytes < found.storage_bytes
    assert found.fits_memory is True and found.fits_storage is True


@pytest.mark.parametrize("name", GRAPHS)
def test_multiply_accumulates_are_those_of_the_operations(name: str, device: Device) -> None:
    made = program(name)
    expected = sum(each.definition.macs(made.call(each), made.tensors[each.output].type.shape) for each in made.instructions)
    found = predict(name, len(to_bytes(made)), made, device)
    assert sum(found.macs.values()) == expected == sum(layer.macs for layer in found.layers)
    assert ("1x1" in found.macs) == any(layer.precision == "1x1" for layer in found.layers)


@pytest.mark.parametrize("name", GRAPHS)
def test_stored_filters_are_at_least_as_large_as_what_they_mean(name: str) -> None:
    for cost in program_cost(program(name), isa.detect()).instructions:
        assert cost.macs <= cost.stored_macs and (cost.macs > 0) == (cost.stored_macs > 0)


def test_a_constant_that_two_layers_share_counts_once() -> None:
    made = program("digits")
    cost = program_cost(made, isa.detect())
    assert sum(each.constants_bytes for each in cost.instructions) == sum(constant.nbytes for constant in made.constants)


# -- time ----------------------------------------------------------------------------------------------------------------------


def test_predictions_are_called_predictions(file: Path) -> None:
    found = profile(file, PI)
    assert found.time_basis == PREDICTED and found.expected_error >= 0.2
    assert found.seconds == pytest.approx(sum(layer.seconds for layer in found.layers))
    assert {layer.limit for layer in found.layers} <= {COMPUTE, MEMORY, OVERHEAD}
    result = invoke("profile", file, "--target", PI)
    assert result.exit_code == 0 and "predicted" in result.stdout and "measured" not in result.stdout


def test_this_machine_is_measured(file: Path) -> None:
    found = profile(file)
    assert found.time_basis == MEASURED and found.seconds > 0
    assert found.fits_memory is None and all(layer.limit == "" for layer in found.layers)
    assert found.seconds_by_threads[1] == pytest.approx(found.seconds)


def cost_of(kind: str, macs: int = 0, values: int = 0) -> InstructionCost:
    operation = next(name for name in sorted(OPS, key=len, reverse=True) if kind.startswith(f"{name}_"))
    features = {"mac": float(macs), "value": float(values), "call": 1.0}
    return InstructionCost(operation, "kernel", kind, macs, macs, values, (1, 1), 0, 0, 0, 0, 0, 0, 0, features)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from([0, 10**3, 10**9]))
def test_more_work_never_takes_less_time(first: int, second: int, values: int) -> None:
    kernels = load_device(PI).kernels
    small, large = (cost_of("conv2d_bits_bits_bits", macs=macs, values=values) for macs in sorted((first, second)))
    assert cycles(small, kernels)[0] <= cycles(large, kernels)[0]


def test_a_kind_that_the_profile_lacks_takes_the_slowest_of_its_operation() -> None:
    def figures(per_mac: float) -> KernelCost:
        return KernelCost({"mac": per_mac}, "made up", False, 0.5)

    kernels = {"conv2d_bits_bits_bits": figures(1), "conv2d_float32_float32_float32": figures(3), "dense_bits_bits_bits": figures(9)}
    assert cycles(cost_of("conv2d_int8_int8_int8", macs=10), kernels)[0] == 30
    assert cycles(cost_of("depthwise_conv2d_int8_int8_int8", macs=10), kernels)[0] == 90


def test_what_limits_a_layer_follows_from_the_figures(device: Device) -> None:
    made = program("digits")

    def limits(**values: float) -> set[str]:
        figures = {name: replace(figure, value=values.get(name, figure.value)) for name, figure in device.figures.items()}
        return {layer.limit for layer in predict("digits", 1, made, replace(device, figures=figures)).layers}

    assert limits(overhead_s=1.0) == {OVERHEAD}
    slow = {"l2_bytes_per_s": 1.0, "memory_bytes_per_s": 1.0}
    assert limits(overhead_s=0.0, l1d_bytes=1.0, **slow) == {MEMORY}
    assert limits(overhead_s=0.0, l1d_bytes=1e18, **slow) == {COMPUTE}


def test_a_model_that_is_too_large_does_not_fit(device: Device) -> None:
    figures = device.figures | {"free_memory_bytes": replace(device.figures["free_memory_bytes"], value=1000.0)}
    assert predict("digits", 1, program("digits"), replace(device, figures=figures)).fits_memory is False


# -- device profiles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", available())
def test_every_profile_loads_and_covers_every_kernel(name: str) -> None:
    found = load_device(name)
    assert found.name == name and set(found.figures) <= set(FIGURES)
    if not found.kernels:
        return
    assert set(NEEDED_FOR_TIME) <= set(found.figures)
    kinds = {kind_of(made, each) for made in map(program, GRAPHS) for each in made.instructions}
    assert kinds <= set(found.kernels), "run: python benchmarks/device_cycles.py NAME --write"
    assert all(not cost.measured and cost.expected_error >= 0.2 for cost in found.kernels.values())


def test_every_figure_says_where_it_comes_from() -> None:
    for path in FOLDER.glob("*.toml"):
        content = tomllib.loads(path.read_text("utf-8"))
        for table in (*content["figures"].values(), *content.get("kernels", {}).values()):
            assert table["source"] and isinstance(table["measured"], bool)


def changed(tmp_path: Path, pattern: str, replacement: str) -> Path:
    text, count = re.subn(pattern, replacement, (FOLDER / f"{PI}.toml").read_text("utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    path = tmp_path / "board.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_profile_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    path = changed(tmp_path, r'^name = .*$', 'name = "my-board"')
    write(program("digits"), tmp_path / "model.edge")
    found = json.loads(invoke("profile", tmp_path / "model.edge", "--target", path, "--json").stdout)
    assert found["target"] == "my-board" and found["time_basis"] == PREDICTED
    assert found["footprint"]["total_bytes"] == profile(tmp_path / "model.edge", PI).footprint.total_bytes


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r'^isa = .*$', 'isa = "mmx"', "machine.isa should be one of .*got mmx"),
        (r'^title = .*$', "", "title should be text, got nothing"),
        (r"^measured = false$", "", "measured should be true or false, got nothing"),
        (r"^value = .*$", 'value = "fast"', "clock_hz.value should be a number .*got fast"),
        (r"^value = .*$", "value = 0", "clock_hz.value should be a number above 0"),
        (r"^value = .*$", "value = nan", "clock_hz.value should be a number"),
        (r"^\[figures.cores\]$", "[figures.kores]", "figures.kores should be nothing but"),
        (r"^cycles_per_mac = .*$", "cycles_per_mac = -1", "cycles_per_mac should be a number of at least 0"),
        (r"^name = .*$", "name = ", "expected TOML"),
    ],
)
def test_a_profile_that_is_wrong_is_refused_with_the_place(tmp_path: Path, pattern: str, replacement: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_device(str(changed(tmp_path, pattern, replacement)))


def test_an_unknown_target_lists_those_there_are(tmp_path: Path) -> None:
    write(program("digits"), tmp_path / "model.edge")
    result = invoke("profile", tmp_path / "model.edge", "--target", "raspberry-pi-99")
    assert result.exit_code == 1 and PI in result.stderr and "host" in result.stderr
    with pytest.raises(InputError, match="there is none"):
        load_device(str(tmp_path / "absent.toml"))


def test_files_that_are_damaged_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "model.tflite").write_bytes(bytes(4) + b"TFL3")
    for name in ("model.h5", "model.tflite"):
        result = invoke("profile", tmp_path / name)
        assert result.exit_code == 1 and name in result.stderr and result.stderr.count("\n") == 1 and not result.stdout
