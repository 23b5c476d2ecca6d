"""The one greedy loop of all backbones: rows leave when they end, and sharded processes keep step.

Letters: B rows, R rows that go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from softprompt.distributed import any_process


class Ending(Protocol):
    """What the loop asks of a backbone."""

    sharded: bool

    @property
    def end_ids(self) -> Sequence[int]:
        """Tokens that end an answer."""
        ...


def greedy_answers(
    backbone: Ending, next_B: Tensor, follow: Callable[[Tensor, Tensor], Tensor], max_new_tokens: int
) -> list[list[int]]:
    """Answers of rows as token ids, each up to an end token.

    Args:
        backbone: says what ends an answer, and whether its layers lie on several processes.
        next_B: int64 [B], the first token of each row.
        follow: of ids [R] and the numbers [R] of their rows among those of the call before, the next tokens [R]; rows that
            are not named have ended.
        max_new_tokens: longest answer.
    """
    ends = torch.tensor(backbone.end_ids, device=next_B.device)
    answers: list[list[int]] = [[] for _ in range(len(next_B))]
    alive, idle = list(range(len(next_B))), False
    for made in range(1, max_new_tokens + 1):
        going = ~torch.isin(next_B, ends) & (not idle)
        for row, token, goes in zip(alive, next_B.tolist(), going.tolist(), strict=True):
            if goes:
                answers[row].append(token)
        rows = going.nonzero()[:, 0]
        idle = not len(rows)
        if made == max_new_tokens or not (any_process(not idle) if backbone.sharded else not idle):
            break
        if idle:  # its answers are done, and other processes need its shards
            rows = torch.zeros(1, dtype=torch.int64, device=next_B.device)
        alive = [alive[i] for i in rows.tolist()]
        next_B = follow(next_B[rows], rows)
    return answers
