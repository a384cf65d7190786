"""The cases of `tflite_cases`, as files that another environment wrote, in tflite-runtime: `make test-tflite-runtime`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

FOLDER = os.environ.get("EDGE_TFLITE_CASES", "")
FILES = sorted(Path(FOLDER).glob("*.tflite")) if FOLDER else []

pytestmark = pytest.mark.tflite_runtime
if not FOLDER:
    pytest.skip("EDGE_TFLITE_CASES names no folder of cases (make test-tflite-runtime sets it)", allow_module_level=True)
runtime = pytest.importorskip("tflite_runtime.interpreter", reason="tflite-runtime is not installed")

DELEGATES = {"xnnpack": runtime.OpResolverType.AUTO, "plain": runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def test_there_are_cases() -> None:
    assert len(FILES) > 80


@pytest.mark.parametrize("delegate", DELEGATES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_case_is_what_the_reference_computed(path: Path, delegate: str) -> None:
    from tflite_cases import close

    values = np.load(path.with_suffix(".npz"))
    interpreter = runtime.Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=DELEGATES[delegate])
    interpreter.allocate_tensors()
    got = interpreter.get_signature_runner()(**{name[3:]: values[name] for name in values.files if name.startswith("in_")})
    for name in (name for name in values.files if name.startswith("out_")):
        assert close(got[name[4:]], values[name], exact=bool(values["exact"])), name


def test_the_runner_finds_it() -> None:
    from edge.tflite_runner import load_tflite

    path = Path(FOLDER) / "bytes_net.tflite"
    values, model = np.load(path.with_suffix(".npz")), load_tflite(path)
    assert model.backend.startswith("tflite-runtime 2.1")
    np.testing.assert_allclose(model.run(values["in_input0"]), values["out_out0"], atol=1e-5)
    assert model.inputs[0].name == "input0" and model.outputs[0].name == "out0"


def test_damaged_files_are_refused_before_it_sees_them(tmp_path: Path) -> None:
    """tflite-runtime reads offsets without checking them and ends the process on a bad one."""
    from edge.errors import FormatError
    from edge.tflite_runner import load_tflite

    data = (Path(FOLDER) / "bytes_net.tflite").read_bytes()
    for place in range(0, 4096, 64):
        (tmp_path / "cut.tflite").write_bytes(data[: 8 + place])
        with pytest.raises(FormatError):
            load_tflite(tmp_path / "cut.tflite")
