"""What the processor of this machine can do, as Linux tells it, under LLVM's names: for running without llvmlite, which knows by itself."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Mapping
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_HOST_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}  # as some systems call them

# LLVM's name of a feature by Linux' flag, where they differ by more than an underscore.
_X86_NAMES: Mapping[str, str] = {
    "abm": "lzcnt", "bmi1": "bmi", "pni": "sse3", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "pclmulqdq": "pclmul",
    "sha_ni": "sha",
}  # fmt: skip

# Bits of getauxval(AT_HWCAP) of aarch64 by LLVM's names; the kernel's /proc/cpuinfo is another machine's under some emulators.
_AT_HWCAP = 16
_AARCH64_BITS: Mapping[str, int] = {
    "fp-armv8": 0, "neon": 1, "aes": 3, "sha2": 6, "crc": 7, "lse": 8, "fullfp16": 10, "rdm": 12, "jsconv": 13, "complxnum": 14,
    "rcpc": 15, "ccpp": 16, "sha3": 17, "sm4": 19, "dotprod": 20, "sve": 22,
}  # fmt: skip

# What kernels can come to use on x86-64: the rest of what LLVM lists (caches, system calls) is for operating systems.
_X86_USED = frozenset(
    {
        "sse3", "ssse3", "sse4.1", "sse4.2", "sse4a", "avx", "avx2", "avxvnni", "avxvnniint8", "avxifma", "fma", "f16c", "bmi", "bmi2",
        "lzcnt", "popcnt", "movbe", "adx", "gfni", "vaes", "vpclmulqdq", "pclmul", "avx512f", "avx512bw", "avx512cd", "avx512dq",
        "avx512vl", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512bitalg", "avx512vpopcntdq", "avx512bf16",
        "avx512fp16", "avx512vp2intersect",
    }
)  # fmt: skip


def host_architecture() -> str:
    """The architecture of this machine as target triples name it: x86_64, aarch64."""
    found = platform.machine().lower()
    return _HOST_NAMES.get(found, found)


def architecture_of(triple: str) -> str:
    """The processor's architecture in a target triple: x86_64, aarch64."""
    return triple.split("-")[0]


@functools.cache
def host_features() -> frozenset[str]:
    """The features of this machine's processor; empty where the system does not tell."""
    if host_architecture() == "aarch64":
        return _aarch64_features()
    return _x86_features() if host_architecture() == "x86_64" else frozenset()


def missing_features(needed: frozenset[str]) -> frozenset[str]:
    """Of the features that code was made for, those that it may use and this machine lacks."""
    known = _X86_USED if host_architecture() == "x86_64" else frozenset(_AARCH64_BITS)
    return (needed & known) - host_features()


def _x86_features() -> frozenset[str]:
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return frozenset(_X86_NAMES.get(flag, flag.replace("_", "")) for flag in flags)


def _aarch64_features() -> frozenset[str]:
    try:
        ask = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return frozenset({"neon"})  # part of the base architecture
    ask.restype = ctypes.c_ulong
    bits = ask(ctypes.c_ulong(_AT_HWCAP))
    return frozenset(name for name, bit in _AARCH64_BITS.items() if bits >> bit & 1)
