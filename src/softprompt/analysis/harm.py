"""Does transfer harm, and does the guard hold it back? Delivered prompts against scratch, row by row, beyond noise.

The guard of `softprompt.methods.spot.guard` delivers a transferred prompt only where rows that had no part in its choice
confirm that it beats the run from scratch. To see whether that helps, the guard confirms on one half of the reporting rows
and harm is measured on the other half, both ways; without the guard harm is measured on the same rows.

Letters: T target tasks, R runs, M source prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from softprompt.analysis.answers import Answers, RunId
from softprompt.analysis.methods import ORACLE, TOP_K, Methods
from softprompt.analysis.predictors import rankings
from softprompt.analysis.records import Results, RunScore
from softprompt.analysis.statistics import Interval, holm, p_text, resampled
from softprompt.analysis.tables import NOT_MEASURED, Row, Table
from softprompt.methods.spot.predictors import order_of

if TYPE_CHECKING:
    from softprompt.methods.spot.guard import Comparison

LEVEL = 0.9
"""Coverage of the guard's interval: its default."""
GUARD_DRAWS = 200
DRAWS = 1000
SIGNIFICANT = 0.05
BLIND = "every source prompt, blindly"


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What one way of delivering does.

    Attributes:
        name: of the way.
        delivered: prompts without the guard.
        worse: how many of them are worse than scratch beyond noise, mean over both halves of the reporting rows.
        better: how many are better beyond noise, likewise.
        kept: how many the guard lets through, likewise.
        kept_worse: how many of those are worse beyond noise on the rows that did not confirm them.
    """

    name: str
    delivered: int
    worse: float
    better: float
    kept: float
    kept_worse: float


@dataclass(frozen=True, kw_only=True)
class TargetGain:
    """The best source prompt of a target, chosen on one half of validation, against scratch on the other.

    Attributes:
        target: the target task.
        source: the source prompt that looked best.
        scratch_runs: runs from scratch, whose mean it is held against.
        points: gain with its interval; runs of both sides and rows drawn anew, and the search held again.
        p: one-sided, that the gain is not above zero.
        p_holm: after Holm's correction over the targets.
    """

    target: str
    source: str
    scratch_runs: int
    points: Interval
    p: float
    p_holm: float = float("nan")

    @property
    def beyond_noise(self) -> bool:
        """Whether transfer beats scratch after correction."""
        return self.p_holm < SIGNIFICANT


@dataclass(frozen=True, kw_only=True)
class ByRows:
    """What comparisons by rows say of a study.

    Attributes:
        harms: by way of delivering.
        gains: by target.
        left_out: targets without gold answers, and why.
    """

    harms: tuple[Harm, ...] = ()
    gains: tuple[TargetGain, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def blind(self, targets: int) -> bool:
        """Whether the rows of no target were at hand."""
        return len(self.left_out) >= targets

    def harm(self, name: str) -> Harm | None:
        """One way of delivering; None where nothing was delivered by it."""
        return next((harm for harm in self.harms if harm.name == name and harm.delivered), None)


def by_rows(results: Results, found: Methods, answers: Mapping[str, Answers], left_out: Mapping[str, str]) -> ByRows:
    """Compare by rows, on every target whose gold answers are at hand.

    Args:
        results: the study's records.
        found: its methods, for the numbers of tries.
        answers: from `softprompt.analysis.answers.answers_of`.
        left_out: the other targets, and why.
    """
    judge = _Judge(results, answers)
    ways: dict[str, list[tuple[str, RunScore]]] = {}
    for name, target, run in _deliveries(results, found):
        if target in answers:
            ways.setdefault(name, []).append((target, run))
    harms = [judge.harm(name, delivered) for name, delivered in ways.items()]
    tests = [test for target in results.targets if target in answers and (test := judge.gain(target)) is not None]
    corrected = holm([test.p for test in tests])
    gains = [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]
    return ByRows(harms=tuple(harms), gains=tuple(gains), left_out=dict(left_out))


def _deliveries(results: Results, found: Methods) -> Iterator[tuple[str, str, RunScore]]:
    """(way, target, run) of every prompt that a way of transferring would deliver."""
    table = rankings(results).get("per_token", {})
    ks = sorted({m.k for m in found.searches if m.strategy == TOP_K})
    for target in results.targets:
        runs = {run.source: run for run in results.runs if run.source is not None and run.target == target}
        moved = [runs.get(prompt) for prompt in results.prompts]
        for run in moved:
            if run is not None:
                yield BLIND, target, run
        for values_M in table.get(target, ()):
            order = order_of(values_M)
            for k in ks:
                chosen = [run for m in order[:k] if (run := moved[m]) is not None]
                if len(chosen) == k:
                    yield f"{TOP_K} (k = {k}, per token)", target, _best(chosen)
        finished = [run for run in moved if run is not None]
        if finished and len(finished) == len(moved):
            yield ORACLE, target, _best(finished)


def _best(runs: Sequence[RunScore]) -> RunScore:
    """The run that half 0 of validation puts first; the first of a tie."""
    return max(runs, key=lambda run: run.halves[0] if run.halves is not None else float("nan"))


class _Judge:
    """Paired comparisons against the run from scratch that half 0 chooses, each made once."""

    def __init__(self, results: Results, answers: Mapping[str, Answers]) -> None:
        self.results = results
        self.answers = answers
        self.made: dict[tuple[str, tuple[str, ...], int], Comparison] = {}

    def _scratch(self, target: str) -> list[RunScore]:
        return [run for run in self.results.scratch(target) if run.halves is not None]

    def rows(self, target: str) -> tuple[list[int], list[int]]:
        """The two halves of the reporting rows."""
        from softprompt.inference.evaluate import halves

        held = self.answers[target]
        groups = held.task.groups(held.examples)
        report = halves(len(groups), 0, groups)[1]
        first, second = halves(len(report), 1, [groups[int(r)] for r in report])
        return [int(r) for r in report[first]], [int(r) for r in report[second]]

    def compared(self, target: str, run: RunScore, part: int) -> Comparison | None:
        """A run against scratch on one half of the reporting rows; None where there is nothing to compare."""
        own, scratch, rows = self.answers[target], self._scratch(target), self.rows(target)[part]
        if not scratch or not rows:
            return None
        new = tuple(own.answers[_id(run)][r] for r in rows)
        if (target, new, part) not in self.made:
            self.made[target, new, part] = _guard(own, rows, _id(run), _id(_best(scratch)))
        return self.made[target, new, part]

    def harm(self, name: str, delivered: Sequence[tuple[str, RunScore]]) -> Harm:
        """What a way of delivering does, with and without the guard."""
        worse = better = kept = kept_worse = 0.0
        counted = 0
        for target, run in delivered:
            parts = [self.compared(target, run, part) for part in (0, 1)]
            if parts[0] is None or parts[1] is None:
                continue
            counted += 1
            for confirming, measuring in ((parts[0], parts[1]), (parts[1], parts[0])):
                worse += measuring.worse / 2
                better += measuring.better / 2
                kept += confirming.better / 2
                kept_worse += (confirming.better and measuring.worse) / 2
        return Harm(name=name, delivered=counted, worse=worse, better=better, kept=kept, kept_worse=kept_worse)

    def gain(self, target: str) -> TargetGain | None:
        """The best source prompt against the mean run from scratch on the reporting half; None while unfinished."""
        moved = {run.source: run for run in self.results.runs if run.target == target and run.source is not None}
        scratch = self._scratch(target)
        if not scratch or not moved or any(prompt not in moved for prompt in self.results.prompts):
            return None
        runs = [moved[prompt] for prompt in self.results.prompts]
        rows = sorted(r for part in self.rows(target) for r in part)
        score = self.answers[target].scorer([_id(run) for run in (*runs, *scratch)], rows)
        choose_SR = np.array([run.halves[0] if run.halves is not None else np.nan for run in runs])
        choose_SR = choose_SR.reshape(len(self.results.sources), -1)
        places_SR = np.arange(len(runs)).reshape(choose_SR.shape)
        base = len(runs) + np.arange(len(scratch))

        def draw(random: np.random.Generator) -> float:
            picked = random.integers(choose_SR.shape[1], size=choose_SR.shape)
            drawn, chosen = np.take_along_axis(places_SR, picked, 1).ravel(), np.take_along_axis(choose_SR, picked, 1)
            on = random.integers(len(rows), size=len(rows))
            own = random.choice(base, size=len(base))
            return score(int(drawn[int(chosen.argmax())]), on) - float(np.mean([score(int(b), on) for b in own]))

        low, high, not_above = resampled(draw, DRAWS)
        everything, best = np.arange(len(rows)), _best(runs)
        mean = score(runs.index(best), everything) - float(np.mean([score(int(b), everything) for b in base]))
        assert best.source is not None
        return TargetGain(
            target=target,
            source=f"{best.source[0]}, seed {best.source[1]}",
            scratch_runs=len(scratch),
            points=Interval(mean=mean, low=low, high=high),
            p=(not_above * DRAWS + 1) / (DRAWS + 1),
        )


def _id(run: RunScore) -> RunId:
    return run.target, run.source, run.seed


def _guard(answers: Answers, rows: Sequence[int], new: RunId, base: RunId) -> Comparison:
    from softprompt.methods.spot.guard import compare

    return compare(
        answers.task,
        [answers.examples[r] for r in rows],
        [answers.answers[new][r] for r in rows],
        [answers.answers[base][r] for r in rows],
        canonical=answers.canonical,
        level=LEVEL,
        resamples=GUARD_DRAWS,
    )


def harm_table(found: ByRows) -> Table:
    """Prompts that are worse than scratch beyond noise, with and without the guard; says why where it cannot tell."""
    body: list[Row] = [
        (
            harm.name,
            str(harm.delivered),
            *(_share(n, harm.delivered) for n in (harm.worse, harm.better, harm.kept)),
            _share(harm.kept_worse, harm.kept) if harm.kept else NOT_MEASURED,
        )
        for harm in found.harms
        if harm.delivered
    ]
    return Table(
        name="guard",
        title="Delivered prompts against tuning from scratch, with and without the guard",
        columns=("transfer", "prompts", "worse", "better", "let through by the guard", "worse, of those let through"),
        rows=tuple(body),
        notes=(
            f"Worse and better: beyond noise, {100 * LEVEL:.0f}% paired bootstrap interval over rows, "
            "against the run from scratch that half 0 of validation chooses. The guard confirms on one half of the "
            "reporting rows, harm is measured on the other half, both ways; what it stops is delivered from scratch.",
            *_why(found),
        ),
    )


def target_table(found: ByRows) -> Table:
    """By target: does the best source prompt beat scratch beyond noise?"""
    body: list[Row] = [
        (
            test.target,
            test.source,
            test.points.text(sign=True),
            str(test.scratch_runs),
            p_text(test.p),
            p_text(test.p_holm),
            "yes" if test.beyond_noise else "no",
        )
        for test in found.gains
    ]
    return Table(
        name="beats_scratch",
        title="The best source prompt against scratch, by target",
        columns=("target", "source prompt", "gain [95%]", "scratch runs", "p", "p (Holm)", "beyond noise"),
        rows=tuple(body),
        notes=(
            "The prompt is chosen on half 0 of validation; both sides are compared on half 1, against the mean of the runs "
            f"from scratch. {DRAWS:,} draws of runs and rows together, the search held again in each; p is one-sided, corrected "
            "over the targets.",
            *_why(found),
        ),
    )


def _why(found: ByRows) -> Iterator[str]:
    for target, reason in found.left_out.items():
        yield f"{target} is left out: {reason.rstrip('.')}."


def _share(count: float, of: float) -> str:
    return f"{100 * count / of:.1f}%" if of else NOT_MEASURED
