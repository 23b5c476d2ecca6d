"""What further predictors of transfer say of every source prompt of a study (`softprompt.methods.spot.predictors`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftpromptError
from softprompt.study.grid import StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.settings import FEW_STEPS, Study

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.study.runner import PromptRunner
    from softprompt.tasks.encoded import EncodedSplit
    from softprompt.training.data import TaskData

TEXTS = 500
"""Inputs of each task that text predictors look at."""


def predict(runner: PromptRunner, study: Study, cell: StudyCell, ledger: Ledger, provenance: Mapping[str, Any]) -> None:
    """What the study's predictors say of every source prompt on one target."""
    from softprompt.methods.spot import predictors as known

    backbone, target = runner.backbone(study), str(cell.spec["target"])
    data = runner.data(study, target, study.target)
    makers = {
        "zero-shot-loss": lambda: known.ZeroShotLoss(backbone),
        "few-step-loss": lambda: known.FewStepLoss(backbone, _few_steps(runner, study, data), steps=FEW_STEPS),
        "text-similarity": known.TextSimilarity,
        "data-size": known.DataSize,
    }
    chosen = [makers[name]() for name in study.strategies.predictors]
    candidates: list[known.Candidate] = []
    texts: dict[str, list[str]] = {}
    for (source, seed), key in zip(cell.spec["names"], cell.spec["sources"], strict=True):
        parts = [runner.data(study, task, study.source).train for task in study.tasks_of(source)]
        texts.setdefault(source, [e.inputs for part in parts for e in part.examples[:TEXTS]])
        candidates.append(
            known.Candidate(
                name=f"{source}.{seed}",
                task=source,
                prompt=prompt_of(ledger, "source", key, cell.name),
                train_rows=sum(len(part) for part in parts),
                texts=texts[source],
            )
        )
    wanted = known.TransferTarget(name=target, train=data.train, texts=[e.inputs for e in data.train.examples[:TEXTS]])
    started = time.perf_counter()
    found = known.predict_all(chosen, wanted, candidates)
    result = {
        "values": {name: dict(zip((c.name for c in candidates), p.values, strict=True)) for name, p in found.items()},
        "forward_tokens": {name: p.forward_tokens for name, p in found.items()},
        "seconds": time.perf_counter() - started,
    }
    ledger.write(cell.kind, cell.key, cell.identity, result, {}, {**provenance, "cell": cell.name})


def _few_steps(
    runner: PromptRunner, study: Study, data: TaskData
) -> Callable[[Tensor, EncodedSplit, int], tuple[Tensor, int]]:
    import torch

    from softprompt.prompts.stack import PromptStack
    from softprompt.training.loop import train_prompts
    from softprompt.training.runs import Run

    def tune(prompts_SPH: Tensor, split: EncodedSplit, steps: int) -> tuple[Tensor, int]:
        settings = study.target.having(steps=steps, eval_every=steps, embedding_step=0, patience=0)
        runs = [
            Run(
                name=f"candidate-{i}",
                seed=0,
                train=(split,),
                task=data.task,
                validation=data.validation,
                validated=False,
            )
            for i in range(len(prompts_SPH))
        ]
        stack = PromptStack(prompts_SPH.to(runner.backbone(study).device), tuned=True)
        results = train_prompts(runner.backbone(study), stack, runs, settings)
        # A tuning step goes forward and back: twice the work of a position.
        return torch.stack([r.final["prompt"] for r in results]), 2 * sum(r.tokens for r in results)

    return tune


def prompt_of(ledger: Ledger, kind: str, key: str, wanted_by: str) -> Tensor:
    """The prompt of a finished training: the best checkpoint, or the last where none was chosen (mixtures)."""
    tensors = ledger.tensors(kind, key)
    if "best" not in tensors and "final" not in tensors:
        raise SoftpromptError(f"{wanted_by} has nothing to start from: training {kind}/{key[:12]} kept no checkpoint.")
    return tensors.get("best", tensors.get("final"))  # type: ignore[return-value]
