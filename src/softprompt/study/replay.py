"""A race replayed on a finished study: what successive halving over all source prompts would have seen, and cost.

Prompts that train together come out as if each had been trained alone, so the curves of a study's transfer runs are those
that a race over all of them would have seen, up to where it drops them. The rule is that of `softprompt.methods.spot.race`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softprompt.methods.spot.race import KEEP, fields, losers, race_rungs
from softprompt.study.records import Cost, Results, RunScore

if TYPE_CHECKING:
    from softprompt.training.runs import RunResult


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One validation of a race.

    Attributes:
        step: after how many steps.
        before: runs that were validated.
        after: runs that went on.
    """

    step: int
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Race:
    """A race on one target.

    Attributes:
        winner: the run that is delivered; with the best checkpoint that its own training kept.
        rungs: as they were held.
        wanted: rungs that bring the field down to one; fewer were held where the curves are too coarse.
        candidates: runs at the start, one from scratch among them.
        cost: of all runs up to where they were dropped.
    """

    winner: RunScore
    rungs: tuple[Rung, ...]
    wanted: int
    candidates: int
    cost: Cost

    @property
    def held(self) -> int:
        """Rungs at which runs were dropped."""
        return sum(rung.after < rung.before for rung in self.rungs)


@dataclass
class _Runner:
    """A candidate on its way."""

    run: RunScore
    result: RunResult
    left: int | None = None
    validations: int = 0


def replay_race(candidates: Sequence[RunScore], keep: float = KEEP, at: Sequence[int] | None = None) -> Race | None:
    """The race that these runs would have been.

    Rungs are where the race would have looked. Where a curve has no validation there, its last one before counts, and a rung
    without any new validation is not held; runs that are left at the end are judged by their last validation.

    Args:
        candidates: runs on one target with their curves, in the order of the race.
        keep: share that survives a rung, in (0, 1).
        at: steps of the rungs; those of the race itself where None.

    Returns:
        None where a curve is missing.
    """
    if not candidates or any(not run.curve for run in candidates):
        return None
    from softprompt.training.runs import RunResult

    steps = max(run.steps for run in candidates)
    wanted = len(fields(len(candidates), keep)) - 1
    if at is None:
        at = race_rungs(steps, len(candidates), keep) if steps > wanted else ()
    names = [str(i) for i in range(len(candidates))]
    field_ = {
        n: _Runner(run=run, result=RunResult(name=n, seed=run.seed)) for n, run in zip(names, candidates, strict=True)
    }
    held: list[Rung] = []
    before = 0
    for due in sorted({*at, steps}):
        active = [runner for runner in field_.values() if runner.left is None]
        now = max((p.step for r in active for p in r.run.curve if p.step <= due), default=0)
        if now <= before:
            continue
        for runner in active:
            _see(runner, before, now)
        dropped = set(losers([runner.result for runner in active], keep))
        for runner in active:
            if runner.result.name in dropped:
                runner.left = now
        held.append(Rung(step=now, before=len(active), after=len(active) - len(dropped)))
        before = now
    survivors = [runner for runner in field_.values() if runner.left is None]
    winner = max(survivors, key=lambda runner: runner.result.best_score)
    cost = Cost()
    for runner in field_.values():
        cost += runner.run.cost_until(min(runner.left or runner.run.steps, runner.run.steps), runner.validations)
    return Race(winner=winner.run, rungs=tuple(held), wanted=wanted, candidates=len(candidates), cost=cost)


def _see(runner: _Runner, after: int, until: int) -> None:
    """Validate a candidate: the score at the rung, and the mean training loss since the rung before."""
    window = [point for point in runner.run.curve if after < point.step <= until]
    if not window:  # it stopped early; what it had still stands
        return
    losses = [point.loss for point in window if point.loss is not None]
    loss = sum(losses) / len(losses) if len(losses) == len(window) else None
    runner.result.curve.append({"step": window[-1].step, "loss": loss, "score": window[-1].score})
    runner.result.best_score = max(runner.result.best_score, window[-1].score)
    runner.validations += 1


def replay_races(results: Results, keep: float = KEEP, at: Sequence[int] | None = None) -> list[Race | None]:
    """For every target a race over all source prompts and one start from scratch; None where a run is unfinished."""
    return [replay_race(field, keep, at) if field else None for field in fields_of(results)]


def fields_of(results: Results) -> list[list[RunScore]]:
    """The field of every target's race: one start from scratch, then every source prompt; empty where one is unfinished."""
    found: list[list[RunScore]] = []
    for target in results.targets:
        runs = {run.source: run for run in results.runs if run.source is not None and run.target == target}
        moved = [runs[prompt] for prompt in results.prompts if prompt in runs]
        scratch = [run for run in results.scratch(target) if run.seed in results.seeds][:1]
        complete = len(moved) == len(results.prompts) and scratch
        found.append([*scratch, *moved] if complete else [])
    return found
