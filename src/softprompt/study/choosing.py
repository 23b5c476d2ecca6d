"""Choice and report apart: which runs look best on one half of validation, and what the other half says of them.

Letters: T target tasks, R runs (seeds), M source prompts, N runs from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.study.records import Floats, Results, RunScore


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of choosing on some rows and reporting on others.

    Attributes:
        choose_TM: percent, by target and source prompt, on the rows that choose; NaN where unfinished.
        report_TM: the same on the rows that report.
        base_TR: percent on the reporting rows, from scratch with the study's seeds.
        scratch: for each target, scores of every run from scratch on the choosing and on the reporting rows, each [N].
    """

    choose_TM: Floats
    report_TM: Floats
    base_TR: Floats
    scratch: tuple[tuple[Floats, Floats], ...]


@dataclass(frozen=True, kw_only=True)
class Ways:
    """All ways that a study's protocol allows; numbers are means over them.

    Attributes:
        ways: one where checkpoints were chosen on half 0 (choose there, report on half 1); both directions where they were
            chosen on all of validation; one, choosing and reporting on everything, where halves are not known.
        apart: whether the choice and the report are on different rows.
    """

    ways: tuple[Way, ...]
    apart: bool

    @classmethod
    def of(cls, results: Results) -> Ways:
        apart = bool(results.runs) and all(run.halves is not None for run in results.runs)
        pairs: list[tuple[int | None, int | None]] = [(None, None)]
        if apart:
            pairs = [(0, 1)] if results.report_half is not None else [(0, 1), (1, 0)]
        return cls(ways=tuple(_way(results, choose, report) for choose, report in pairs), apart=apart)

    def best(self, target: int, members: Sequence[int]) -> float:
        """Percent on the reporting rows of whichever of these source prompts looks best on the choosing rows."""
        chosen = list(members)
        return float(
            np.mean([honest_best(w.choose_TM[target, chosen], w.report_TM[target, chosen]) for w in self.ways])
        )

    def random(self, target: int, k: int) -> float:
        """The same, expected, of k source prompts drawn at random."""
        return float(np.mean([expected_honest_best(w.choose_TM[target], w.report_TM[target], k) for w in self.ways]))

    def scratch(self, target: int, k: int) -> float:
        """The same, expected, of k runs from scratch; of all there are where they are fewer."""
        found = [
            expected_honest_best(choose_N, report_N, min(k, len(choose_N)))
            for choose_N, report_N in (w.scratch[target] for w in self.ways)
        ]
        return float(np.mean(found))

    def scratch_T(self, k: int) -> Floats:
        """`scratch` of every target, float [T]."""
        return np.array([self.scratch(t, k) for t in range(len(self.ways[0].scratch))], dtype=np.float64)

    @property
    def base_TR(self) -> Floats:
        """Percent on the reporting rows, from scratch with the study's seeds."""
        return np.asarray(np.mean([w.base_TR for w in self.ways], axis=0), dtype=np.float64)

    @property
    def report_TM(self) -> Floats:
        """Percent on the reporting rows, of every source prompt."""
        return np.asarray(np.mean([w.report_TM for w in self.ways], axis=0), dtype=np.float64)

    def reported(self, run: RunScore, results: Results) -> float:
        """Percent of one run on the reporting rows."""
        return reported(run.score, run.halves, results, self.apart)

    @property
    def fewest_scratch(self) -> int:
        """Runs from scratch that every target has."""
        return min((len(choose_N) for choose_N, _ in self.ways[0].scratch), default=0)


def reported(score: float, halves: tuple[float, float] | None, results: Results, apart: bool) -> float:
    """Percent on the reporting rows: of half 1, or the mean over halves where both directions are used."""
    if not apart or halves is None:
        return score
    return halves[1] if results.report_half is not None else (halves[0] + halves[1]) / 2


def _way(results: Results, choose: int | None, report: int | None) -> Way:
    def by_target(half: int | None) -> Floats:
        return results.transfers_STR(half).transpose(1, 0, 2).reshape(len(results.targets), -1)

    def scratch(target: str, half: int | None) -> Floats:
        runs = results.scratch(target)
        return np.array([run.score if half is None else _half(run, half) for run in runs], dtype=np.float64)

    return Way(
        choose_TM=by_target(choose),
        report_TM=by_target(report),
        base_TR=results.baselines_TR(report),
        scratch=tuple((scratch(target, choose), scratch(target, report)) for target in results.targets),
    )


def _half(run: RunScore, half: int) -> float:
    return run.halves[half] if run.halves is not None else float("nan")


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
