"""The host's side of training: what its memory allocator must be told, how data leaves it, how much memory was held."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD = -4, -1, -2  # <malloc.h>
_KEEP, _GROW_BY = 1 << 30, 1 << 26  # bytes
_KERNELS = 64


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep freed activations for the next layer instead of returning them to the system at once.

    Fresh pages cost more than the matrix product that fills them (a [5440, 4096] bfloat16 result takes twice as long).
    For processes that train; changes the whole process, so it is called by entry points, never on import.

    Returns:
        Whether the allocator could be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        told = [
            libc.mallopt(_M_MMAP_MAX, 0),
            libc.mallopt(_M_TRIM_THRESHOLD, _KEEP),
            libc.mallopt(_M_TOP_PAD, _GROW_BY),
        ]
    except (OSError, AttributeError):
        return False
    return all(told)


def keep_few_kernels() -> None:
    """Let oneDNN keep the kernels of a few dozen shapes, not of 1,024.

    Packed rows make matrices of another length in every batch, and each kept kernel holds memory of its own: a training
    process grew by half a gigabyte every ten steps that way (docs/log.md). A step meets some forty shapes, layer after layer,
    so nothing is compiled more often. Read by oneDNN at its first matrix product; a value that is set already stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))


class KeptMemory:
    """Bounds what `keep_freed_memory` keeps: rows differ in length, so freed pieces rarely fit the next ones exactly, and a
    process that never gives anything back grows to several times what it uses.

    Args:
        held: says what the process holds, bytes; 0 where that is not known.
        give_back: returns freed pages to the system. Taking them again costs less than a second a gigabyte.
    """

    def __init__(self, held: Callable[[], int] | None = None, give_back: Callable[[], object] | None = None) -> None:
        self._held = held or resident_bytes
        self._give_back = give_back or _trim
        self._most = 0
        self._emptied = False

    def bound(self) -> bool:
        """To be called after every step: gives freed pages back at the first call, and where the process holds more than twice
        what was left then and half as much again as the step after needed; whether it did."""
        held = self._held()
        if not held:
            return False
        if self._emptied:
            # What this step took is what a step needs: giving that back would cost every step its pages anew.
            self._emptied, self._most = False, max(self._most, held + held // 2)
        if self._most and held <= self._most:
            return False
        self._give_back()
        self._emptied, self._most = True, max(self._most, 2 * self._held())
        return True


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def _trim() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken, of a CUDA device or (on Linux) of the host; None where that is not known."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return None


def start_peak_memory(device: torch.device) -> None:
    """Start measuring: the peak of a CUDA device, or of this process where the system can forget its old one (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets the high-water mark to what is held now


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held since `start_peak_memory`: on a CUDA device, or by this process (off Linux: since it began).

    A process's counts everything it holds: the interpreter, other backbones, what its allocator keeps for later.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
