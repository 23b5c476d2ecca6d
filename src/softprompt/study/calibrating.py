"""From a finished study to a calibration: what was known of each pair beforehand, and what it gained.

Letters: T target tasks, M source prompts, F features.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from softprompt.methods.spot.calibration import Calibration
from softprompt.methods.spot.gains import AVERAGE, LOSS, PER_TOKEN, SIZE, fit_models
from softprompt.study.analysis import relative_error_reduction
from softprompt.study.grid import Facts
from softprompt.study.judged import features
from softprompt.study.records import Floats, Results
from softprompt.study.settings import Study

_FROM_RANKINGS = {"per_token": PER_TOKEN, "average": AVERAGE, "zero-shot-loss": LOSS}


def calibration_of(study: Study, facts: Facts, results: Results, *, command: str = "") -> Calibration:
    """Fit gains on what is known beforehand (`softprompt.methods.spot.gains`).

    Args:
        study: the study.
        facts: what it was run with.
        results: what is finished of it; unfinished pairs are left out.
        command: what makes the calibration again.

    Raises:
        UsageError: too few finished targets, or nothing known beforehand.
    """
    names, known_TMF = _known(study, facts, results)
    points_TM, relative_TM = _gained(study, results)
    return Calibration(
        backbone_name=facts.backbone,
        backbone_fingerprint=facts.fingerprint,
        study=study.name,
        protocol=study.protocol,
        sources=tuple(study.sources),
        targets=tuple(study.targets),
        seeds=tuple(study.seeds),
        embedding_step=study.embedding.step,
        recipe=asdict(study.target),
        data={
            task: {"train": rows.train, "validation": rows.validation}
            for task, rows in sorted(facts.data.items())
        },
        models=fit_models(names, known_TMF, points_TM, relative_TM),
        command=command,
    )  # fmt: skip


def _known(study: Study, facts: Facts, results: Results) -> tuple[list[str], Floats]:
    """Names of F features, and float [T, M, F]; the size is the logarithm of the source's training rows."""
    rankings, values_TMF, _ = features(results)
    chosen = [name for name in rankings if name in _FROM_RANKINGS]
    columns = [values_TMF[:, :, rankings.index(name)] for name in chosen]
    rows = {source: sum(facts.data[task].train_rows for task in study.tasks_of(source)) for source in study.sources}
    if all(rows.values()):
        size_M = np.log([rows[source] for source, _ in results.prompts])
        columns.append(np.tile(size_M, (len(results.targets), 1)))
        chosen.append("size")
    names = [_FROM_RANKINGS.get(name, SIZE) for name in chosen]
    return names, np.stack(columns, axis=-1) if columns else np.zeros((*values_TMF.shape[:2], 0))


def _gained(study: Study, results: Results) -> tuple[Floats, Floats]:
    """Float [T, M] twice: points over the mean of all runs from scratch, and relative error reduction, percent.

    NaN where unfinished, and where the target itself was among the source's tasks.
    """
    scores_TM = results.transfers_STR().transpose(1, 0, 2).reshape(len(results.targets), -1)
    base_T = np.full(len(results.targets), np.nan)
    for t, target in enumerate(results.targets):
        scratch = [run.score for run in results.scratch(target)]
        if scratch:
            base_T[t] = np.mean(scratch)
        own = [target in study.tasks_of(source) for source, _ in results.prompts]
        scores_TM[t, own] = np.nan
    return scores_TM - base_T[:, None], relative_error_reduction(scores_TM, base_T[:, None])
