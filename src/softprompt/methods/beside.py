"""What stands beside a tuned prompt's score: what its start had, the most frequent label, and a few-shot text prompt.

A prompt that learned nothing is seen at once: its score is that of its start or of the majority class; and one that is worth
less than examples in the context says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.inference.evaluate import EvalJob, canonical_text, evaluate
from softprompt.methods.few_shot import DesignSettings, FewShotPrompt, draw_examples
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import target_limit
from softprompt.tasks.example import Example
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData
from softprompt.training.settings import TrainSettings
from softprompt.training.stream import keyed_rng

SHOTS = 8


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Scores in percent of what needs no tuning; the task's average over its metrics.

    Attributes:
        zero_step: of each run's start, on ``rows`` rows.
        few_shot: of a text prompt with the description and ``shots`` training examples, on the same rows: by the
            likelihood of each label, or generated for free text; None for tasks that are judged by loss.
        shots: examples in that prompt: `SHOTS`, or as many as fit.
        majority: of the most frequent training label, on all validation rows; None for free text.
        rows: validation rows, a seeded subset of at most ``eval_rows``.
    """

    zero_step: tuple[float, ...]
    few_shot: float | None
    shots: int
    majority: float | None
    rows: int

    def of_run(self, number: int) -> dict[str, Any]:
        """Plain JSON for one run's record."""
        return {**asdict(self), "zero_step": self.zero_step[number]}


def beside(
    backbone: Backbone,
    data: TaskData,
    starts: Sequence[Tensor],
    settings: TrainSettings,
) -> Beside:
    """Measure them on a task's validation rows.

    Args:
        backbone: frozen.
        data: the task.
        starts: float [P, H] each, what the task's runs started from.
        settings: of the runs; ``eval_rows`` and ``scoring`` count here.
    """
    total = len(data.validation)
    count = min(total, settings.eval_rows or total)
    rows = np.sort(keyed_rng(0, "beside").permutation(total)[:count])
    stack = PromptStack.of([start.to(backbone.device) for start in starts])
    found = evaluate(
        backbone,
        stack,
        [
            EvalJob(run=n, task=data.task, split=data.validation, rows=rows,
                    scoring=settings.scoring if data.task.labels else "generate")
            for n in range(len(starts))
        ],
        max_target_tokens=settings.max_target_tokens,
    )  # fmt: skip
    few_shot, shots = None, 0
    if not data.task.judged_by_loss:  # a few-shot prompt writes answers, and this task has none
        shown = [data.validation.examples[int(r)] for r in rows]
        few_shot, shots = _few_shot(backbone, data, shown, settings)
    return Beside(
        zero_step=tuple(e.scores["score"] for e in found),
        few_shot=few_shot,
        shots=shots,
        majority=majority(data.task, data.train.examples, data.validation.examples),
        rows=count,
    )


def majority(task: Task, train: Sequence[Example], examples: Sequence[Example]) -> float | None:
    """The score, percent, of always giving the most frequent label of the training rows; None for free text."""
    if not task.labels:
        return None
    ((label, _),) = Counter(example.targets for example in train).most_common(1)
    return task.score([label] * len(examples), examples)["score"]


def _few_shot(
    backbone: Backbone, data: TaskData, examples: Sequence[Example], settings: TrainSettings
) -> tuple[float, int]:
    design = DesignSettings(
        shots=min(SHOTS, len(data.train)),
        fit=True,
        instruction=data.task.description or "",
        answer="" if examples[0].inputs.endswith(":") else "\nAnswer:",
        max_answer_tokens=target_limit(backbone, data.task, settings.max_target_tokens),
    )
    prompt = FewShotPrompt(backbone, data.task, draw_examples(data.train, design), design)
    inputs = [example.inputs for example in examples]
    depth = prompt.answer_tokens()
    prompt.shorten(inputs, depth)
    if prompt.words:
        scores = data.task.score(prompt.choose(prompt.likelihoods(inputs)), examples)
    else:
        scores = data.task.score(prompt.generate(inputs, depth), examples, canonical_text(backbone))
    return scores["score"], len(prompt.examples)
