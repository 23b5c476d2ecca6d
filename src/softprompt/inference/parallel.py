"""Data parallelism over ``torch.distributed``: every process takes its share of the rows, gradients are summed.

Start with ``torchrun`` or ``accelerate launch``; without an initialised process group all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Sum each tensor over all processes, in place."""
    if world()[1] > 1:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process: all of them stop together or none does."""
    if world()[1] == 1:
        return flag
    count = torch.tensor([int(flag)], device=_device())
    torch.distributed.all_reduce(count)
    return bool(count.item())


def gather(value: Any) -> list[Any]:
    """A value of every process, in order of ranks, on every process."""
    count = world()[1]
    if count == 1:
        return [value]
    values: list[Any] = [None] * count
    torch.distributed.all_gather_object(values, value)
    return values


def wait() -> None:
    """Wait until every process is here."""
    if world()[1] > 1:
        torch.distributed.barrier()


def _device() -> torch.device:
    return torch.device("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
