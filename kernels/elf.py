"""What of a shared library (ELF, 64 bits, little-endian) edge looks at: the symbols that the system has to bring, and those it exports."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\x7fELF"
_LITTLE_64 = b"\x02\x01"  # class and byte order, behind the magic
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC_SYMBOLS = 11  # type of a section
_UNDEFINED = 0  # section of a symbol


@dataclass(frozen=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int  # of symbols: the section of their names


def undefined_symbols(library: bytes) -> tuple[str, ...]:
    """Names a library leaves to others, sorted. Raises ValueError where `library` is none."""
    return tuple(sorted(name for name, section in _symbols(library) if section == _UNDEFINED and name))


def exported_symbols(library: bytes) -> tuple[str, ...]:
    """Names a library offers, sorted. Raises ValueError where `library` is none."""
    return tuple(sorted(name for name, section in _symbols(library) if section != _UNDEFINED and name))


def _symbols(library: bytes) -> Iterator[tuple[str, int]]:
    """(name, number of its section) of all dynamic symbols."""
    try:
        sections = list(_sections(library))
        for table in sections:
            if table.kind == _DYNAMIC_SYMBOLS:
                names = sections[table.link]
                for entry in range(table.offset, table.offset + table.size, _SYMBOL.size):
                    name, _, _, section, _, _ = _SYMBOL.unpack_from(library, entry)
                    yield _text(library, names.offset + name), section
    except (struct.error, IndexError, ValueError) as err:
        raise ValueError(f"not a shared library of 64 bits: {err}") from err


def _sections(library: bytes) -> Iterator[_Section]:
    if library[:4] != MAGIC or library[4:6] != _LITTLE_64:
        raise ValueError("another kind of file")
    (start,) = struct.unpack_from("<Q", library, 0x28)
    size, count = struct.unpack_from("<HH", library, 0x3A)
    for number in range(count):
        _, kind, _, _, offset, nbytes, link, *_ = _SECTION.unpack_from(library, start + size * number)
        yield _Section(kind, offset, nbytes, link)


def _text(library: bytes, start: int) -> str:
    return library[start : library.index(b"\0", start)].decode()
