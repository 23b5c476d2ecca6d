"""Retrieval strategies: what each way of choosing source prompts gives, and what it costs (SPoT 3.3, Table 3).

Letters: T target tasks, R runs on a target, M source prompts.
Every run of a target has its own task embedding, hence its own ranking; averages and spreads are over those runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.study.analysis import Gains, relative_error_reduction
from softprompt.study.choosing import expected_honest_best
from softprompt.study.embeddings import SIMILARITIES, target_similarities
from softprompt.study.records import Floats, Results
from softprompt.study.tables import Cell, Table, fixed, summary

KS = (1, 3, 6, 9, 12, 15)
"""How many source prompts best_of_top_k tries, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class StrategyRow:
    """One line of the strategies table.

    Attributes:
        strategy: ``baseline``, ``oracle``, ``best_of_top_k``, ``weighted_average``, ``multitask_mixture``, ``random``.
        ranking: what ordered the source prompts (a similarity or another predictor); empty where nothing did.
        k: source prompts drawn on; 0 for none.
        tunings: runs of prompt tuning on the target that it takes, the one from scratch for its embedding left out.
        score_TR: percent, by target and run; NaN where unfinished.
        absolute: change against the baseline, points, over runs.
        relative: relative error reduction, percent, over runs.
        average: score averaged over targets, percent, over runs.
        saved: share of the source prompts that need not be tried, 0..1.
        kept: share of the oracle's gain in average score that is kept; None while unknown.
        targets_done: targets whose every run is finished.
    """

    strategy: str
    ranking: str
    k: int
    tunings: int
    score_TR: Floats
    absolute: Cell
    relative: Cell
    average: Cell
    saved: float
    kept: float | None
    targets_done: int


def rank(values_M: Floats) -> list[int]:
    """Source prompts from the highest predicted value down; ties by their order in the study; NaN is left out."""
    order = np.argsort(-values_M, kind="stable")
    return [int(i) for i in order if not np.isnan(values_M[i])]


def rankings(results: Results) -> dict[str, dict[str, Floats]]:
    """Predicted values by ranking and target, each float [R, M]: both similarities and every further predictor."""
    out: dict[str, dict[str, Floats]] = {}
    for kind in SIMILARITIES if results.embeddings else ():
        out[kind] = {target: target_similarities(results, target, kind) for target in results.targets}
    for name, predicted in results.predictors.items():
        table = {}
        for target in results.targets:
            row = [predicted.get(prompt, {}).get(target, np.nan) for prompt in results.prompts]
            table[target] = np.tile(np.asarray(row, dtype=np.float64), (len(results.seeds), 1))
        out[name] = table
    return out


def best_of_top_k(scores_M: Floats, values_RM: Floats, k: int) -> Floats:
    """Float [R], the best score among the k source prompts that each run's ranking puts first.

    NaN where a run has no ranking of k prompts or one of its k transfers is unfinished.
    """
    out = np.full(len(values_RM), np.nan)
    for r, values in enumerate(values_RM):
        chosen = rank(values)[:k]
        if len(chosen) == min(k, len(scores_M)) and chosen:
            out[r] = scores_M[chosen].max()  # NaN wins in numpy's max, as it should here
    return out


def expected_best_of_random(scores_M: Floats, k: int) -> float:
    """Expected best score of k source prompts drawn without replacement: what a ranking has to beat. Exact."""
    return expected_honest_best(scores_M, scores_M, k)


class _Rows:
    """Makes rows of the strategies table against one baseline and oracle."""

    def __init__(self, results: Results) -> None:
        gains = Gains.of(results)
        self.results = results
        self.base_TR = gains.base_TR
        self.scores_TM = gains.scores_STR.transpose(1, 0, 2).reshape(len(results.targets), -1)
        # One number a target, the same for each of its runs; NaN while any transfer is unfinished.
        best = self.scores_TM.max(axis=1) if self.scores_TM.size else np.full(len(results.targets), np.nan)
        self.oracle_TR = np.tile(best[:, None], (1, len(results.seeds)))

    def row(
        self, strategy: str, ranking: str, k: int, tunings: int, score_TR: Floats, repeated: bool = False
    ) -> StrategyRow:
        """A line; `repeated` where all runs of a target have one number, which has no spread."""
        average_R = score_TR.mean(axis=0)
        base_R, oracle_R = self.base_TR.mean(axis=0), self.oracle_TR.mean(axis=0)
        relative_TR = relative_error_reduction(score_TR, self.base_TR)
        counted = np.asarray((self.base_TR != 100.0).all(axis=1))  # a perfect baseline leaves no error to reduce
        relative_R = relative_TR[counted].mean(axis=0) if counted.any() else np.full(len(average_R), np.nan)
        gain, best = float(average_R.mean() - base_R.mean()), float(oracle_R.mean() - base_R.mean())
        return StrategyRow(
            strategy=strategy,
            ranking=ranking,
            k=k,
            tunings=tunings,
            score_TR=score_TR,
            absolute=summary(average_R - base_R),
            relative=summary(relative_R),
            average=summary(average_R[:1] if repeated else average_R),
            saved=1.0 - tunings / max(len(self.results.prompts), 1),
            kept=gain / best if best > 0 and not np.isnan(gain) else None,
            targets_done=int((~np.isnan(score_TR).any(axis=1)).sum()),
        )


def strategy_rows(results: Results, ks: Sequence[int] = KS) -> list[StrategyRow]:
    """Baseline, oracle, best_of_top_k by every ranking, random choice, and the strategies that tune on their own."""
    make = _Rows(results)
    total = len(results.prompts)
    rows = [make.row("baseline", "", 0, 0, make.base_TR), make.row("oracle", "", total, total, make.oracle_TR, True)]
    usable = [k for k in ks if k <= total]
    for name, table in rankings(results).items():
        for k in usable:
            score = np.full(make.base_TR.shape, np.nan)
            for t, target in enumerate(results.targets):
                values = table[target]
                if len(values) == len(results.seeds):
                    score[t] = best_of_top_k(make.scores_TM[t], values, k)
            rows.append(make.row("best_of_top_k", name, k, k, score, repeated=name not in SIMILARITIES))
    for k in usable:
        expected = np.array([[expected_best_of_random(row, k)] for row in make.scores_TM])
        rows.append(make.row("random", "", k, k, np.tile(expected, (1, len(results.seeds))), repeated=True))
    return rows + _tuned_rows(results, make)


def _tuned_rows(results: Results, make: _Rows) -> list[StrategyRow]:
    scores = {place: np.full(make.base_TR.shape, np.nan) for place in results.planned}
    for run in results.strategies:
        if run.target in results.targets and run.seed in results.seeds:
            table = scores.setdefault((run.strategy, run.similarity, run.k), np.full(make.base_TR.shape, np.nan))
            table[results.targets.index(run.target), results.seeds.index(run.seed)] = run.score
    return [make.row(name, kind, k, 1, table) for (name, kind, k), table in sorted(scores.items())]


def strategy_table(rows: Sequence[StrategyRow], targets: int) -> Table:
    """Rows as the papers print them (Table 3), with the search saved and the gain kept beside.

    Args:
        rows: from `strategy_rows`.
        targets: how many targets the study has; rows with fewer finished say so.
    """
    whole = all(row.targets_done == targets for row in rows)  # then a column that says so of every row is left out
    body: list[tuple[str | float | Cell | None, ...]] = []
    for row in rows:
        name = row.strategy if not row.k or row.strategy == "oracle" else f"{row.strategy}, k = {row.k}"
        ranking = SIMILARITIES.get(row.ranking, row.ranking)
        unfinished = row.targets_done < targets
        kept = "pending" if unfinished else "–" if row.kept is None else f"{fixed(100 * row.kept, 0)}%"
        saved = "–" if row.strategy in ("baseline", "oracle") else f"{100 * row.saved:.0f}%"
        first = row.strategy == "baseline"
        change = ("–", "–") if first else (row.absolute, row.relative)
        done = () if whole else (f"{row.targets_done}/{targets}",)
        body.append((name, ranking or "–", *change, row.average, saved, "–" if first else kept, *done))
    return Table(
        name="strategies",
        title="Ways of choosing source prompts, averaged over target tasks",
        columns=(
            "method", "ranking", "points gained", "relative error reduction (%)", "average score", "search saved",
            "gain kept", *(() if whole else ("targets done",)),
        ),
        rows=tuple(body),
        notes=(
            "Changes are against tuning from scratch with the same seed; spread over the target's runs.",
            "Best-of rows choose and report on the same validation data, as the papers do; random is the exact expectation.",
        ),
    )  # fmt: skip
