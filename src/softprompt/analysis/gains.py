"""Gains of transfer by pair: scores, relative error reduction, the papers' tables, the best source of each target.

Every gain is held against the mean of all runs from scratch on the target. An unfinished cell is NaN in arrays and
``pending`` in tables; nothing is averaged over an incomplete set in silence.

Letters: S source tasks, T target tasks, R runs. All scores are percents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from softprompt.analysis.records import Floats, Results
from softprompt.analysis.tables import Cell, Row, Table, number, summary


def relative_error_reduction(new: ArrayLike, base: ArrayLike) -> Floats:
    """Share of the baseline's error that is gone, in percent: 100 (new - base) / (100 - base).

    A baseline of 100 leaves no error: 0 where the new score is 100 too, NaN (undefined) otherwise.

    Args:
        new: scores, percent.
        base: baseline scores, percent, broadcast against ``new``.
    """
    new_, base_ = np.broadcast_arrays(np.asarray(new, dtype=np.float64), np.asarray(base, dtype=np.float64))
    room = 100.0 - base_
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = 100.0 * (new_ - base_) / room
    gain = np.where(room == 0, np.where(new_ == base_, 0.0, np.nan), gain)
    return np.where(np.isnan(new_) | np.isnan(base_), np.nan, gain)


def finished_mean(values: Floats, axis: int | None = None) -> Floats:
    """Mean over what is finished; NaN where nothing is. Silent about empty slices, unlike numpy's."""
    done = ~np.isnan(values)
    count = done.sum(axis=axis)
    total = np.where(done, values, 0.0).sum(axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))


@dataclass(frozen=True, kw_only=True)
class Gains:
    """Scores and relative error reductions of a study, as arrays.

    Attributes:
        scores_STR: percent, transferred.
        base_T: percent, mean of all runs from scratch.
        gain_STR: percent; every run against that mean.
    """

    scores_STR: Floats
    base_T: Floats
    gain_STR: Floats

    @classmethod
    def of(cls, results: Results) -> Gains:
        scores, base = results.transfers_STR(), results.base_T
        return cls(scores_STR=scores, base_T=base, gain_STR=relative_error_reduction(scores, base[None, :, None]))

    @property
    def mean_ST(self) -> Floats:
        """Relative error reduction of the mean score over the mean baseline: a cell of the heatmap (Figure 3)."""
        return relative_error_reduction(finished_mean(self.scores_STR, axis=2), self.base_T[None])

    @property
    def points_ST(self) -> Floats:
        """Points gained over scratch, mean over a source's finished seeds."""
        return np.asarray(finished_mean(self.scores_STR, axis=2) - self.base_T[None])

    @property
    def done_ST(self) -> Floats:
        """How many runs of each pair are finished."""
        return np.asarray((~np.isnan(self.scores_STR)).sum(axis=2), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best that searching everything gives, chosen on the rows it is reported on, as in the papers.

    Attributes:
        source_T: the best source task of each target by its mean over runs; None where unfinished.
        score_T: percent, its mean score; NaN where unfinished.
        oracle_T: percent, the best single transfer run of each target (the papers' oracle).
        base_T: percent, mean from scratch.
    """

    source_T: tuple[str | None, ...]
    score_T: Floats
    oracle_T: Floats
    base_T: Floats

    @property
    def average(self) -> tuple[float, float, float]:
        """(from scratch, best source per target, oracle), averaged over targets; NaN while any is unfinished."""
        return float(self.base_T.mean()), float(self.score_T.mean()), float(self.oracle_T.mean())

    @property
    def mean_gain(self) -> float:
        """Mean over targets of the best source's relative error reduction, percent; a perfect baseline is left out."""
        counted = self.base_T != 100.0
        gain = relative_error_reduction(self.score_T, self.base_T)[counted]
        return float(gain.mean()) if counted.any() else float("nan")


def best_sources(results: Results) -> Best:
    """The best source task and the best source prompt of every target whose row of transfers is finished.

    A target with unfinished transfers has no best yet: a maximum over a part would flatter the sources that ran first.
    """
    gains = Gains.of(results)
    scores, base = gains.scores_STR, gains.base_T
    open_T = np.isnan(scores).any(axis=(0, 2)) | np.isnan(base)
    mean_ST = scores.mean(axis=2)
    names: list[str | None] = []
    score, oracle = np.full(len(base), np.nan), np.full(len(base), np.nan)
    for t in range(len(base)):
        if open_T[t] or not results.sources:
            names.append(None)
            continue
        winner = int(mean_ST[:, t].argmax())
        names.append(results.sources[winner])
        score[t], oracle[t] = mean_ST[winner, t], scores[:, t].max()
    return Best(source_T=tuple(names), score_T=score, oracle_T=oracle, base_T=base)


def score_table(results: Results) -> Table:
    """Every score, sources by targets, with the row from scratch on top (Table 6)."""
    gains = Gains.of(results)
    means = finished_mean(gains.scores_STR, axis=2)
    best = [np.nanargmax(column) if not np.isnan(column).all() else -1 for column in means.T]
    rows: list[Row] = [("from scratch", *(summary(results.scratch_N(target)) for target in results.targets))]
    for s, source in enumerate(results.sources):
        cells = []
        for t in range(len(results.targets)):
            positive = "positive" if means[s, t] > gains.base_T[t] else ""
            cells.append(summary(gains.scores_STR[s, t], mark="best" if positive and s == best[t] else positive))
        rows.append((source, *cells))
    return Table(
        name="scores",
        title="Scores on the target tasks (percent), from scratch and from each source task",
        columns=("source", *results.targets),
        rows=tuple(rows),
        notes=(f"Mean and sample standard deviation over seeds; {_scratch_seeds(results)} from scratch.",),
    )


def _scratch_seeds(results: Results) -> str:
    counts = {len(results.scratch(target)) for target in results.targets}
    return f"{min(counts, default=0)} to {max(counts)}" if len(counts) > 1 else str(min(counts, default=0))


def gain_table(results: Results) -> Table:
    """Relative error reduction by pair: mean over runs against the mean baseline, spread over runs (Figure 3)."""
    gains = Gains.of(results)
    mean = gains.mean_ST
    rows: list[Row] = []
    for s, source in enumerate(results.sources):
        cells = []
        for t in range(len(results.targets)):
            runs = summary(gains.gain_STR[s, t])
            value = number(mean[s, t])
            mark = "positive" if value is not None and value > 0 else ""
            done = int(gains.done_ST[s, t])
            cells.append(Cell(value=value, std=runs.std, done=done, planned=runs.planned, mark=mark))
        rows.append((source, *cells))
    return Table(
        name="gains",
        title="Relative error reduction on the target tasks (percent)",
        columns=("source", *results.targets),
        rows=tuple(rows),
        notes=("100 x (score - from scratch) / (100 - from scratch), of the means over seeds; spread over runs.",),
    )


def run_table(results: Results) -> Table:
    """Every transfer run with its score and gain."""
    gains = Gains.of(results)
    rows: list[Row] = []
    for s, t, r in np.ndindex(gains.scores_STR.shape):
        values = (number(float(gains.scores_STR[s, t, r])), number(float(gains.gain_STR[s, t, r])))
        rows.append((results.sources[s], results.targets[t], str(results.seeds[r]), *values))
    return Table(
        name="runs",
        title="Every transfer run",
        columns=("source", "target", "seed", "score", "relative error reduction"),
        rows=tuple(rows),
    )


def positive_transfers(results: Results, above: float = 10.0) -> Table:
    """Pairs whose relative error reduction exceeds a bound, best first (Table 7).

    Args:
        above: percent.
    """
    gains = Gains.of(results)
    mean = gains.mean_ST
    found = [(float(mean[s, t]), s, t) for s, t in np.ndindex(mean.shape) if mean[s, t] > above]
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    planned = len(results.seeds)
    rows = tuple(
        (
            f"{results.sources[s]} → {results.targets[t]}",
            Cell(value=value, std=None, done=int(gains.done_ST[s, t]), planned=planned),
        )
        for value, s, t in found
    )
    missing = int((gains.done_ST < planned).sum())
    return Table(
        name="positive_transfers",
        title=f"Positive transfers with more than {above:g}% relative error reduction",
        columns=("transfer", "relative error reduction"),
        rows=rows,
        notes=(f"{missing} of {mean.size} pairs are not finished.",) if missing else (),
    )


def best_table(results: Results) -> Table:
    """From scratch, best source and oracle of each target and on average (the rows of SharPT's Table 1)."""
    best = best_sources(results)
    gain = relative_error_reduction(best.score_T, best.base_T)
    rows: list[Row] = []
    for t, target in enumerate(results.targets):
        values = (best.base_T[t], best.score_T[t], gain[t], best.oracle_T[t])
        rows.append((target, best.source_T[t] or "pending", *(number(float(v)) for v in values)))
    base, score, oracle = best.average
    rows.append(("average", "", number(base), number(score), number(best.mean_gain), number(oracle)))
    return Table(
        name="best_sources",
        title="Best source task of each target, and the best single source prompt (oracle)",
        columns=("target", "best source", "from scratch", "best source score", "relative error reduction", "oracle"),
        rows=tuple(rows),
        notes=("Both are chosen on the rows they are reported on, as in the papers; the searches below are not.",),
    )
