"""Data parallelism over ``torch.distributed``: every process takes its share of the rows, gradients are summed.

Start with ``torchrun`` or ``accelerate launch`` and call `join`; without a process group all of this does nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")


def join(device: str = "auto") -> None:
    """Join the processes that ``torchrun`` or ``accelerate launch`` started; nothing where there is only this one.

    Args:
        device: as of ``load_backbone``; each process takes the CUDA device of its local rank, or the CPU.
    """
    dist = torch.distributed
    if not dist.is_available() or dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo")
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def shares(parts: Sequence[Part], *, in_step: bool) -> list[Part]:
    """This process's share of some work.

    Args:
        parts: the same on every process.
        in_step: every process gets the same number; where there is not enough to do, some do the last part as well.
    """
    rank, processes = world()
    if not in_step:
        return list(parts[rank::processes])
    rounds = -(-len(parts) // processes)
    return [parts[min(turn * processes + rank, len(parts) - 1)] for turn in range(rounds)]


def in_step(parts: Sequence[Part], sharded: bool) -> Iterator[Part]:
    """A process's own parts of some work, at least one; with a sharded backbone the last one again until all are done."""
    done = 0
    while any_process(done < len(parts)) if sharded else done < len(parts):
        yield parts[min(done, len(parts) - 1)]
        done += 1


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
    """Sum each tensor over all processes, in place; its shape is the same on all."""
    if world()[1] > 1:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


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


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process: all of them go on together or none does."""
    dist = torch.distributed
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return flag
    count = torch.tensor([int(flag)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(count)
    return bool(count.item())
