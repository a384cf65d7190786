"""The cost model and the calibration of this machine: fits, features, roofline, `edge targets`. Times are compared, never stated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from sample_programs import GRAPHS, program

from edge.cli import cli
from edge.errors import InputError
from edge.format import write
from edge.kernels.isa import ISAS, detect
from edge.targets import calibrate, devices
from edge.targets.cases import Case, cases
from edge.targets.costs import HALO, InstructionCost, program_cost
from edge.targets.device_file import to_toml
from edge.targets.devices import FEATURES, FIGURES, NEEDED_FOR_TIME, Device, Figure, KernelCost, load_device, load_host
from edge.targets.features import Stream
from edge.targets.fitting import Sample, fit
from edge.targets.profile import EMULATED, MEASURED, emulated, predict, profile
from edge.targets.roofline import COMPUTE, MEMORY, OVERHEAD, estimate, estimates
from edge.tensors import Encoding, TensorType

PI = "raspberry-pi-4"
KINDS = "conv2d_bits_bits_bits|dense_float32_float32_float32|softmax_float32|fill_halo"


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of the test's own."""
    monkeypatch.setenv(devices.CONFIG_VARIABLE, str(tmp_path / "config"))
    return tmp_path / "config" / "edge"


@pytest.fixture(scope="module")
def quick() -> Device:
    """This machine, a few kinds of kernels, hardly timed."""
    return calibrate.calibrate(calibrate.Settings(rounds=2, bandwidth_rounds=1, kinds=KINDS))


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


# -- fitting -------------------------------------------------------------------------------------------------------------------


def test_costs_that_samples_are_made_of_are_found() -> None:
    random = np.random.default_rng(0)
    costs = {"mac": 0.02, "value": 1.5, "call": 90.0}
    features = [{"mac": float(m), "value": float(v), "call": 1.0} for m, v in random.integers(1, 10**5, (12, 2))]
    found = fit([Sample(each, sum(costs[name] * each[name] for name in costs)) for each in features])
    assert found.cycles == pytest.approx(costs, rel=1e-3) and found.error < 1e-3


def test_one_disturbed_sample_changes_little() -> None:
    samples = [Sample({"mac": float(n), "call": 1.0}, 2.0 * n + 50) for n in (10, 30, 100, 300, 1000, 3000, 10_000)]
    samples[4] = replace(samples[4], cycles=5 * samples[4].cycles)
    assert fit(samples).cycles["mac"] == pytest.approx(2.0, rel=0.1)


@given(st.lists(st.tuples(*[st.floats(0, 1e6)] * 3, st.floats(1, 1e9)), min_size=1, max_size=9))
def test_no_cost_is_negative(rows: list[tuple[float, float, float, float]]) -> None:
    found = fit([Sample({"mac": a, "value": b, "call": 1.0, "tile": c}, taken) for a, b, c, taken in rows])
    assert all(cost > 0 for cost in found.cycles.values()) and 0 <= found.error <= 1


# -- features ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", GRAPHS)
def test_tiles_compute_at_least_what_the_operation_asks_for(name: str, isa: str) -> None:
    machine = replace(load_device(PI).machine, isa=ISAS[isa])
    for cost in program_cost(program(name), machine).instructions:
        assert cost.features["call"] == 1 and set(cost.features) <= set(FEATURES)
        assert cost.features.get("mac", 0) >= cost.macs
        assert cost.features.get("value", 0) >= (cost.values if cost.macs else 0)


def convolution(width: int = 14, channels: int = 64, depth: int = 64) -> InstructionCost:
    kind = TensorType((14, width, depth), Encoding.BITS)
    made = Case("conv2d", kind, Encoding.BITS, Encoding.BITS, channels, 3).program()
    return program_cost(made, load_device(PI).machine).instructions[0]


def test_narrow_blocks_and_short_tiles_cost_what_whole_ones_do() -> None:
    assert convolution(channels=3).features["mac"] == convolution(channels=8).features["mac"]
    assert convolution(width=13).features["mac"] >= 13 / 14 * convolution(width=14).features["mac"]


@given(st.integers(1, 40), st.integers(1, 80), st.integers(1, 130), st.sampled_from(["width", "channels", "depth"]))
def test_a_larger_convolution_has_no_less_of_anything(width: int, channels: int, depth: int, grown: str) -> None:
    """But for tiles: of a wide row there may be fewer than of one that no tile divides."""
    sizes = {"width": width, "channels": channels, "depth": depth}
    small, large = convolution(**sizes), convolution(**{**sizes, grown: 2 * sizes[grown]})
    assert small.features["mac"] <= large.features["mac"] and small.features["value"] <= large.features["value"] + 1e-9


def test_every_kind_of_kernel_is_calibrated() -> None:
    found = {case.kind for case in cases()} | {HALO}
    assert found >= set(load_device(PI).kernels)
    wanted = {each.kind for name in GRAPHS for each in program_cost(program(name), detect()).instructions}
    assert wanted <= found


# -- the roofline --------------------------------------------------------------------------------------------------------------


def device(**figures: float) -> Device:
    """Made up: 1 GHz, one cycle for every multiply-accumulate."""
    values = {
        "clock_hz": 1e9, "cores": 4, "l1d_bytes": 1e4, "l2_bytes": 1e6, "l3_bytes": 1e7, "l2_bytes_per_s": 1e10, "l3_bytes_per_s": 4e9,
        "memory_bytes_per_s": 1e9, "overhead_s": 0.0, **figures,
    }  # fmt: skip
    made = {name: Figure(value, "made up", False, 0.1) for name, value in values.items()}
    return Device("made-up", "Made up", load_device(PI).machine, made, {"conv2d_x": KernelCost({"mac": 1.0}, "made up", False, 0.1)})


def cost(macs: float = 0.0, read: int = 0, *streams: Stream) -> InstructionCost:
    return InstructionCost(
        "conv2d", "conv2d_x", "conv2d_x", int(macs), int(macs), 0, (8, 8), 0, 0, 0, 0, read, 0, int(macs), {"mac": macs}, streams
    )


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 10**7), st.floats(0, 1e9))
def test_more_work_or_bytes_never_take_less_time(first: float, second: float, read: int, working: float) -> None:
    less, more = sorted((first, second))
    made = device()
    assert estimate(cost(less, read), made, working).seconds <= estimate(cost(more, read), made, working).seconds
    assert estimate(cost(less, read), made, less).seconds <= estimate(cost(less, read), made, more).seconds
    one, two = (cost(1.0, 0, Stream(each, working)) for each in (less, more))
    assert estimate(one, made, 0).seconds <= estimate(two, made, 0).seconds


@given(st.floats(1, 1e9), st.integers(0, 10**7))
def test_a_faster_clock_or_memory_is_never_slower(macs: float, read: int) -> None:
    slow = estimate(cost(macs, read), device(), 1e8).seconds
    assert estimate(cost(macs, read), device(clock_hz=2e9), 1e8).seconds <= slow
    assert estimate(cost(macs, read), device(memory_bytes_per_s=2e9), 1e8).seconds <= slow


def test_the_largest_share_limits() -> None:
    assert estimate(cost(1e6), device(), 0).limit == COMPUTE
    assert estimate(cost(1.0, 10**6), device(), 1e9).limit == MEMORY
    assert estimate(cost(1.0), device(overhead_s=1.0), 0).limit == OVERHEAD


def test_constants_come_from_the_cache_that_holds_the_program() -> None:
    seconds = [estimate(cost(0.0, 10**5), device(), size).memory_s for size in (1e3, 5e5, 5e6, 5e8)]
    assert seconds == [0.0, pytest.approx(1e-5), pytest.approx(2.5e-5), pytest.approx(1e-4, rel=0.02)]


def test_threads_share_long_instructions_and_leave_short_ones() -> None:
    made = device(barrier_s=1e-6)
    long, short = cost(1e8), cost(1e3)
    assert estimate(long, made, 0, threads=4).seconds == pytest.approx(estimate(long, made, 0).seconds / 4, rel=0.01)
    assert estimate(short, made, 0, threads=4).seconds == estimate(short, made, 0).seconds


# -- profiles ------------------------------------------------------------------------------------------------------------------


def test_a_profile_survives_being_written(tmp_path: Path, quick: Device) -> None:
    for made in (quick, load_device(PI), replace(quick, title='odd "title" \\ \x7f', constants_in_storage=True, kernels={})):
        path = tmp_path / "board.toml"
        path.write_text(to_toml(made), "utf-8")
        found = load_device(str(path))
        assert (found.name, found.title, found.machine) == (made.name, made.title, made.machine)
        assert found.constants_in_storage == made.constants_in_storage
        assert {n: f.value for n, f in found.figures.items()} == pytest.approx({n: f.value for n, f in made.figures.items()}, rel=1e-5)
        for kind, each in made.kernels.items():
            assert found.kernels[kind].cycles == pytest.approx(each.cycles, rel=1e-5)


def test_a_device_without_kernels_has_bytes_and_no_time(tmp_path: Path) -> None:
    room = {"free_memory_bytes": Figure(1e9, "made up", False, 0.0)}
    made = replace(load_device(PI), kernels={}, constants_in_storage=True, figures=room)
    found = predict("digits", 1234, program("digits"), made)
    assert found.seconds is None and found.expected_error is None and found.seconds_by_threads == {} and found.time_basis == ""
    assert all(layer.seconds is None and layer.limit == "" for layer in found.layers)
    assert found.fits_storage is None and found.fits_memory is True
    assert found.ram_bytes == found.footprint.total_bytes - found.footprint.constants_bytes
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("figure", NEEDED_FOR_TIME)
def test_a_device_with_kernels_needs_what_times_follow_from(tmp_path: Path, figure: str) -> None:
    made = load_device(PI)
    path = tmp_path / "board.toml"
    path.write_text(to_toml(replace(made, figures={n: f for n, f in made.figures.items() if n != figure})), "utf-8")
    with pytest.raises(InputError, match=f"figures.{figure} should be a table, got nothing"):
        load_device(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cycles_per_magic = 1", "kernels.x.cycles_per_magic should be nothing but cycles_per_mac"),
        ("", "kernels.x should be a table with some of cycles_per_mac"),
        ("cycles_per_mac = inf", "kernels.x.cycles_per_mac should be a number of at least 0, got inf"),
    ],
)
def test_costs_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "board.toml"
    table = f'\n[kernels.x]\n{text}\nsource = "made up"\nmeasured = false\nexpected_error = 0.5\n'
    path.write_text(to_toml(load_device(PI)) + table, "utf-8")
    with pytest.raises(InputError, match=message):
        load_device(str(path))


def test_predictions_by_threads_reach_the_cores_of_the_device() -> None:
    found = predict("digits", 1, program("digits"), load_device(PI))
    assert sorted(found.seconds_by_threads) == [1, 2, 3, 4] and found.seconds_by_threads[1] == pytest.approx(found.seconds)


def test_emulated_cycles_are_called_emulated() -> None:
    made, pi = program("digits"), load_device(PI)
    counts = [1e6] * len(made.instructions)
    found = emulated("digits", 1, made, pi, counts, expected_error=0.3)
    assert found.time_basis == EMULATED and found.seconds == pytest.approx(sum(counts) / pi.value("clock_hz"))
    with pytest.raises(InputError, match="expected the cycles of"):
        emulated("digits", 1, made, pi, counts[1:], expected_error=0.3)


# -- this machine --------------------------------------------------------------------------------------------------------------


def test_a_calibrated_machine_has_all_figures_and_the_kinds_asked_for(quick: Device) -> None:
    assert set(NEEDED_FOR_TIME) <= set(quick.figures) <= set(FIGURES)
    assert set(quick.kernels) == set(KINDS.split("|"))
    assert all(each.measured for each in (*quick.figures.values(), *quick.kernels.values()))
    assert quick.machine == detect() and quick.value("clock_hz") > 1e8
    assert all(sum(each.cycles.values()) > 0 for each in quick.kernels.values())


def test_what_limits_layers_here_is_known_once_it_is_calibrated(configuration: Path, quick: Device, tmp_path: Path) -> None:
    write(program("digits"), tmp_path / "model.edge")
    assert load_host() is None
    assert {layer.limit for layer in profile(tmp_path / "model.edge").layers} == {""}
    configuration.mkdir(parents=True)
    (configuration / "host.toml").write_text(to_toml(quick), "utf-8")
    found = profile(tmp_path / "model.edge")
    assert found.time_basis == MEASURED and {layer.limit for layer in found.layers} <= {COMPUTE, MEMORY, OVERHEAD}


def test_predictions_for_this_machine_are_made_from_its_file(quick: Device) -> None:
    costs = estimates(program_cost(program("digits"), quick.machine), quick)
    assert len(costs) == len(program("digits").instructions) and all(each.seconds > 0 for each in costs)


# -- edge targets --------------------------------------------------------------------------------------------------------------


def test_targets_are_listed() -> None:
    shown = invoke("targets", "list").stdout
    assert all(name in shown for name in devices.available()) and "edge targets calibrate" in shown
    names = [each["name"] for each in json.loads(invoke("targets", "list", "--json").stdout)]
    assert names == list(devices.available())


@pytest.mark.parametrize("name", devices.available())
def test_targets_are_shown_with_their_sources(name: str) -> None:
    found = load_device(name)
    shown = invoke("targets", "show", name, "--kernels").stdout
    assert all(figure in shown for figure in found.figures) and all(kind in shown for kind in found.kernels)
    content = json.loads(invoke("targets", "show", name, "--json").stdout)
    assert set(content["figures"]) == set(found.figures) and set(content["kernels"]) == set(found.kernels)


def test_calibrate_writes_a_profile_that_can_be_shown(configuration: Path, quick: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "calibrate", lambda settings, progress: quick)
    assert invoke("targets", "calibrate").exit_code == 0
    assert (configuration / "host.toml").is_file() and load_host() is not None
    assert "clock_hz" in invoke("targets", "show", "host").stdout
    assert "host" in [each["name"] for each in json.loads(invoke("targets", "list", "--json").stdout)]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "raspberry-pi-99"), "there is no target 'raspberry-pi-99'"),
        (("show", "host"), "this machine is not calibrated.*run edge targets calibrate"),
        (("calibrate", "-o", "board.json"), "expected a name that ends in .toml"),
        (("calibrate", "-o", "absent/board.toml"), "expected a folder absent, and there is none"),
    ],
)
def test_mistakes_are_one_sentence(args: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    result = invoke("targets", *args)
    assert result.exit_code == 1 and re.search(message, result.stderr) and result.stderr.count("\n") == 1


def test_a_damaged_profile_of_this_machine_is_named(configuration: Path, tmp_path: Path) -> None:
    configuration.mkdir(parents=True)
    (configuration / "host.toml").write_text("name = ", "utf-8")
    write(program("digits"), tmp_path / "model.edge")
    result = invoke("profile", tmp_path / "model.edge")
    assert result.exit_code == 1 and "host.toml" in result.stderr and "expected TOML" in result.stderr


# -- held against measurement --------------------------------------------------------------------------------------------------

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "prediction.json"


def test_stored_predictions_are_as_good_as_the_page_says() -> None:
    content = json.loads(RESULTS.read_text("utf-8"))
    errors = [abs(row["error"]) for row in content["rows"]]
    assert np.median(errors) <= 0.15 and max(errors) <= 0.35
    assert len({row["model"] for row in content["rows"]}) >= 15 and {row["bits"] for row in content["rows"]} == {1, 8, 32}
    assert len({row["model"] for row in content["rows"] if row["third_party"]}) >= 5
    assert all(row["error"] == pytest.approx(row["predicted_s"] / row["measured_s"] - 1) for row in content["rows"])
    page = (RESULTS.parents[2] / "docs" / "targets.md").read_text("utf-8")
    assert f"**{100 * np.median(errors):.1f} %** | **{100 * max(errors):.0f} %**" in page
