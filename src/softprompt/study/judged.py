"""Predictors of transfer side by side: how good their rankings are, and what they are worth together.

The similarities and every further predictor are judged by the same measures over targets; their combination is fitted
without the target that it predicts (`softprompt.methods.spot.judging`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from softprompt.errors import UsageError
from softprompt.study.analysis import Gains, finished_mean
from softprompt.study.embeddings import SIMILARITIES
from softprompt.study.records import Floats, Results
from softprompt.study.retrieval import rankings
from softprompt.study.tables import Table

COMBINED = "combined, fitted on the other targets"


def features(results: Results) -> tuple[list[str], Floats, Floats]:
    """Predictions and gains as arrays.

    Returns:
        names of F rankings; float [T, M, F], predictions averaged over the target's runs; float [T, M], points gained
        over tuning from scratch.
    """
    tables = rankings(results)
    names = [name for name, table in tables.items() if all(values.size for values in table.values())]
    gains = Gains.of(results)
    base_T = finished_mean(gains.base_TR, axis=1)
    scores_TM = gains.scores_STR.transpose(1, 0, 2).reshape(len(results.targets), -1)
    if not names:
        return [], np.zeros((*scores_TM.shape, 0)), scores_TM - base_T[:, None]
    columns = [np.stack([finished_mean(tables[name][target], axis=0) for target in results.targets]) for name in names]
    return names, np.stack(columns, axis=-1), scores_TM - base_T[:, None]


def with_combination(results: Results) -> Results:
    """The results with one more predictor: the combination of all, for each target fitted on the other targets.

    Unchanged where fewer than two predictors or targets are there, or a transfer is unfinished.
    """
    from softprompt.methods.spot.judging import leave_one_target_out

    names, features_TMF, gain_TM = features(results)
    if len(names) < 2 or len(results.targets) < 2 or np.isnan(gain_TM).any() or COMBINED in names:
        return results
    try:
        predicted_TM = leave_one_target_out(names, features_TMF, gain_TM, by_rank=True)
    except (UsageError, np.linalg.LinAlgError):
        return results
    table = {
        prompt: {target: float(predicted_TM[t, m]) for t, target in enumerate(results.targets)}
        for m, prompt in enumerate(results.prompts)
    }
    return replace(results, predictors={**results.predictors, COMBINED: table})


def predictor_table(results: Results) -> Table | None:
    """Regret, gain kept and rank correlation of every ranking, with 95 % intervals over targets; None with none to judge."""
    from softprompt.methods.spot.judging import judge

    names, features_TMF, gain_TM = features(results)
    complete = ~np.isnan(gain_TM).any(axis=1)
    if not names or not complete.any():
        return None
    ks = tuple(k for k in (1, 3, 9) if k <= len(results.prompts))
    rows = []
    for f, name in enumerate(names):
        found = judge(name, features_TMF[complete, :, f], gain_TM[complete], ks)
        rows.append(
            (
                SIMILARITIES.get(name, name),
                *(_with_interval(found.regret[k]) for k in ks),
                _with_interval(found.spearman, 2),
            )
        )
    return Table(
        name="predictors",
        title="How well predictors rank the source prompts",
        columns=("predictor", *(f"regret at {k}" for k in ks), "Spearman's rho"),
        rows=tuple(rows),
        notes=(
            f"{int(complete.sum())} of {len(results.targets)} targets. Regret: points lost by trying only the k prompts "
            "ranked first instead of all; 95% bootstrap intervals over targets.",
        ),
    )


def _with_interval(values: tuple[float, float, float], digits: int = 1) -> str:
    mean, low, high = values
    return "–" if np.isnan(mean) else f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
