"""Object files of kernels (ELF for x86-64) put into memory, in one piece.

LLVM's own loader maps code and constants each for itself, and stops the process where they end up more than 2 GB apart: so it may be in an
address space of large mappings with holes between them. Here sections lie one behind the other, and behind them a jump for each function
of the system's library that kernels call (memset, memcpy, memmove).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable

from edge.kernels.elf import MAGIC, Section, Symbol, sections, symbols
from edge.memory import READ_EXECUTE, protect

_X86_64 = 62  # of e_machine
_RELOCATION = struct.Struct("<QQq")
_RELOCATIONS, _SYMBOLS, _NO_BITS = 4, 2, 8  # types of sections
_ALLOCATED = 2  # a flag of sections
_ABSOLUTE, _RELATIVE, _RELATIVE_CALL = 1, 2, 4  # R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32
_JUMP = bytes((0xFF, 0x25, 0, 0, 0, 0))  # through the address behind it
_JUMP_BYTES = 16


def is_loadable(code: bytes) -> bool:
    """Whether this is an object file for x86-64 in ELF, on a system with POSIX mappings."""
    return os.name == "posix" and code[:4] == MAGIC and code[18:20] == _X86_64.to_bytes(2, "little")


def load(code: bytes) -> dict[str, int]:
    """Map an object file for the life of the process; the addresses of its global symbols.

    Raises ValueError for what object files of kernels do not have, MemoryError where there is no memory.
    """
    parts = sections(code)
    (table,) = (part for part in parts if part.kind == _SYMBOLS)
    named = symbols(code, parts, table)
    offsets, end = _offsets(parts)
    outside = sorted({each.name for each in named if each.section == 0 and each.name})
    jumps = {name: end + i * _JUMP_BYTES for i, name in enumerate(outside)}
    memory, base = _mapping(max(end + len(outside) * _JUMP_BYTES, 1))
    for number, offset in offsets.items():
        memory[offset : offset + parts[number].size] = code[parts[number].offset : parts[number].offset + parts[number].size]
    for name, offset in jumps.items():
        memory[offset : offset + _JUMP_BYTES] = (_JUMP + _address(name).to_bytes(8, "little")).ljust(_JUMP_BYTES, b"\0")

    def place(symbol: Symbol) -> int:
        """Where a symbol is, from the start of the memory."""
        return offsets[symbol.section] + symbol.value if symbol.section else jumps[symbol.name]

    for part in parts:
        if part.kind == _RELOCATIONS and part.info in offsets:
            _relocate(memory, base, offsets[part.info], code[part.offset : part.offset + part.size], lambda i: place(named[i]))
    protect(base, len(memory), READ_EXECUTE)
    return {each.name: base + place(each) for each in named if each.is_global and each.section}


def _mapping(nbytes: int) -> tuple[mmap.mmap, int]:
    """Memory and its address. It is never unmapped: threads may still be in it while the interpreter ends."""
    try:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as err:
        raise MemoryError(f"cannot map {nbytes} bytes for machine code") from err
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _offsets(parts: list[Section]) -> tuple[dict[int, int], int]:
    """By number of the sections that are loaded, where each begins; and where the jumps begin."""
    offsets, end = {}, 0
    for number, part in enumerate(parts):
        if part.flags & _ALLOCATED and part.size:
            if part.kind == _NO_BITS:
                raise ValueError("an object file with variables, expected code and constants alone")
            end += -end % max(part.alignment, 1)
            offsets[number] = end
            end += part.size
    return offsets, end + -end % _JUMP_BYTES


def _relocate(memory: mmap.mmap, base: int, start: int, table: bytes, place: Callable[[int], int]) -> None:
    """Write the addresses that code in the section at `start` refers to."""
    for offset, info, addend in _RELOCATION.iter_unpack(table):
        kind, at = info & 0xFFFFFFFF, start + offset
        target = place(info >> 32) + addend
        if kind == _ABSOLUTE:
            memory[at : at + 8] = (base + target).to_bytes(8, "little")
        elif kind in (_RELATIVE, _RELATIVE_CALL):
            memory[at : at + 4] = (target - at).to_bytes(4, "little", signed=True)
        else:
            raise ValueError(f"an object file with a relocation of type {kind}, expected one of kernels")


def _address(name: str) -> int:
    """Of a function of the system's library."""
    found = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert found is not None  # ctypes raises AttributeError for what is not there
    return found
