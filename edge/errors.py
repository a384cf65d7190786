"""Errors for users: one sentence with what failed, what was expected, what was received and what to do.

The command line prints the message of an `EdgeError` to stderr and exits with 1; it never shows a traceback for one.
"""

from __future__ import annotations

from collections.abc import Iterable


class EdgeError(Exception):
    """Base of every error that is the input's or the environment's fault, not edge's."""


class ModelError(EdgeError):
    """A source model cannot be read or converted."""


class FormatError(EdgeError):
    """A `.edge` file is not one, is damaged, is too new, or fails verification."""


class InputError(EdgeError):
    """An array, picture, label file or option given by the user does not fit."""


def unknown_name(what: str, name: object, known: Iterable[str], beside: str = "") -> InputError:
    """The error for a name that is none of `known`; it ends with those that a slip of the keys may have been meant for.

    what: such as "recipe"; beside: what is to be said after the names, such as what else may be given.
    """
    import difflib  # here alone: every command imports this module, few of them miss a name

    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=2)
    meant = f"{' or '.join(near)} may be meant" if near else "name one of them"
    return InputError(f"there is no {what} {name!r}, expected one of {', '.join(names)}{beside}; {meant}")


class MissingPackage(EdgeError):
    """An optional package is needed for what was asked; the message says which and how to get it."""
