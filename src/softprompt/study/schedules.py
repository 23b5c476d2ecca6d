"""Races with other rungs, replayed on a finished study: how early can the field be cut, and what is lost by it?

The race spaces its rungs geometrically. Later rungs see more and cost more, earlier ones less. Which of them keep the gain
is read off the same curves.

Letters: T target tasks, R runs on a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from softprompt.methods.spot.race import KEEP
from softprompt.methods.spot.race import fields as race_fields
from softprompt.study.bargain import ratio, share_text
from softprompt.study.methods import choice_note
from softprompt.study.outcomes import Outcomes
from softprompt.study.records import Floats, Results
from softprompt.study.replay import fields_of, replay_race
from softprompt.study.statistics import Interval
from softprompt.study.tables import Cell, Table

KEEPS = (0.5, KEEP, 0.2)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One way of placing the rungs.

    Attributes:
        keep: share of the field that survives a rung.
        spread: ``geometric`` (the race's own), ``even``, ``doubling`` (each rung twice as late as the one before) or ``early``
            (at the first validations).
        at: steps at which runs were dropped, on the first target.
        score: percent on the reporting rows, mean over targets.
        kept: share of the oracle's gain over one run from scratch.
        cost: share of the oracle's forward tokens.
    """

    keep: float
    spread: str
    at: tuple[int, ...]
    score: float
    kept: Interval
    cost: float


def schedules(found: Outcomes, results: Results) -> list[Schedule]:
    """Races of several rungs, each with its gain and cost; empty while a target is unfinished or curves are not known.

    Races that drop the same runs at the same steps on every target are given once.
    """
    fields = fields_of(results)
    if not fields or any(not field or any(not run.curve for run in field) for field in fields):
        return []
    steps = sorted({point.step for field in fields for run in field for point in run.curve})
    base_T1 = found.ways.scratch_T(1)[:, None]
    whole_TR: Floats = found.oracle.score_TR - base_T1
    tokens = float(found.oracle.tokens_TR.mean())
    made: dict[tuple[object, ...], Schedule] = {}
    for keep in KEEPS:
        even = _even(steps[-1], max(len(field) for field in fields), keep)
        ways = (("geometric", None), ("even", even), ("doubling", _doubling(steps)), ("early", steps))
        for spread, at in ways:
            races = [replay_race(field, keep, at) for field in fields]
            known = [race for race in races if race is not None]
            score_T1 = np.array([[found.ways.reported(race.winner, results)] for race in known])
            dropped = tuple(tuple((r.step, r.after) for r in race.rungs if r.after < r.before) for race in known)
            kept = ratio(np.broadcast_to(score_T1 - base_T1, whole_TR.shape), whole_TR)
            cost = float(np.mean([race.cost.tokens for race in known])) / tokens if tokens else float("nan")
            one = Schedule(
                keep=keep,
                spread=spread,
                at=tuple(step for step, _ in dropped[0]),
                score=float(score_T1.mean()),
                kept=kept,
                cost=cost,
            )
            made.setdefault(dropped, one)
    return sorted(made.values(), key=lambda schedule: schedule.cost)


def _even(steps: int, candidates: int, keep: float) -> list[int]:
    """Rungs evenly spread over the training."""
    every = max(1, steps // len(race_fields(candidates, keep)))
    return list(range(every, steps + 1, every))


def _doubling(steps: list[int]) -> list[int]:
    """The first validation, and those nearest before twice, four times, ... its step."""
    out, due = [], steps[0]
    while due <= steps[-1]:
        out.append(max(step for step in steps if step <= due))
        due *= 2
    return out


def schedule_table(found: Outcomes, results: Results) -> Table | None:
    """`schedules` by cost; None while there is nothing to tell."""
    rows = schedules(found, results)
    if not rows:
        return None
    body: list[tuple[str | float | Cell | None, ...]] = [
        (
            f"{row.spread}, keep {row.keep:g}",
            ", ".join(str(step) for step in row.at) or "none",
            row.score,
            share_text(row.kept, True),
            f"{100 * row.cost:.1f}%",
        )
        for row in rows
    ]
    return Table(
        name="race_schedules",
        title="Races with other rungs, by cost",
        columns=("rungs", "runs dropped at step", "score", "gain kept", "cost"),
        rows=tuple(body),
        notes=(
            f"{choice_note(found)} Geometric rungs and keep {KEEP:g} are what a race does; doubling: each rung twice as late as "
            "the one before; early: at the first validations. In a replay no rung can be earlier than the first validation of "
            "the runs, and one without a validation since the rung before is not held. Races that drop the same runs at the "
            "same steps are given once. Picking the best line after the fact flatters it.",
        ),
    )
