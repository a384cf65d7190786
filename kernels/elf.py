"""What of a library or an object file (ELF, 64 bits, little-endian) edge looks at: sections, and symbols."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF"
_LITTLE_64 = b"\x02\x01"  # class and byte order, behind the magic
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC_SYMBOLS = 11  # type of a section
_UNDEFINED = 0  # section of a symbol


@dataclass(frozen=True)
class Section:
    """`link`: of symbols, the section of their names. `info`: of relocations, the section that they change."""

    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


@dataclass(frozen=True)
class Symbol:
    """`section`: the number of the one it is in, 0 where others bring it. `value`: in an object file, where it begins there."""

    name: str
    is_global: bool
    section: int
    value: int


def undefined_symbols(library: bytes) -> tuple[str, ...]:
    """Names a library leaves to others, sorted. Raises ValueError where `library` is none."""
    return tuple(sorted(each.name for each in _dynamic_symbols(library) if each.section == _UNDEFINED and each.name))


def exported_symbols(library: bytes) -> tuple[str, ...]:
    """Names a library offers, sorted. Raises ValueError where `library` is none."""
    return tuple(sorted(each.name for each in _dynamic_symbols(library) if each.section != _UNDEFINED and each.name))


def _dynamic_symbols(library: bytes) -> list[Symbol]:
    found = sections(library)
    return [each for table in found if table.kind == _DYNAMIC_SYMBOLS for each in symbols(library, found, table)]


def sections(file: bytes) -> list[Section]:
    """All sections, in order. Raises ValueError where `file` has none."""
    if file[:4] != MAGIC or file[4:6] != _LITTLE_64:
        raise ValueError("not a file of machine code of 64 bits: another kind of file")
    try:
        (start,) = struct.unpack_from("<Q", file, 0x28)
        size, count = struct.unpack_from("<HH", file, 0x3A)
        rows = [_SECTION.unpack_from(file, start + size * number) for number in range(count)]
    except struct.error as err:
        raise ValueError(f"not a file of machine code of 64 bits: {err}") from err
    return [
        Section(kind, flags, offset, nbytes, link, info, alignment)
        for _, kind, flags, _, offset, nbytes, link, info, alignment, _ in rows
    ]  # fmt: skip


def symbols(file: bytes, found: list[Section], table: Section) -> list[Symbol]:
    """Those of a table of symbols, in order. Raises ValueError where it is damaged."""
    try:
        names = found[table.link]
        rows = [_SYMBOL.unpack_from(file, entry) for entry in range(table.offset, table.offset + table.size, _SYMBOL.size)]
        return [Symbol(_text(file, names.offset + name), bool(info >> 4), section, value) for name, info, _, section, value, _ in rows]
    except (struct.error, IndexError, ValueError) as err:
        raise ValueError(f"not a file of machine code of 64 bits: {err}") from err


def _text(file: bytes, start: int) -> str:
    return file[start : file.index(b"\0", start)].decode()
