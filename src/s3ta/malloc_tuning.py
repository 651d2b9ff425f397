"""CPU memory that a process keeps between passes, where glibc would give it back to Linux and ask for it again.

A pass through a network frees blocks of many megabytes and needs the same ones a moment later. By default glibc hands such
blocks back at once, so that each pass pays for every page anew: on networks with large maps more time than the arithmetic.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of settings in <malloc.h>."""
_NEVER = -1
_PAD = 64 << 20
_LARGEST_BLOCKS = (1 << 30, 32 << 20)
"""Bytes up to which a block is kept: what glibc takes from 2.35 on, and the most that older ones take."""


class Allocator(NamedTuple):
    """Whether this process keeps freed memory, and why."""

    is_kept: bool
    sentence: str
    """For the manifest of an evaluation and the log of a training run: what was set, or why nothing was."""


_UNTOUCHED = Allocator(False, "as it was: not asked to keep memory")
_state: list[Allocator] = []
"""What `keep_memory` did in this process, once it was called."""


def keep_memory() -> Allocator:
    """Let this process keep the CPU memory that it frees, up to its peak, until it ends; results stay the same bits.

    It changes the whole process, so only the command line does it unasked (`--return-memory` leaves it out). Nothing happens
    where the allocator is not glibc's, or the environment says how it is to behave (`MALLOC_...`, `GLIBC_TUNABLES`). Returns
    what was done; a second call does nothing."""
    if not _state:
        _state.append(_kept(os.environ, _glibc()))
    return _state[0]


def allocator() -> Allocator:
    """The result of the last `keep_memory` in this process."""
    return _state[0] if _state else _UNTOUCHED


def _kept(environment: Mapping[str, str], mallopt: Callable[[int, int], int] | None) -> Allocator:
    """Sets the thresholds; `mallopt` returns 1 for what it accepts."""
    chosen = sorted(name for name in environment if name.startswith("MALLOC_"))
    chosen += ["GLIBC_TUNABLES"] * ("malloc" in environment.get("GLIBC_TUNABLES", ""))
    if chosen:
        return Allocator(False, f"as {chosen[0]} says")
    if mallopt is None:
        return Allocator(False, "as it was: not glibc's")
    largest = next((size for size in _LARGEST_BLOCKS if mallopt(_MMAP_THRESHOLD, size) == 1), None)
    if largest is None or mallopt(_TRIM_THRESHOLD, _NEVER) != 1 or mallopt(_TOP_PAD, _PAD) != 1:
        return Allocator(False, "glibc refused to keep memory")
    return Allocator(True, f"glibc, freed blocks kept up to {largest >> 20} MiB")


def _glibc() -> Callable[[int, int], int] | None:
    """`mallopt`, where this process gets its memory from glibc; None elsewhere, or under a preloaded allocator."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        process, glibc = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
        glibc.gnu_get_libc_version.restype = ctypes.c_char_p
        glibc.gnu_get_libc_version()
        addresses = [ctypes.cast(library.malloc, ctypes.c_void_p).value for library in (process, glibc)]
        mallopt = glibc.mallopt
    except (OSError, AttributeError):  # another C library
        return None
    if addresses[0] != addresses[1]:
        return None
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return mallopt
