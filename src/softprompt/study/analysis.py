"""Gains of transfer: relative error reduction, the papers' tables, best sources and the oracle (SPoT 3.1, appendix E).

Letters: S source tasks, T target tasks, R runs, M source prompts. All scores are percents.
Unfinished cells are NaN in arrays and ``pending`` in tables; nothing is averaged over an incomplete set in silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from softprompt.study.records import Floats, Results
from softprompt.study.tables import Cell, Table, summary


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
        base_TR: percent, from scratch.
        gain_STR: percent; run r against the mean of the target's runs from scratch.
        paired_STR: percent; run r against the run from scratch with the same seed.
    """

    scores_STR: Floats
    base_TR: Floats
    gain_STR: Floats
    paired_STR: Floats

    @classmethod
    def of(cls, results: Results, half: int | None = None) -> Gains:
        scores, base = results.transfers_STR(half), results.baselines_TR(half)
        mean_T1 = finished_mean(base, axis=1)[:, None]
        return cls(
            scores_STR=scores,
            base_TR=base,
            gain_STR=relative_error_reduction(scores, mean_T1[None]),
            paired_STR=relative_error_reduction(scores, base[None]),
        )

    @property
    def mean_ST(self) -> Floats:
        """Relative error reduction of the mean score over the mean baseline: a cell of the heatmap (Figure 3)."""
        return relative_error_reduction(
            finished_mean(self.scores_STR, axis=2), finished_mean(self.base_TR, axis=1)[None]
        )

    @property
    def done_ST(self) -> Floats:
        """How many runs of each pair are finished."""
        return np.asarray((~np.isnan(self.scores_STR)).sum(axis=2), dtype=np.float64)


def score_table(results: Results) -> Table:
    """Every score, sources by targets, with the row from scratch on top (Table 6)."""
    gains = Gains.of(results)
    means = finished_mean(gains.scores_STR, axis=2)
    base = finished_mean(gains.base_TR, axis=1)
    best = [np.nanargmax(column) if not np.isnan(column).all() else -1 for column in means.T]
    rows: list[tuple[str | float | Cell | None, ...]] = [("from scratch", *(summary(row) for row in gains.base_TR))]
    for s, source in enumerate(results.sources):
        cells = []
        for t in range(len(results.targets)):
            positive = "positive" if means[s, t] > base[t] else ""
            cells.append(summary(gains.scores_STR[s, t], mark="best" if positive and s == best[t] else positive))
        rows.append((source, *cells))
    return Table(
        name="scores",
        title="Scores on the target tasks (percent), from scratch and from each source task",
        columns=("source", *results.targets),
        rows=tuple(rows),
        notes=(f"Mean and sample standard deviation over up to {len(results.seeds)} seeds.",),
    )


def gain_table(results: Results) -> Table:
    """Relative error reduction by pair: mean over runs against the mean baseline, spread over runs (Figure 3)."""
    gains = Gains.of(results)
    mean = gains.mean_ST
    rows: list[tuple[str | float | Cell | None, ...]] = []
    for s, source in enumerate(results.sources):
        cells = []
        for t in range(len(results.targets)):
            runs = summary(gains.gain_STR[s, t])
            value = _float(mean[s, t])
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


def seed_table(results: Results) -> Table:
    """Every transfer run with both gains: against the mean baseline and against the baseline of its own seed."""
    gains = Gains.of(results)
    rows: list[tuple[str | float | Cell | None, ...]] = []
    for s, source in enumerate(results.sources):
        for t, target in enumerate(results.targets):
            for r, seed in enumerate(results.seeds):
                values = (gains.scores_STR[s, t, r], gains.gain_STR[s, t, r], gains.paired_STR[s, t, r])
                rows.append((source, target, str(seed), *(_float(v) for v in values)))
    return Table(
        name="runs",
        title="Every transfer run",
        columns=("source", "target", "seed", "score", "gain vs mean baseline", "gain vs same seed"),
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
    notes = (f"{missing} of {mean.size} pairs are not finished.",) if missing else ()
    return Table(
        name="positive_transfers",
        title=f"Positive transfers with more than {above:g}% relative error reduction",
        columns=("transfer", "relative error reduction"),
        rows=rows,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best that searching everything gives.

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
        """Mean over targets of the best source's relative error reduction, percent."""
        return _mean_defined(self.score_T, self.base_T)

    @property
    def oracle_gain(self) -> float:
        """The same of the oracle."""
        return _mean_defined(self.oracle_T, self.base_T)


def best_sources(results: Results) -> Best:
    """The best source task and the best source prompt of every target whose row of transfers is finished.

    A target with unfinished transfers has no best yet: a maximum over a part would flatter the sources that ran first.
    """
    gains = Gains.of(results)
    unfinished_T = np.asarray(
        np.isnan(gains.scores_STR).any(axis=(0, 2)) | np.isnan(gains.base_TR).any(axis=1)
    ).tolist()
    mean_ST = gains.scores_STR.mean(axis=2)
    names: list[str | None] = []
    score, oracle = np.full(len(results.targets), np.nan), np.full(len(results.targets), np.nan)
    for t in range(len(results.targets)):
        if unfinished_T[t] or not results.sources:
            names.append(None)
            continue
        winner = int(mean_ST[:, t].argmax())
        names.append(results.sources[winner])
        score[t], oracle[t] = mean_ST[winner, t], gains.scores_STR[:, t].max()
    base = gains.base_TR.mean(axis=1)
    return Best(source_T=tuple(names), score_T=score, oracle_T=oracle, base_T=base)


def best_table(results: Results) -> Table:
    """From scratch, best source and oracle of each target and on average (the rows of SharPT's Table 1)."""
    best = best_sources(results)
    rows: list[tuple[str | float | Cell | None, ...]] = []
    gain = relative_error_reduction(best.score_T, best.base_T)
    for t, target in enumerate(results.targets):
        numbers = (best.base_T[t], best.score_T[t], gain[t], best.oracle_T[t])
        rows.append((target, best.source_T[t] or "pending", *(_float(v) for v in numbers)))
    base, score, oracle = best.average
    rows.append(("average", "", *(_float(v) for v in (base, score, best.mean_gain, oracle))))
    return Table(
        name="best_sources",
        title="Best source task of each target, and the best single source prompt (oracle)",
        columns=("target", "best source", "from scratch", "best source score", "relative error reduction", "oracle"),
        rows=tuple(rows),
        notes=(
            "Both are chosen on the validation data they are reported on; see the statistics for honest estimates.",
        ),
    )


def _mean_defined(new_T: Floats, base_T: Floats) -> float:
    # A baseline of 100 % has no error to reduce: such a target is left out of this mean, an unfinished one is not.
    counted = base_T != 100.0
    return float(relative_error_reduction(new_T, base_T)[counted].mean()) if counted.any() else float("nan")


def _float(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
