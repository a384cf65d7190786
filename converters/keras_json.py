"""JSON of model files: nesting is bounded, and every step into it is checked, since the file may be anybody's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeGuard

from edge.errors import ModelError

# A nested model takes four levels; deep enough for any real model, shallow enough to be walked recursively.
MAX_DEPTH = 200
MAX_JSON_BYTES = 256 << 20
MAX_NAME = 1000


def parse_json(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object in `text`; ModelError where it is none or nests deeper than MAX_DEPTH."""
    if len(text) > MAX_JSON_BYTES:
        raise ModelError(f"{what} is {len(text)} bytes of JSON, more than the {MAX_JSON_BYTES} read here: is this a model?")
    try:
        value = json.loads(text)
    except RecursionError as err:
        raise _too_deep(what) from err
    except ValueError as err:
        raise ModelError(f"{what} is not JSON ({err}): the file is damaged, save the model again") from err
    _check_depth(value, what)
    return mapping(value, what)


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise _too_deep(what)


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def _too_deep(what: str) -> ModelError:
    return ModelError(f"{what} nests deeper than {MAX_DEPTH} levels, which no real model does: save the model again")


def mapping(value: Any, what: str) -> dict[str, Any]:
    """`value`, which must be a JSON object."""
    return value if isinstance(value, dict) else _refuse(value, what, "an object")


def sequence(value: Any, what: str) -> list[Any]:
    """`value`, which must be a JSON list."""
    return value if isinstance(value, list) else _refuse(value, what, "a list")


def text(value: Any, what: str) -> str:
    """`value`, which must be a name: printable, since it will be printed, on a terminal too."""
    return value if is_name(value) else _refuse(value, what, "a printable name")


def is_name(value: Any) -> TypeGuard[str]:
    """Is `value` a string of at least one character and at most MAX_NAME, all printable?"""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def index(value: Any, what: str) -> int:
    """`value`, which must be a whole number of at least 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else _refuse(value, what, "an index")


def _refuse(value: Any, what: str, expected: str) -> Any:
    received = f"{type(value).__name__} {str(value)[:40]!a}" if isinstance(value, (str, int, float)) else type(value).__name__
    raise ModelError(f"{what} should be {expected} but is {received}: the model configuration is damaged, save the model again")


def flatten(structure: Any, is_leaf: Callable[[Any], bool]) -> list[Any]:
    """The leaves of nested lists and objects in Keras' order: objects by sorted key; anything else that is no leaf is dropped."""
    if is_leaf(structure):
        return [structure]
    if isinstance(structure, dict):
        return [leaf for key in sorted(structure) for leaf in flatten(structure[key], is_leaf)]
    if isinstance(structure, list):
        return [leaf for item in structure for leaf in flatten(item, is_leaf)]
    return []
