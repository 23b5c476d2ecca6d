"""Predictors of transfer: how each ranks the source prompts of a target, and whether it beats drawing them at random.

Letters: T target tasks, R runs on a target, M source prompts, S source tasks.
Every run of a target has its own task embedding, hence its own ranking; what they lead to is averaged over those runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.analysis.choice import expected_honest_best
from softprompt.analysis.gains import finished_mean
from softprompt.analysis.records import Floats, Results
from softprompt.analysis.similarity import SIMILARITIES, target_similarities
from softprompt.analysis.statistics import Difference, Interval, family, p_text, t_interval
from softprompt.analysis.tables import PENDING, Row, Table
from softprompt.methods.spot.predictors import order_of

RANDOM = "random choice (expected)"
AVERAGED = ", seeds averaged"
"""Behind the name of a similarity of task embeddings averaged over seeds."""


def rankings(results: Results) -> dict[str, dict[str, Floats]]:
    """Predicted values by ranking and target, each float [R, M]: both similarities and every further predictor.

    Predictors that give all source prompts one value, on every target, are left out; see `constant`.
    """
    out: dict[str, dict[str, Floats]] = {}
    for kind in SIMILARITIES if results.embeddings else ():
        out[kind] = {target: target_similarities(results, target, kind) for target in results.targets}
    left = constant(results)
    for name, predicted in results.predictors.items():
        if name in left:
            continue
        table = {}
        for target in results.targets:
            row = [predicted.get(prompt, {}).get(target, np.nan) for prompt in results.prompts]
            table[target] = np.tile(np.asarray(row, dtype=np.float64), (len(results.seeds), 1))
        out[name] = table
    return out


def constant(results: Results) -> tuple[str, ...]:
    """Predictors that say the same of every source prompt: they rank nothing, and listing order would stand in."""
    found = []
    for name, predicted in results.predictors.items():
        told = [{v for row in predicted.values() if (v := row.get(target)) is not None} for target in results.targets]
        if all(len(values) == 1 for values in told if values) and any(told) and len(results.prompts) > 1:
            found.append(name)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class PredictorScores:
    """One predictor over the targets whose transfers are all finished.

    Attributes:
        name: of the predictor.
        regret: by k, points lost by trying only the k prompts ranked first, mean over targets.
        against_random: by k, points of regret saved over random choice with as many tries.
        spearman: rank correlation over source tasks of prediction and gain, mean over targets.
    """

    name: str
    regret: dict[int, Interval]
    against_random: dict[int, Difference]
    spearman: Interval


def all_rankings(results: Results) -> dict[str, dict[str, Floats]]:
    """`rankings`, and both similarities averaged over the seeds of source and target."""
    found = rankings(results)
    return {
        **found,
        **{f"{kind}{AVERAGED}": seed_averaged(results, found[kind]) for kind in SIMILARITIES if kind in found},
    }


def seed_averaged(results: Results, table: dict[str, Floats]) -> dict[str, Floats]:
    """Values averaged over a target's runs and the prompts of a source; within a source the order of the single values stays."""
    out = {}
    for target, values_RM in table.items():
        if not values_RM.size:
            out[target] = values_RM
            continue
        single_M = finished_mean(values_RM, axis=0)
        by_source = finished_mean(single_M.reshape(len(results.sources), -1), axis=1)
        # All prompts of a source have one average: what is left of their own values only breaks that tie.
        mean_M = np.repeat(by_source, len(results.seeds)) + 1e-9 * single_M
        out[target] = np.tile(mean_M, (len(values_RM), 1))
    return out


def _finished(results: Results) -> tuple[Floats, list[int]]:
    """Scores of all transfers [T, M], and the places of the targets that have every one."""
    scores_TM = results.transfers_STR().transpose(1, 0, 2).reshape(len(results.targets), -1)
    return scores_TM, [t for t, row in enumerate(scores_TM) if row.size and not np.isnan(row).any()]


def regrets(results: Results, k: int) -> tuple[dict[str, Floats], list[int]]:
    """By ranking, points lost by k tries, float [finished targets]; and the places of those targets."""
    scores_TM, targets = _finished(results)
    return {n: _regret(results, table, scores_TM, targets, k) for n, table in all_rankings(results).items()}, targets


def random_regret(results: Results, k: int) -> Floats:
    """Points that k prompts drawn at random are expected to lose, float [finished targets]."""
    scores_TM, targets = _finished(results)
    return np.array([row.max() - expected_honest_best(row, row, k) for row in scores_TM[targets]], dtype=np.float64)


def judged(results: Results, ks: Sequence[int]) -> tuple[list[PredictorScores], dict[int, Interval], int]:
    """Every predictor, random choice's regret by k, and how many targets count."""
    scores_TM, targets = _finished(results)
    tables = all_rankings(results)
    regrets = {name: {k: _regret(results, table, scores_TM, targets, k) for k in ks} for name, table in tables.items()}
    random = {k: random_regret(results, k) for k in ks}
    families = {k: family([(name, random[k] - regrets[name][k]) for name in tables]) for k in ks}
    found = [
        PredictorScores(
            name=name,
            regret={k: t_interval(regrets[name][k]) for k in ks},
            against_random={k: families[k][i] for k in ks},
            spearman=t_interval(_spearman(results, tables[name], scores_TM, targets)),
        )
        for i, name in enumerate(tables)
    ]
    return found, {k: t_interval(random[k]) for k in ks}, len(targets)


def _regret(
    results: Results, table: dict[str, Floats], scores_TM: Floats, targets: Sequence[int], k: int
) -> Floats:  # fmt: skip
    """Float [T], points lost by k tries, mean over the target's runs; NaN where a run has no ranking of k prompts."""
    out = []
    for t in targets:
        orders = [order_of(values)[:k] for values in table[results.targets[t]]]
        whole = bool(orders) and all(len(order) == k for order in orders)
        best = [scores_TM[t, order].max() for order in orders] if whole else [np.nan]
        out.append(scores_TM[t].max() - float(np.mean(best)))
    return np.array(out, dtype=np.float64)


def _spearman(results: Results, table: dict[str, Floats], scores_TM: Floats, targets: Sequence[int]) -> list[float]:
    """Rank correlation over source tasks by target; targets where either side is constant are left out."""
    from scipy.stats import spearmanr

    found = []
    for t in targets:
        values_RM = table[results.targets[t]]
        if not values_RM.size:
            continue
        pairs = finished_mean(values_RM, axis=0), scores_TM[t]
        predicted, gained = (finished_mean(v.reshape(len(results.sources), -1), axis=1) for v in pairs)
        known = ~np.isnan(predicted)
        if known.sum() > 2 and np.ptp(predicted[known]) > 0 and np.ptp(gained[known]) > 0:
            found.append(float(spearmanr(predicted[known], gained[known]).statistic))
    return found


def predictor_table(results: Results, ks: Sequence[int] = (1, 3, 9)) -> Table | None:
    """Regret of every predictor with random choice beside it; None with none to judge."""
    usable = tuple(k for k in ks if k < len(results.prompts))
    if not usable:
        return None
    found, random, targets = judged(results, usable)
    if not targets or not found:
        return None
    first = usable[0]
    rows: list[Row] = [
        (
            _shown(one.name),
            *(one.regret[k].text() for k in usable),
            _beats(one.against_random[first]),
            p_text(one.against_random[first].p_holm),
            PENDING if np.isnan(one.spearman.mean) else one.spearman.text(2, sign=True),
        )
        for one in found
    ]
    rows.append((RANDOM, *(random[k].text() for k in usable), "–", "–", "–"))
    notes = [
        f"{targets} of {len(results.targets)} targets. Regret: points lost by trying only the k prompts ranked first instead "
        "of all, on the reporting rows; the best of all is flattered by luck, for every line alike.",
        f"Beats random: at {first} {'try' if first == 1 else 'tries'}, points of regret saved over random choice, with p by sign flips over "
        "targets, Holm-corrected over the predictors. Rho: Spearman's over source tasks. Intervals: Student's over targets.",
    ]
    notes += [
        f"{name} gives all source prompts one value: it ranks nothing and is left out." for name in constant(results)
    ]
    return Table(
        name="predictors",
        title="How well predictors rank the source prompts, beside random choice",
        columns=("predictor", *(f"regret at {k}" for k in usable), "beats random by", "p (Holm)", "rho"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _shown(name: str) -> str:
    kind = name.removesuffix(AVERAGED)
    return SIMILARITIES.get(kind, kind) + name[len(kind) :]


def _beats(saved: Difference) -> str:
    if np.isnan(saved.points.mean):
        return PENDING
    told = "yes" if saved.points.above and saved.p_holm < 0.05 else "no"
    return f"{told}: {saved.points.text(sign=True)}"
