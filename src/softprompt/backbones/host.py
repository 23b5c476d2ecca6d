"""What the host's memory allocator must be told for training at speed."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD = -4, -1, -2  # <malloc.h>
_KEEP, _GROW_BY = 1 << 30, 1 << 26  # bytes


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
