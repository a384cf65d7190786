"""Functions that kernels share: equal ones are one, and what differs in anything that decides the code is another;
compiling leaves the collector of garbage as it was."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.kernels import build
from edge.kernels.build import forget, inlined, object_code
from edge.kernels.isa import detect

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


def test_defaults_and_names_within_tell_functions_apart() -> None:
    def made(default: float, keyword: int) -> Callable[..., Any]:
        def add(x: float, y: float = default, *, z: int = keyword) -> float:
            return x + y + z

        return add

    def nesting(x: float) -> Any:
        return [lambda: x + FACTOR]

    assert inlined(made(0.0, 1)) is inlined(made(0.0, 1))
    assert inlined(made(0.0, 1)) is not inlined(made(-0.0, 1)) and inlined(made(0.0, 1)) is not inlined(made(0.0, 2))
    assert inlined(nesting) is not inlined(nesting)


def test_a_function_that_names_itself_is_compiled_as_it_is() -> None:
    def outer() -> Any:
        @inlined
        def down(x: int) -> int:
            return down(x)  # type: ignore[no-any-return]

        return down

    assert outer() is not outer()


def test_what_may_change_is_not_shared() -> None:
    assert inlined(adding([1])) is not inlined(adding([1]))


def test_forgotten_functions_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_INLINED", {})
    first = inlined(adding(1))
    forget()
    assert not build._INLINED and inlined(adding(1)) is not first


def nothing(args: Any, arena: Any, constants: Any, scratch: Any, part: int, parts: int) -> None:
    pass


def of_no_type(args: Any, arena: Any, constants: Any, scratch: Any, part: int, parts: int) -> None:
    arena.of_no_type()


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_the_collector_goes_on_where_compiling_fails() -> None:
    with pytest.raises(Exception, match="of_no_type"):
        object_code("edge_nothing", of_no_type, detect())
    assert gc.isenabled() and not gc.get_freeze_count()


def test_a_collector_that_is_off_stays_off(collector_off: None) -> None:
    object_code("edge_nothing", nothing, detect())
    assert not gc.isenabled() and not gc.get_freeze_count()


def test_what_is_set_apart_stays_so() -> None:
    gc.freeze()
    object_code("edge_nothing", nothing, detect())
    kept = gc.get_freeze_count()
    gc.unfreeze()
    assert kept
