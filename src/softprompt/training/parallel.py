"""Data parallelism over ``torch.distributed``: every process takes its share of a step's rows, gradients are summed.

Without an initialised process group all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, processes); (0, 1) without a process group."""
    dist = torch.distributed
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return world()[0] == 0


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of some rows."""
    rank, count = world()
    return rows[rank::count]


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Sum each tensor over all processes, in place."""
    if world()[1] > 1:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)
