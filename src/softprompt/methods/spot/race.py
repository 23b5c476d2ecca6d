"""Race: successive halving over all starts in one batch. Bad starts leave early, the survivors get the budget.

The rungs are spaced geometrically (Jamieson and Talwalkar 2016): where a share ``keep`` of the field survives a rung, each
rung is 1 / keep times as late as the one before, so that every rung takes about as much training as the next, and the last
survivor trains to the end. With the default, 48 source prompts and one start from scratch go 49, 14, 4, 1, dropped after
2.7, 9 and 30 % of the steps, for about 8 % of what training all 48 to the end takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softprompt.errors import UsageError

if TYPE_CHECKING:
    from softprompt.training.runs import RunResult
    from softprompt.training.settings import TrainSettings

KEEP = 0.3
"""Share of a field that survives a rung, where nothing else is said."""
LOOK_ROWS = 100
"""Selecting rows that a rung ranks by, where nothing else is said: dropping needs a rough order only."""
TRAINING_FACTOR = 2
"""As `softprompt.methods.method.TRAINING_FACTOR`, which needs torch."""


def check_keep(keep: float) -> None:
    """Refuse a share that cannot survive.

    Raises:
        UsageError: ``keep`` is not in (0, 1).
    """
    if not 0.0 < keep < 1.0:
        raise UsageError(f"a race keeps a share between 0 and 1 at each rung, got {keep}.")


def survivors(field: int, keep: float) -> int:
    """How many of a field go on after a rung; at least one."""
    return max(1, math.floor(field * keep))


def fields(candidates: int, keep: float) -> list[int]:
    """Runs in the race before each rung, and the one after the last: ``[49, 14, 4, 1]``.

    Args:
        candidates: at least 1.
        keep: share that survives a rung, in (0, 1).
    """
    check_keep(keep)
    found = [candidates]
    while found[-1] > 1:
        found.append(survivors(found[-1], keep))
    return found


def race_rungs(steps: int, candidates: int, keep: float = KEEP) -> tuple[int, ...]:
    """The steps after which runs are dropped: rung i of s at ``steps * keep ** (s - i)``.

    Args:
        steps: of the whole training.
        candidates: in the largest field; smaller ones are down to one at an earlier rung.
        keep: share that survives a rung, in (0, 1).

    Returns:
        At least 1, strictly rising, below ``steps``; empty for a single candidate.

    Raises:
        UsageError: too few steps for so many rungs.
    """
    count = len(fields(candidates, keep)) - 1
    if count >= steps:
        raise UsageError(f"{steps} steps leave no room for {count} rungs: give more steps or a smaller keep.")
    found: list[int] = []
    for i in range(count):
        wanted = round(steps * keep ** (count - i))
        # Few steps push the early rungs apart; they must leave a step for each of those after them.
        found.append(min(max(wanted, found[-1] + 1 if found else 1), steps - (count - i)))
    return tuple(found)


def losers(field: Sequence[RunResult], keep: float) -> list[str]:
    """The names of those that a rung drops: ranked by `standing`, the first of a tie stays."""
    ranked = sorted(field, key=standing, reverse=True)
    return [result.name for result in ranked[survivors(len(ranked), keep) :]]


def halving(
    target_of: Mapping[str, str], keep: float, rungs: Sequence[int]
) -> Callable[[int, Sequence[RunResult]], list[str]]:
    """The rule that names the runs to drop at a rung, for each target by itself.

    Args:
        target_of: target name of each racing run; runs not named here never leave.
        keep: share that survives, in (0, 1); at least one run a target does.
        rungs: steps after which runs are dropped; a validation at any other step drops none.
    """
    check_keep(keep)

    def leave(step: int, active: Sequence[RunResult]) -> list[str]:
        dropped: list[str] = []
        for target in sorted(set(target_of.values())) if step in rungs else ():
            dropped.extend(losers([r for r in active if target_of.get(r.name) == target], keep))
        return dropped

    return leave


def standing(result: RunResult) -> tuple[float, float]:
    """Higher is better: the negative mean label loss on the selecting rows at the latest look.

    Where answers are generated there is none: then the best score so far, rough looks included, and the negative of the
    latest training loss, since on few validation rows whole fields tie.
    """
    if not result.curve:
        return -math.inf, -math.inf
    if (told := result.curve[-1].get("label_loss")) is not None:
        return (-math.inf if math.isnan(told) else -float(told)), 0.0
    last = result.curve[-1]["loss"]
    return max(float(record["score"]) for record in result.curve), -math.inf if last is None else -last


def race_steps(steps: int, candidates: int, keep: float = KEEP) -> int:
    """Training steps of all runs of a race on one target."""
    before, total = 0, 0
    for count, until in zip(fields(candidates, keep), (*race_rungs(steps, candidates, keep), steps), strict=True):
        total += count * (until - before)
        before = until
    return total


@dataclass(frozen=True, kw_only=True)
class RaceCost:
    """What a race takes, beside trying every source prompt to the end (the oracle).

    Attributes:
        fields: runs before each rung, and the one after the last.
        rungs: the steps they are dropped after.
        steps: of training, over all runs.
        oracle_steps: the same of the oracle.
        rows: forward-row equivalents of training (two a row) and of the validations that choices are made on (one).
        oracle_rows: the same of the oracle.
    """

    fields: tuple[int, ...]
    rungs: tuple[int, ...]
    steps: int
    oracle_steps: int
    rows: int
    oracle_rows: int

    @property
    def share(self) -> float:
        """Of the oracle's cost."""
        return self.rows / self.oracle_rows


def race_cost(
    sources: int, settings: TrainSettings, *, keep: float = KEEP, look_rows: int = LOOK_ROWS, select_rows: int = 0
) -> RaceCost:
    """The cost of a race on one target, known before it starts.

    Rows are taken to be equally long. Counted: the training of all runs, the one from scratch that races along included, the
    validations at ``eval_every`` and the looks at the rungs. Left out, in both: the final measurement (of one run here, of
    all in the oracle), and the runs from scratch that the guard compares with.

    Args:
        sources: source prompts, at least 1.
        settings: of the runs.
        keep: share that survives a rung.
        look_rows: selecting rows that a rung ranks by; 0 for all.
        select_rows: rows of a validation; those of ``settings.eval_rows`` where 0.

    Raises:
        UsageError: neither says how many rows a validation has, or too few steps for the rungs.
    """
    whole = select_rows or settings.eval_rows
    if not whole or sources < 1:
        raise UsageError(f"the cost of a race needs select_rows and sources of at least 1, got {whole} and {sources}.")
    if settings.eval_rows:
        whole = min(whole, settings.eval_rows)
    steps = settings.steps
    rungs = race_rungs(steps, sources + 1, keep)
    counts = fields(sources + 1, keep)
    regular = {*range(settings.eval_every, steps + 1, settings.eval_every), steps}
    trained, weight = race_steps(steps, sources + 1, keep), TRAINING_FACTOR * settings.batch_size
    validated = _validated(counts, (*rungs, steps), regular, whole, min(look_rows, whole) if look_rows else whole)
    return RaceCost(
        fields=tuple(counts), rungs=rungs, steps=trained, oracle_steps=sources * steps,
        rows=weight * trained + validated, oracle_rows=sources * (weight * steps + len(regular) * whole),
    )  # fmt: skip


def _validated(counts: Sequence[int], untils: Sequence[int], regular: set[int], whole: int, look: int) -> int:
    """Rows validated by the runs left before each rung: at the regular steps all of them, at other rungs a look's."""
    rows = before = 0
    for count, until in zip(counts, untils, strict=True):
        rows += count * whole * sum(before < step <= until for step in regular) + count * look * (until not in regular)
        before = until
    return rows
