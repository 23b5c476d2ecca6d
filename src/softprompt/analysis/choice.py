"""Choice and report apart: which runs look best on one half of validation, and what the other half says of them.

Letters: T target tasks, M source prompts, N runs from scratch, S source tasks, R seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.analysis.records import Floats, Results


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Some rows choose, others report.

    Attributes:
        choose_TM: percent, by target and source prompt, on the rows that choose; NaN where unfinished.
        report_TM: the same on the rows that report.
        scratch: for each target, scores of every run from scratch on the choosing and on the reporting rows, each [N].
    """

    choose_TM: Floats
    report_TM: Floats
    scratch: tuple[tuple[Floats, Floats], ...]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """All directions that a study's protocol allows; numbers are means over them.

    Attributes:
        directions: one where checkpoints were chosen on half 0 (choose there, report on half 1); both where they were
            chosen on all of validation; one, choosing and reporting on everything, where halves are not known.
        apart: whether choice and report are on different rows.
        report_half: 1 where only half 1 reports; None otherwise.
    """

    directions: tuple[Direction, ...]
    apart: bool
    report_half: int | None

    @classmethod
    def of(cls, results: Results, *, apart: bool = True) -> Choices:
        """Read off a study's records.

        Args:
            results: of the study.
            apart: False to choose and report on the same rows, as the papers do.
        """
        known = apart and bool(results.runs) and all(run.halves is not None for run in results.runs)
        pairs: list[tuple[int | None, int | None]] = [(None, None)]
        if known:
            pairs = [(0, 1)] if results.report_half is not None else [(0, 1), (1, 0)]
        return cls(
            directions=tuple(_direction(results, choose, report) for choose, report in pairs),
            apart=known,
            report_half=results.report_half if known else None,
        )

    def best(self, target: int, members: Sequence[int]) -> float:
        """Percent on the reporting rows of whichever of these source prompts looks best on the choosing rows."""
        chosen = list(members)
        return float(
            np.mean([honest_best(d.choose_TM[target, chosen], d.report_TM[target, chosen]) for d in self.directions])
        )

    def random(self, target: int, k: int) -> float:
        """The same, expected, of k source prompts drawn at random."""
        return float(
            np.mean([expected_honest_best(d.choose_TM[target], d.report_TM[target], k) for d in self.directions])
        )

    def scratch(self, target: int, k: int = 1) -> float:
        """The same, expected, of k runs from scratch; of all there are where they are fewer. The mean for k = 1."""
        return float(
            np.mean(
                [
                    expected_honest_best(choose_N, report_N, min(k, len(choose_N)))
                    for choose_N, report_N in (d.scratch[target] for d in self.directions)
                ]
            )
        )

    def scratch_T(self, k: int = 1) -> Floats:
        """`scratch` of every target, float [T]."""
        return np.array([self.scratch(t, k) for t in range(len(self.directions[0].scratch))], dtype=np.float64)

    def scratch_runs(self, target: int) -> Floats:
        """Percent on the reporting rows of every run from scratch, float [N]."""
        return np.asarray(np.mean([d.scratch[target][1] for d in self.directions], axis=0), dtype=np.float64)

    @property
    def report_TM(self) -> Floats:
        """Percent on the reporting rows, of every source prompt."""
        return np.asarray(np.mean([d.report_TM for d in self.directions], axis=0), dtype=np.float64)

    def reported(self, score: float, halves: tuple[float, float] | None) -> float:
        """Percent of one run on the reporting rows: of half 1, or the mean over halves where both report."""
        if not self.apart or halves is None:
            return score
        return halves[1] if self.report_half is not None else (halves[0] + halves[1]) / 2

    @property
    def fewest_scratch(self) -> int:
        """Runs from scratch that every target has."""
        return min((len(choose_N) for choose_N, _ in self.directions[0].scratch), default=0)

    @property
    def note(self) -> str:
        """How choice and report were kept apart, in a sentence."""
        if not self.apart:
            return "Halves of validation are not known: what is chosen among is chosen on the data it is reported on."
        if len(self.directions) == 1:
            return "Checkpoints and prompts are chosen on one half of validation; scores are those of the other half."
        return (
            "Prompts are chosen on one half of validation and reported on the other, both ways; checkpoints were chosen "
            "on all of it."
        )


def search_noise(choices: Choices, target: int, sources: int, *, draws: int = 2000, seed: int = 0) -> Floats:
    """Float [D], gain of the best source prompt over the mean run from scratch, with the runs drawn anew.

    In each draw the seeds of every source and the runs from scratch are drawn with replacement, and the search is held
    again: the oracle carries the noise of the runs it chooses among.

    Args:
        choices: of the study.
        target: its place.
        sources: S; the source prompts of one source stand together.
        draws: D.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    total = np.zeros(draws)
    for d in choices.directions:
        choose_SR, report_SR = (a[target].reshape(sources, -1) for a in (d.choose_TM, d.report_TM))
        _, own_N = d.scratch[target]
        if np.isnan(choose_SR).any() or np.isnan(report_SR).any() or not own_N.size or not choose_SR.size:
            return np.full(draws, np.nan)
        seeds = choose_SR.shape[1]
        picked = random.integers(seeds, size=(draws, sources, seeds))
        rows = np.arange(sources)[None, :, None]
        choose, report = (a[rows, picked].reshape(draws, -1) for a in (choose_SR, report_SR))
        winner = (choose + 1e-9 * random.random(choose.shape)).argmax(axis=1)  # ties at random
        scratch = own_N[random.integers(len(own_N), size=(draws, len(own_N)))].mean(axis=1)
        total += report[np.arange(draws), winner] - scratch
    return total / len(choices.directions)


def _direction(results: Results, choose: int | None, report: int | None) -> Direction:
    def by_target(half: int | None) -> Floats:
        return results.transfers_STR(half).transpose(1, 0, 2).reshape(len(results.targets), -1)

    def scratch(target: str, half: int | None) -> Floats:
        return results.scratch_N(target, half)

    return Direction(
        choose_TM=by_target(choose),
        report_TM=by_target(report),
        scratch=tuple((scratch(target, choose), scratch(target, report)) for target in results.targets),
    )


def honest_best(choose_M: Floats, report_M: Floats) -> float:
    """The score, on data that had no part in the choice, of the prompt that looked best; ties count with their mean.

    Args:
        choose_M: scores on one half of validation.
        report_M: scores on the other half.
    """
    if np.isnan(choose_M).any() or np.isnan(report_M).any() or not len(choose_M):
        return float("nan")
    return float(report_M[choose_M == choose_M.max()].mean())


def expected_honest_best(choose_N: Floats, report_N: Floats, k: int) -> float:
    """`honest_best` of k runs drawn without replacement, expected. Exact; ties are broken at random.

    The run that the choosing rows rank i-th from below wins a draw with probability C(i-1, k-1) / C(N, k).
    """
    count = len(choose_N)
    if k < 1 or k > count or np.isnan(choose_N).any() or np.isnan(report_N).any():
        return float("nan")
    from scipy.special import comb

    order = np.argsort(choose_N, kind="stable")
    values = report_N[order].astype(np.float64)
    ranked = choose_N[order]
    for score in np.unique(ranked):  # within a tie any order is as likely as any other
        tied = ranked == score
        values[tied] = values[tied].mean()
    weights = comb(np.arange(count), k - 1) / comb(count, k)
    return float(values @ weights)
