"""What further predictors of transfer say of every source prompt of a study (`softprompt.methods.spot.predictors`)."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from softprompt.methods.spot.predictor_names import MEASURED
from softprompt.study.grid import StudyCell
from softprompt.study.making import Making

if TYPE_CHECKING:
    from softprompt.tasks.splits import EncodedSplit

TEXTS = 500
"""Inputs of each task that text predictors look at."""


def make_prediction(making: Making, cell: StudyCell) -> None:
    """What the study's predictors say of every source prompt on one target."""
    from softprompt.methods.spot.measured import predict

    study, target, started = making.study, str(cell.spec["target"]), time.perf_counter()
    wanted = study.strategies.predictors
    names = [f"{source}.{seed}" for source, seed in cell.spec["names"]]
    prompts = [making.prompt_of("source", key, cell.name).float() for key in cell.spec["sources"]]
    data = making.data(target, study.target)
    found = predict([n for n in wanted if n in MEASURED], making.backbone, prompts, data, study.target)
    values = {name: list(one.values) for name, one in found.items()}
    values |= _from_data(making, cell, data.train)
    result = {
        "values": {name: dict(zip(names, values[name], strict=True)) for name in wanted},
        "forward_tokens": {name: found[name].forward_tokens if name in found else 0 for name in wanted},
        "seconds": time.perf_counter() - started,
    }
    making.write(cell, result, {}, {**making.provenance, "cell": cell.name})


def _from_data(making: Making, cell: StudyCell, train: EncodedSplit) -> dict[str, list[float]]:
    """Predictors that look at the tasks' rows alone."""
    from softprompt.methods.spot.predictors import text_similarities

    study, places = making.study, [source for source, _ in cell.spec["names"]]
    parts = {
        source: [making.data(task, study.source).train for task in study.tasks_of(source)]
        for source in dict.fromkeys(places)
    }
    values = {}
    if "text-similarity" in study.strategies.predictors:
        texts = {s: [e.inputs for part in own for e in part.examples[:TEXTS]] for s, own in parts.items()}
        alike = text_similarities([e.inputs for e in train.examples[:TEXTS]], texts)
        values["text-similarity"] = [alike[source] for source in places]
    if "data-size" in study.strategies.predictors:
        rows = {source: sum(len(part) for part in own) for source, own in parts.items()}
        values["data-size"] = [math.log(rows[source]) for source in places]
    return values
