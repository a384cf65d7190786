"""The profiles that ship, and what writes and checks them: the count of cycles in emulation, and the roofline against published figures."""

from __future__ import annotations

import itertools
import re
import shutil
import tomllib
from collections import Counter
from pathlib import Path

import device_cycles
import device_emulator
import larq_published
import numpy as np
import pytest
from device_emulator import Cycles, Emulator, Job, Model, Simulator
from sample_programs import program

from edge.errors import EdgeError
from edge.format import to_bytes
from edge.kernels.isa import ISAS
from edge.targets.devices import FOLDER, NEEDED_FOR_TIME, available, load_device
from edge.targets.fitting import Sample
from edge.targets.profile import PREDICTED, Profile, predict

PIS = ("raspberry-pi-zero-2-w", "raspberry-pi-3b-plus", "raspberry-pi-4", "raspberry-pi-5")
DESKTOPS = ("x86-64-avx2", "x86-64-avx512")
MICROCONTROLLERS = ("cortex-m4f", "cortex-m7")


def profiled(name: str) -> Profile:
    made = program("digits")
    return predict("digits", len(to_bytes(made)), made, load_device(name))


# -- profiles ------------------------------------------------------------------------------------------------------------------


def test_every_device_that_is_promised_has_a_profile() -> None:
    assert {*PIS, *DESKTOPS, *MICROCONTROLLERS} <= set(available())


@pytest.mark.parametrize("name", available())
def test_a_profile_has_the_name_of_its_file_and_says_where_each_figure_comes_from(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    for described in (*device.figures.values(), *device.kernels.values()):
        assert not described.measured and len(described.source) > 5 and 0 <= described.expected_error <= 2


@pytest.mark.parametrize("name", (*PIS, *DESKTOPS))
def test_the_example_has_a_predicted_time_on_every_device_with_kernels(name: str) -> None:
    found = profiled(name)
    assert found.seconds is not None and 1e-6 < found.seconds < 0.1
    assert found.time_basis == PREDICTED and found.expected_error is not None and found.expected_error >= 0.1
    assert found.fits_storage and found.fits_memory
    assert all(figure in load_device(name).figures for figure in NEEDED_FOR_TIME)


@pytest.mark.parametrize("name", MICROCONTROLLERS)
def test_a_microcontroller_has_bytes_and_no_time(name: str) -> None:
    found = profiled(name)
    assert found.seconds is None and found.time_basis == "" and not found.seconds_by_threads
    assert all(layer.seconds is None for layer in found.layers)
    assert found.fits_storage and found.fits_memory
    assert found.ram_bytes == found.footprint.total_bytes - found.footprint.constants_bytes


def test_nothing_that_is_not_measured_reads_as_if_it_were() -> None:
    for path in FOLDER.glob("*.toml"):
        text = path.read_text("utf-8")
        assert "measured = true" not in text
        for said in re.findall(r"measured on [^\n]*", text):
            assert "Raspberry Pi" not in said
    for stored in (larq_published.RESULTS.with_suffix(suffix) for suffix in (".md", ".json")):
        assert "measured on" not in stored.read_text("utf-8")


def test_faster_boards_are_predicted_to_be_faster() -> None:
    seconds = [profiled(name).seconds for name in PIS]
    assert all(slow is not None and fast is not None and slow > fast for slow, fast in itertools.pairwise(seconds))


@pytest.mark.parametrize("name", PIS)
def test_kernels_of_the_boards_are_counted_for_their_core(name: str) -> None:
    model = device_emulator.MODELS[load_device(name).machine.cpu].name
    assert all(f"cycles of {model} by llvm-mca" in cost.source for cost in load_device(name).kernels.values())


# -- published figures -----------------------------------------------------------------------------------------------------------


def test_the_roofline_gives_what_others_published() -> None:
    rows = larq_published.rows()
    assert len(rows) == 9
    for row in rows:
        assert abs(row.error) <= larq_published.TOLERANCE, row
        assert sum(row.shares.values()) == pytest.approx(1)


def test_the_stored_table_is_what_the_check_gives_now() -> None:
    assert larq_published.RESULTS.with_suffix(".md").read_text("utf-8").startswith(larq_published.page(larq_published.rows()))


def test_networks_have_the_multiply_accumulates_that_their_authors_count() -> None:
    """larq-zoo's summary: 1.85 billion binary and about 30 million float32 for QuickNet."""
    listed = list(larq_published.operators("QuickNet"))
    binary = sum(each.macs for each in listed if each.precision == (1, 1))
    assert binary == 16 * 56 * 56 * 64 * 64 * 9
    assert 25e6 < sum(each.macs for each in listed) - binary < 35e6


def test_the_tile_has_the_instructions_that_its_sources_have() -> None:
    loop = larq_published.LOOPS["binary128"]
    assert sum(loop.values()) - loop["scalar"] + 1 == 109  # subs and branch are of the loop around it
    assert larq_published.CORES["mac-mini-m1"].cycles("binary128") == 24


# -- counting ------------------------------------------------------------------------------------------------------------------


def test_blocks_that_follow_each_other_and_run_as_often_become_one() -> None:
    texts = {0: "add x0, x0, x1", 4: "ldr q0, [x0]", 8: "b.ne 0x0", 12: "ret"}
    times = Counter({(0, 1): 10, (4, 2): 10, (12, 1): 1})
    merged = list(device_emulator._merged(times, texts))
    assert merged == [(("add x0, x0, x1", "ldr q0, [x0]", "b.ne label"), 10), (("ret",), 1)]


def test_a_range_is_summed_and_halved_on_a_logarithmic_scale(tmp_path: Path) -> None:
    assert Cycles(100, 400).middle == 200
    simulator = object.__new__(Simulator)
    simulator.model = Model("cortex-a53", 14, in_order=True)
    simulator._known = {"a": [1.0, 3.0], "b\nc": [2.0, 2.5]}
    assert simulator._total({("a",): 10, ("b", "c"): 2}) == Cycles(14.0, 35.0)
    simulator.model = Model("cortex-a72", 14, in_order=False)
    assert simulator._total({("a",): 10}) == Cycles(30.0, 30.0)


def test_a_core_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="cannot count cycles of cortex-m4"):
        Simulator("cortex-m4", tmp_path)


def test_figures_of_a_kind_give_its_samples_back() -> None:
    random = np.random.default_rng(3)
    counted = []
    for _ in range(12):
        macs, values = random.integers(1_000, 1_000_000, 2)
        middle = 0.5 * macs + 3 * values + 200
        counted.append(device_cycles.Counted({"mac": float(macs), "value": float(values), "call": 1.0}, Cycles(middle / 2, middle * 2)))
    assert counted[0].sample == Sample(counted[0].features, pytest.approx(counted[0].cycles.middle))
    cost = device_cycles.kernel_cost(counted, "counted")
    assert cost.cycles["mac"] == pytest.approx(0.5, rel=1e-3) and cost.cycles["value"] == pytest.approx(3, rel=1e-3)
    assert not cost.measured and cost.expected_error == pytest.approx(1.0, abs=0.02)  # half of a range of four


def test_tables_are_put_at_the_end_of_a_profile_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_cycles, "FOLDER", tmp_path)
    head = 'name = "x"\n\n[figures.cores]\nvalue = 4\n'
    (tmp_path / "x.toml").write_text(head + "\n[kernels.b]\ncycles_per_mac = 1\n")
    device_cycles.write("x", {"c": "[kernels.c]\ncycles_per_mac = 3\n", "a": "[kernels.a]\ncycles_per_mac = 2\n"}, keep=True)
    found = tomllib.loads((tmp_path / "x.toml").read_text())
    assert list(found["kernels"]) == ["a", "b", "c"] and found["figures"] == {"cores": {"value": 4}}
    device_cycles.write("x", {"a": "[kernels.a]\ncycles_per_mac = 5\n"}, keep=False)
    assert tomllib.loads((tmp_path / "x.toml").read_text())["kernels"] == {"a": {"cycles_per_mac": 5}}


def tools() -> bool:
    names = (*device_emulator.TOOLS, "llvm-mca")
    return all(shutil.which(name) for name in names)


@pytest.mark.skipif(not tools(), reason="needs an AArch64 compiler, qemu-user and llvm")
@pytest.mark.slow
def test_a_kernel_is_counted_in_emulation(tmp_path: Path) -> None:
    machine = load_device("raspberry-pi-4").machine
    assert machine.isa is ISAS["neon"]
    jobs: list[Job] = [job for calls in device_emulator.jobs_of(program("digits"), machine)[:1] for job in calls]
    emulator = Emulator(machine, tmp_path)
    counts = list(emulator.counts(jobs))
    executed = sum(len(block) * count for block, count in counts[0].items())
    cycles = Simulator("cortex-a72", tmp_path).cycles(counts)[0]
    assert executed > 1_000 and executed / 3 <= cycles.high < 10 * executed  # no core that issues three at once is faster
    kept = sorted(tmp_path.glob("*.json"))
    assert list(Emulator(machine, tmp_path).counts(jobs)) == counts and sorted(tmp_path.glob("*.json")) == kept
