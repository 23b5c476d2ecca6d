"""Race: successive halving over all starts in one batch. Bad starts leave early, the survivors get the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from softprompt.errors import UsageError
from softprompt.training.runs import RunResult


def rungs(steps: int, candidates: int, keep: float) -> int:
    """How many halvings bring ``candidates`` down to one.

    Args:
        steps: of the whole training, only to refuse races without room.
        candidates: at least 1.
        keep: share of candidates that survives a rung, in (0, 1).
    """
    if not 0.0 < keep < 1.0:
        raise UsageError(f"a race keeps a share between 0 and 1 at each rung, got {keep}.")
    count = 0
    while candidates > 1:
        candidates = max(1, math.floor(candidates * keep))
        count += 1
    if count >= steps:
        raise UsageError(f"{steps} steps leave no room for {count} rungs: give more steps or a smaller keep.")
    return count


def rung_every(steps: int, candidates: int, keep: float) -> int:
    """Steps between validations such that rungs are evenly spread and the last survivor trains to the end."""
    return max(1, steps // (rungs(steps, candidates, keep) + 1))


def halving(target_of: Mapping[str, str], keep: float) -> Callable[[int, Sequence[RunResult]], list[str]]:
    """The rule that names the runs to drop after a validation, for each target by itself.

    Runs are ranked by their best score so far, ties by the latest training loss (lower is better): on small
    validation sets whole fields tie.

    Args:
        target_of: target name of each racing run; runs not named here never leave.
        keep: share that survives, in (0, 1); at least one run a target does.
    """

    def leave(step: int, active: Sequence[RunResult]) -> list[str]:
        losers: list[str] = []
        for target in sorted(set(target_of.values())):
            field = [r for r in active if target_of.get(r.name) == target]
            if len(field) < 2:
                continue
            ranked = sorted(field, key=standing, reverse=True)
            losers.extend(r.name for r in ranked[max(1, math.floor(len(field) * keep)) :])
        return losers

    return leave


def standing(result: RunResult) -> tuple[float, float]:
    """Higher is better: best score, then the negative of the latest training loss."""
    last = result.curve[-1]["loss"] if result.curve else None
    return result.best_score, -last if last is not None else -math.inf
