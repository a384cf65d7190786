"""Functions that kernels share: equal ones are one, and what differs in anything that decides the code is another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge.kernels import build
from edge.kernels.build import forget, inlined

FACTOR = 2


def adding(value: object) -> Callable[..., Any]:
    def add(x: float) -> Any:
        return x + value

    return add


def scaled(x: float) -> float:
    return x * FACTOR


def test_equal_functions_are_one() -> None:
    assert inlined(adding(1)) is inlined(adding(1))
    inner = inlined(adding(1))
    assert inlined(adding(inner)) is inlined(adding(inlined(adding(1))))


@pytest.mark.parametrize(("one", "other"), [(1, 2), (1, 1.0), (1, True), (0.0, -0.0), ((1, 0.0), (1, -0.0)), ("a", "b")])
def test_captured_values_tell_functions_apart(one: object, other: object) -> None:
    assert inlined(adding(one)) is not inlined(adding(other))


def test_globals_tell_functions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    before = inlined(scaled)
    assert inlined(scaled) is before
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert inlined(scaled) is not before


def test_what_may_change_is_not_shared() -> None:
    assert inlined(adding([1])) is not inlined(adding([1]))


def test_forgotten_functions_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_INLINED", {})
    first = inlined(adding(1))
    forget()
    assert not build._INLINED and inlined(adding(1)) is not first
