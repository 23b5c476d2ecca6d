"""What further predictors of transfer say of every source prompt of a study (`softprompt.methods.spot.predictors`)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from softprompt.study.grid import StudyCell
from softprompt.study.making import Making
from softprompt.study.settings import FEW_STEPS

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.methods.spot.predictors import Tune
    from softprompt.tasks.encoded import EncodedSplit
    from softprompt.training.data import TaskData

TEXTS = 500
"""Inputs of each task that text predictors look at."""


def make_prediction(making: Making, cell: StudyCell) -> None:
    """What the study's predictors say of every source prompt on one target."""
    import torch

    from softprompt.methods.spot import predictors as known

    backbone, study, target = making.backbone, making.study, str(cell.spec["target"])
    data, wanted, started = making.data(target, study.target), study.strategies.predictors, time.perf_counter()
    names = [f"{source}.{seed}" for source, seed in cell.spec["names"]]
    prompts = [making.prompt_of("source", key, cell.name) for key in cell.spec["sources"]]
    values: dict[str, Sequence[float]] = {}
    cost = dict.fromkeys(wanted, 0)
    if "zero-shot-loss" in wanted:
        found = known.zero_shot_losses(backbone, prompts, data.train)
        values["zero-shot-loss"], cost["zero-shot-loss"] = (-found.per_token_S()).tolist(), found.forward_tokens
    if "few-step-loss" in wanted:
        tune = _few_steps(making, data)
        found, spent = known.few_step_losses(backbone, torch.stack(prompts).float(), data.train, tune)
        values["few-step-loss"] = (-found.per_token_S()).tolist()
        cost["few-step-loss"] = found.forward_tokens + spent
    of_source = {
        source: [making.data(task, study.source).train for task in study.tasks_of(source)]
        for source in dict.fromkeys(source for source, _ in cell.spec["names"])
    }
    if "text-similarity" in wanted:
        texts = {s: [e.inputs for part in parts for e in part.examples[:TEXTS]] for s, parts in of_source.items()}
        alike = known.text_similarities([e.inputs for e in data.train.examples[:TEXTS]], texts)
        values["text-similarity"] = [alike[source] for source, _ in cell.spec["names"]]
    if "data-size" in wanted:
        rows = {source: sum(len(part) for part in parts) for source, parts in of_source.items()}
        values["data-size"] = [math.log(rows[source]) for source, _ in cell.spec["names"]]
    result = {
        "values": {name: dict(zip(names, values[name], strict=True)) for name in wanted},
        "forward_tokens": cost,
        "seconds": time.perf_counter() - started,
    }
    making.write(cell, result, {}, {**making.provenance, "cell": cell.name})


def _few_steps(making: Making, data: TaskData) -> Tune:
    import torch

    from softprompt.prompts.stack import PromptStack
    from softprompt.training.data import TaskData
    from softprompt.training.loop import train_prompts

    backbone = making.backbone
    settings = making.study.target.having(steps=FEW_STEPS, eval_every=FEW_STEPS, embedding_step=0, patience=0)

    def tune(prompts_SPH: Tensor, split: EncodedSplit) -> tuple[Tensor, int]:
        part = TaskData(task=data.task, train=split, validation=data.validation)
        runs = [part.run(f"candidate-{i}", 0, validated=False) for i in range(len(prompts_SPH))]
        results = train_prompts(backbone, PromptStack(prompts_SPH.to(backbone.device), tuned=True), runs, settings)
        # A tuning step goes forward and back: twice the work of a position.
        return torch.stack([r.final["prompt"] for r in results]), 2 * sum(r.tokens for r in results)

    return tune
