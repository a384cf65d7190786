"""Signing a `.edge` file off: a comparison with Keras becomes a certificate in the file."""

from __future__ import annotations

import datetime
from pathlib import Path

from edge.bundle_runtime import runtime_version
from edge.certificate import Certificate, program_sha256, with_certificate
from edge.compare import Comparison
from edge.compare_layers import EIGHT_BITS, EXACT, EXACT_TOLERANCE, SIXTEEN_BITS, TIE_ULP, TOLERANCES
from edge.compare_run import OUTPUT_TOLERANCE
from edge.converters.report import WARN_BELOW
from edge.engine import Engine, load
from edge.errors import EdgeError, InputError
from edge.format import write
from edge.self_check import record, repeat, require


def sign_off(comparison: Comparison) -> Certificate:
    """Store the certificate of a comparison in its `.edge` file, in the place of an older one; the file is replaced whole or not at all.

    Raises `EdgeError` unless Keras computed the source and the file is equal to it, or as near as its bits allow.
    """
    path = Path(comparison.converted)
    _require_signable(comparison)
    engine = load(path)
    if program_sha256(engine.program) != comparison.program_sha256:
        raise EdgeError(f"{path} changed while it was compared, and was not signed off; compare it again")
    certificate = _certificate(comparison, engine)
    write(with_certificate(engine.program, certificate), path)
    return certificate


def _require_signable(comparison: Comparison) -> None:
    name = comparison.converted
    if comparison.program_sha256 is None:
        raise InputError(f"{name} was not signed off: only a .edge file can hold a certificate; name one")
    if not comparison.oracle_is_keras:
        reason = comparison.oracle_note or "the reference interpreter was asked for"
        raise EdgeError(f"{name} was not signed off: Keras has to compute the source, and did not: {reason}; install it and compare again")
    if not comparison.equal:
        raise EdgeError(f"{name} was not signed off: {comparison.verdict}")
    if not comparison.layers:
        raise EdgeError(f"{name} was not signed off: it keeps no names of tensors, so its layers were not compared; convert it again")


def _certificate(comparison: Comparison, engine: Engine) -> Certificate:
    check = record(engine, comparison.domain)
    require(repeat(engine, check), comparison.converted)
    assert comparison.program_sha256 is not None
    return Certificate(
        program_sha256=comparison.program_sha256,
        source=Path(comparison.source).name,
        source_sha256=comparison.source_sha256,
        oracle=comparison.oracle,
        data=comparison.data,
        examples=comparison.examples,
        data_sha256=comparison.data_sha256,
        seed=comparison.seed,
        precision=comparison.precision,
        tolerance=_tolerance(comparison.precision),
        verdict=comparison.verdict,
        result=_result(comparison),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        edge=runtime_version(),
        machine=engine.machine.isa.name,
        check=check,
    )


def _tolerance(precision: str) -> dict[str, float]:
    """The bounds that `edge.compare` applied: of layers and outputs relative to max(1, largest magnitude)."""
    exact: dict[str, float] = {"layer": EXACT_TOLERANCE, "output": OUTPUT_TOLERANCE, "tie_ulp": TIE_ULP}
    lowered = {"sixteen_bit_layer": TOLERANCES[SIXTEEN_BITS], "eight_bit_layer": TOLERANCES[EIGHT_BITS], "same_class": WARN_BELOW}
    return exact if precision == EXACT else exact | lowered


def _result(comparison: Comparison) -> dict[str, float | None]:
    signs = [layer for layer in comparison.layers if layer.encoding == "bits"]
    low, high = comparison.accuracy_interval or (None, None)
    return {
        "layers": len(comparison.layers),
        "signs": sum(layer.values for layer in signs),
        "flipped_signs": sum(layer.flipped_bits for layer in signs),
        "tied_signs": sum(layer.tied_bits for layer in signs),
        "layer_error": max((layer.relative_error for layer in comparison.layers), default=0.0),
        "output_difference": comparison.output_difference,
        "same_class": comparison.same_class,
        "source_accuracy": comparison.source_accuracy,
        "accuracy": comparison.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
    }
