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

from softprompt.study.gold import Gold, RunId
from softprompt.study.outcomes import REPLAYED, Outcomes
from softprompt.study.records import Results, RunScore
from softprompt.study.retrieval import rank, rankings
from softprompt.study.statistics import holm
from softprompt.study.tables import Cell, Table

if TYPE_CHECKING:
    from softprompt.methods.spot.guard import Comparison

LEVEL = 0.9
"""Coverage of the guard's interval: its default."""
RESAMPLES = 200
TEST_RESAMPLES = 2000
SIGNIFICANT = 0.05


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
class Beaten:
    """The best source prompt of a target against the best run from scratch, both chosen on one half of validation.

    Attributes:
        target: the target task.
        source: the source prompt that looked best.
        scratch_runs: runs from scratch that the other side was chosen among.
        gain: points on the other half.
        low: lower end of the paired bootstrap interval over rows, points.
        high: its upper end.
        p: one-sided, that the gain is not above zero.
        p_holm: after Holm's correction over the targets.
    """

    target: str
    source: str
    scratch_runs: int
    gain: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def beyond_noise(self) -> bool:
        """Whether transfer beats scratch after correction."""
        return self.p_holm < SIGNIFICANT


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """What comparisons by rows say of a study.

    Attributes:
        harms: by way of delivering.
        beaten: by target.
        left_out: targets without gold answers, and why.
    """

    harms: tuple[Harm, ...] = ()
    beaten: tuple[Beaten, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def blind(self, targets: int) -> bool:
        """Whether the rows of no target were at hand."""
        return len(self.left_out) >= targets


def guarded(results: Results, found: Outcomes, gold: Mapping[str, Gold], left_out: Mapping[str, str]) -> Guarded:
    """Compare by rows, on every target whose gold answers are at hand.

    Args:
        results: the study's records.
        found: its outcomes, for the races.
        gold: from `softprompt.study.gold.gold_of`.
        left_out: the other targets, and why.
    """
    judge = _Judge(results, gold)
    ways: dict[str, list[tuple[str, RunScore]]] = {}
    for name, target, run in _deliveries(results, found):
        if target in gold:
            ways.setdefault(name, []).append((target, run))
    harms = [judge.harm(name, delivered) for name, delivered in ways.items()]
    tests = [test for target in results.targets if target in gold and (test := judge.best(target)) is not None]
    corrected = holm([test.p for test in tests])
    beaten = [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]
    return Guarded(harms=tuple(harms), beaten=tuple(beaten), left_out=dict(left_out))


def _deliveries(results: Results, found: Outcomes) -> Iterator[tuple[str, str, RunScore]]:
    """(way, target, run) of every prompt that a way of transferring would deliver."""
    table = rankings(results).get("per_token", {})
    ks = sorted({o.k for o in found.searches if o.strategy == "best_of_top_k"})
    for t, target in enumerate(results.targets):
        runs = {run.source: run for run in results.runs if run.source is not None and run.target == target}
        moved = [runs.get(prompt) for prompt in results.prompts]
        for run in moved:
            if run is not None:
                yield "every source prompt, blindly", target, run
        for values_M in table.get(target, ()):
            order = rank(values_M)
            for k in ks:
                chosen = [moved[m] for m in order[:k]]
                if len(chosen) == k and all(run is not None for run in chosen):
                    yield f"best_of_top_k (k = {k}, per token)", target, _best([r for r in chosen if r is not None])
        race = found.races[t]
        if race is not None and race.winner.source is not None:
            yield REPLAYED, target, race.winner
        if moved and all(run is not None for run in moved):
            yield "oracle", target, _best([run for run in moved if run is not None])


def _best(runs: Sequence[RunScore]) -> RunScore:
    """The run that half 0 of validation puts first; the first of a tie."""
    return max(runs, key=lambda run: run.halves[0] if run.halves is not None else float("nan"))


class _Judge:
    """Paired comparisons against the run from scratch that half 0 chooses, each made once."""

    def __init__(self, results: Results, gold: Mapping[str, Gold]) -> None:
        self.results = results
        self.gold = gold
        self.made: dict[tuple[str, tuple[str, ...], int], Comparison] = {}

    def _base(self, target: str) -> RunScore | None:
        runs = [run for run in self.results.scratch(target) if run.halves is not None]
        return _best(runs) if runs else None

    def rows(self, target: str) -> tuple[Sequence[int], Sequence[int]]:
        """The two halves of the reporting rows."""
        from softprompt.inference.evaluate import halves

        report = halves(len(self.gold[target].examples), 0)[1]
        first, second = halves(len(report), 1)
        return [int(r) for r in report[first]], [int(r) for r in report[second]]

    def compared(self, target: str, run: RunScore, part: int) -> Comparison | None:
        """A run against scratch on one half of the reporting rows; None where there is nothing to compare."""
        gold, base, rows = self.gold[target], self._base(target), self.rows(target)[part]
        if base is None or not rows:
            return None
        new = tuple(gold.answers[_id(run)][r] for r in rows)
        if (target, new, part) not in self.made:
            self.made[target, new, part] = _compare(gold, rows, _id(run), _id(base), LEVEL, RESAMPLES)
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

    def best(self, target: str) -> Beaten | None:
        """The best source prompt against the best run from scratch on the whole reporting half; None while unfinished."""
        runs = [run for run in self.results.runs if run.target == target and run.source is not None]
        base = self._base(target)
        if base is None or len(runs) < len(self.results.prompts):
            return None
        run = _best(runs)
        first, second = self.rows(target)
        rows = sorted([*first, *second])
        test = _compare(self.gold[target], rows, _id(run), _id(base), 0.95, TEST_RESAMPLES)
        assert run.source is not None
        return Beaten(
            target=target,
            source=f"{run.source[0]}, seed {run.source[1]}",
            scratch_runs=len(self.results.scratch(target)),
            gain=test.gain,
            low=test.low,
            high=test.high,
            p=(test.p_worse * TEST_RESAMPLES + 1) / (TEST_RESAMPLES + 1),
            p_holm=float("nan"),
        )


def _id(run: RunScore) -> RunId:
    return run.target, run.source, run.seed


def _compare(gold: Gold, rows: Sequence[int], new: RunId, base: RunId, level: float, resamples: int) -> Comparison:
    from softprompt.methods.spot.guard import compare

    return compare(
        gold.task,
        [gold.examples[r] for r in rows],
        [gold.answers[new][r] for r in rows],
        [gold.answers[base][r] for r in rows],
        canonical=gold.canonical,
        level=level,
        resamples=resamples,
    )


def harm_table(found: Guarded) -> Table:
    """Prompts that are worse than scratch beyond noise, with and without the guard; says why where it cannot tell."""
    body: list[tuple[str | float | Cell | None, ...]] = [
        (
            harm.name,
            str(harm.delivered),
            _share(harm.worse, harm.delivered),
            _share(harm.better, harm.delivered),
            _share(harm.kept, harm.delivered),
            _share(harm.kept_worse, harm.delivered),
        )
        for harm in found.harms
        if harm.delivered
    ]
    return Table(
        name="guard",
        title="Delivered prompts against tuning from scratch, with and without the guard",
        columns=("transfer", "prompts", "worse", "better", "let through by the guard", "let through and worse"),
        rows=tuple(body),
        notes=(
            f"Shares of the prompts. Worse and better: beyond noise, {100 * LEVEL:.0f}% paired bootstrap interval over rows, "
            "against the run from scratch that half 0 of validation chooses. The guard confirms on one half of the "
            "reporting rows, harm is measured on the other half, both ways; what it stops is delivered from scratch.",
            *_why(found),
        ),
    )


def beaten_table(found: Guarded) -> Table:
    """By target: does the best source prompt beat the best run from scratch beyond noise?"""
    body: list[tuple[str | float | Cell | None, ...]] = [
        (
            test.target,
            test.source,
            f"{test.gain:+.1f} [{test.low:+.1f}, {test.high:+.1f}]",
            str(test.scratch_runs),
            f"{test.p:.3f}",
            f"{test.p_holm:.3f}",
            "yes" if test.beyond_noise else "no",
        )
        for test in found.beaten
    ]
    return Table(
        name="beats_scratch",
        title="The best source prompt against the best run from scratch, by target",
        columns=("target", "source prompt", "gain [95% interval]", "scratch runs", "p", "p (Holm)", "beyond noise"),
        rows=tuple(body),
        notes=(
            "Both are chosen on half 0 of validation and compared on half 1, paired by row; p is one-sided, by "
            f"{TEST_RESAMPLES:,} bootstrap resamples of rows, corrected over the targets.",
            *_why(found),
        ),
    )


def _why(found: Guarded) -> Iterator[str]:
    for target, reason in found.left_out.items():
        yield f"{target} is left out: {reason.rstrip('.')}."


def _share(count: float, of: int) -> str:
    return f"{100 * count / of:.1f}%" if of else "–"


def share_of(harms: Sequence[Harm], name: str) -> Harm | None:
    """One way's line."""
    found = [harm for harm in harms if harm.name == name and harm.delivered]
    return found[0] if found else None
