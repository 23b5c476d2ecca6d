"""The bargain of transfer: how much of the search can be dropped, and how much of its gain is kept (SPoT section 3.3).

Gains are held against luck as well: a search over k runs is compared with the best of equally many runs from scratch,
chosen on the same rows.

Letters: T target tasks, R runs on a target, D draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from softprompt.methods.spot.race import KEEP, LOOK_ROWS
from softprompt.study.methods import choice_note, cost_share, with_interval
from softprompt.study.outcomes import PAPER_K, PAPER_PROMPTS, RACE, Outcome, Outcomes, paper_k
from softprompt.study.records import Floats, Results
from softprompt.study.statistics import Interval, bootstrap
from softprompt.study.tables import Cell, Table, fixed

RULE = (
    f"Each rung keeps {KEEP:.0%} of the field and comes {1 / KEEP:.1f} times as late as the one before, by at most "
    f"{LOOK_ROWS} of the rows that choose checkpoints."
)
"""The race's schedule, in a sentence."""
OPEN = 0.025
"""Where more resamples than this have no gain of the oracle to keep, a share has no interval."""


@dataclass(frozen=True, kw_only=True)
class Bargain:
    """One way of searching.

    Attributes:
        outcome: its scores and costs.
        excess: points over the expected best of equally many runs from scratch.
        gain_kept: share of the oracle's gain over the mean run from scratch; NaN where there is none to keep.
        excess_kept: share of the oracle's excess; NaN likewise.
        cost: share of the oracle's forward tokens.
    """

    outcome: Outcome
    excess: Interval
    gain_kept: Interval
    excess_kept: Interval
    cost: float


def bargains(found: Outcomes) -> list[Bargain]:
    """Every search against the oracle: best_of_top_k by every ranking, random choice, race, and the oracle itself."""
    searches = [*found.searches, *([found.race] if found.race is not None else []), found.oracle]
    base_T1 = found.ways.scratch_T(1)[:, None]
    best_T1 = found.ways.scratch_T(found.oracle.tunings)[:, None]
    whole_gain, whole_excess = found.oracle.score_TR - base_T1, found.oracle.score_TR - best_T1
    rows = []
    for o in searches:
        excess_TR = o.score_TR - found.ways.scratch_T(o.tunings)[:, None]
        rows.append(
            Bargain(
                outcome=o,
                excess=bootstrap(excess_TR),
                gain_kept=ratio(o.score_TR - base_T1, whole_gain),
                excess_kept=ratio(excess_TR, whole_excess),
                cost=cost_share(o, found.oracle),
            )
        )
    return rows


def ratio(part_TR: Floats, whole_TR: Floats, *, draws: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """A ratio of means with its bootstrap interval; targets are drawn, then runs within them, the same for both parts.

    The mean is NaN where the whole is not above zero, or unfinished. The ends are NaN where more than `OPEN` of the
    resamples have a whole that is not above zero: then the data do not bound the share.
    """
    nan = float("nan")
    nothing = Interval(mean=nan, low=nan, high=nan, level=level)
    if not part_TR.size or np.isnan(part_TR).any() or np.isnan(whole_TR).any() or whole_TR.mean() <= 0:
        return nothing
    random = np.random.default_rng(seed)
    targets, runs = part_TR.shape
    rows_DT1 = random.integers(targets, size=(draws, targets))[:, :, None]
    columns_DTR = random.integers(runs, size=(draws, targets, runs))
    part_D = part_TR[rows_DT1, columns_DTR].mean(axis=(1, 2))
    whole_D = whole_TR[rows_DT1, columns_DTR].mean(axis=(1, 2))
    mean = float(part_TR.mean() / whole_TR.mean())
    positive = whole_D > 0
    if 1.0 - positive.mean() > OPEN:
        return Interval(mean=mean, low=nan, high=nan, level=level)
    low, high = np.quantile(part_D[positive] / whole_D[positive], [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=mean, low=float(low), high=float(high), level=level)


def bargain_table(found: Outcomes, results: Results) -> Table:
    """`bargains` as a table; the paper's share of tries is 9 of 48."""
    body: list[tuple[str | float | Cell | None, ...]] = []
    for row in bargains(found):
        done = row.outcome.finished
        body.append(
            (
                row.outcome.name,
                f"{row.outcome.tunings} of {len(results.prompts)}",
                _mean(row.outcome.score_TR),
                with_interval(row.excess, sign=True),
                share_text(row.gain_kept, done),
                share_text(row.excess_kept, done),
                "pending" if np.isnan(row.cost) else f"{100 * row.cost:.1f}%",
            )
        )
    total, fewest = len(results.prompts), found.ways.fewest_scratch
    short = f"; a search over more than {fewest} is held against the best of {fewest}" if fewest < total else ""
    return Table(
        name="bargain",
        title="The bargain: how much of the search is dropped, how much of its gain is kept",
        columns=(
            "search", "tried", "score", "excess over as many seeds", "gain kept", "excess kept", "share of the oracle's cost",
        ),
        rows=tuple(body),
        notes=(
            f"{choice_note(found)} SPoT tries {PAPER_K} of {PAPER_PROMPTS}; here that share is {paper_k(total)} of {total}.",
            f"Excess: points over the expected best of equally many runs from scratch, chosen on the same rows; there are "
            f"{fewest} of them a target{short}. Kept: share of the oracle's gain over one run from scratch, and of its excess; "
            "'no gain' where the oracle has none, 'open' where resamples do not bound the share.",
            "95% intervals: bootstrap over targets, then seeds. Cost: share of the oracle's forward-token equivalents, "
            "with what the ranking costs. A race tries every prompt and drops the worse ones early.",
        ),
    )  # fmt: skip


def race_table(found: Outcomes, results: Results) -> Table | None:
    """The race of every target: how it went, who won, what it kept and cost; None where none was run or can be replayed."""
    if found.race is None:
        return None
    return _measured(found, results) if found.race.strategy == RACE else _replayed(found, found.race, results)


def _replayed(found: Outcomes, replayed: Outcome, results: Results) -> Table:
    body: list[tuple[str | float | Cell | None, ...]] = []
    for t, (target, race) in enumerate(zip(results.targets, found.races, strict=True)):
        if race is None:
            body.append((target, *["pending"] * 7))
            continue
        steps = float(found.oracle.steps_TR[t].mean())
        tokens = float(found.oracle.tokens_TR[t].mean())
        source = race.winner.source
        body.append(
            (
                target,
                " > ".join([str(race.candidates), *(str(r.after) for r in race.rungs if r.after < r.before)]),
                f"{race.held} of {race.wanted}",
                "from scratch" if source is None else f"{source[0]}, seed {source[1]}",
                _mean(replayed.score_TR[t]),
                _mean(found.oracle.score_TR[t]),
                f"{100 * race.cost.steps / steps:.1f}%" if steps else "–",
                f"{100 * race.cost.tokens / tokens:.1f}%" if tokens else "–",
            )
        )
    return Table(
        name="race",
        title="A race over all source prompts, replayed from the curves of the transfer runs",
        columns=(
            "target", "field", "rungs held", "winner", "race", "oracle", "share of steps", "share of tokens",
        ),
        rows=tuple(body),
        notes=(
            "Prompts trained together come out as if each were trained alone, so the curves are those a race over all would "
            f"have seen. One run from scratch races along. {RULE} Fewer rungs are held where the runs were validated less "
            "often than the rungs come, which makes the replay dearer than the race.",
            "Shares of the oracle's steps and forward-token equivalents: training up to where a run was dropped, and the "
            "validations it had.",
        ),
    )  # fmt: skip


def _measured(found: Outcomes, results: Results) -> Table:
    assert found.race is not None
    body: list[tuple[str | float | Cell | None, ...]] = []
    for t, target in enumerate(results.targets):
        races = [run for run in results.strategies if run.strategy == RACE and run.target == target]
        steps, tokens = (
            float(race_TR[t].mean() / oracle_TR[t].mean()) if oracle_TR[t].mean() > 0 else float("nan")
            for race_TR, oracle_TR in (
                (found.race.steps_TR, found.oracle.steps_TR),
                (found.race.tokens_TR, found.oracle.tokens_TR),
            )
        )
        body.append(
            (
                target,
                "; ".join(dict.fromkeys(" > ".join(map(str, run.race_field)) for run in races)) or "pending",
                ", ".join(run.survivor for run in races) or "pending",
                _mean(found.race.score_TR[t]),
                _mean(found.oracle.score_TR[t]),
                "pending" if np.isnan(steps) else f"{100 * steps:.1f}%",
                "pending" if np.isnan(tokens) else f"{100 * tokens:.1f}%",
            )
        )
    return Table(
        name="race",
        title="A race over all source prompts, as it was run",
        columns=("target", "field", "winners by seed", "race", "oracle", "share of steps", "share of tokens"),
        rows=tuple(body),
        notes=(
            f"One race a target and seed, all runs in one batch; one run from scratch races along. {RULE} Shares of the "
            "oracle's steps and forward-token equivalents: all training, and the validations that choices are made on. The "
            "last survivor alone is one run, however few source prompts the oracle tries.",
        ),
    )


def share_text(share: Interval, finished: bool) -> str:
    """``93% [71, 108]``; ``no gain`` where there is nothing to keep, ``open`` where its size is not bounded.

    A share of a whole that may well be nothing says nothing, however many percent it comes to.
    """
    if not finished:
        return "pending"
    if np.isnan(share.mean):
        return "no gain"
    if np.isnan(share.low):
        return "open"
    mean, low, high = (fixed(100 * value, 0) for value in (share.mean, share.low, share.high))
    return f"{mean}% [{low}, {high}]"


def _mean(values: Floats) -> float | None:
    mean = float(values.mean()) if values.size else float("nan")
    return None if np.isnan(mean) else mean
