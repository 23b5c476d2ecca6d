"""Prompt design: few-shot text prompts for a frozen model, no parameter tuned (Brown et al. 2020; SPoT's PromptDesign).

How a prompt is written and answered is in ``few_shot``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from softprompt.backbones.base import Backbone
from softprompt.inference.evaluate import DEFAULT_BATCH_TOKENS, canonical_text
from softprompt.methods.few_shot import CONTENT_FREE, DesignSettings, FewShotPrompt, draw_examples
from softprompt.tasks.task import Split, Task


@dataclass(frozen=True, kw_only=True)
class DesignResult:
    """What prompt design gave on one task.

    Attributes:
        task: its name.
        likelihood: scores of the most likely label words, percent; None for a free-text task.
        generation: scores of the generated answers, percent.
        likelihood_predictions: a label for each row; empty for a free-text task.
        generation_predictions: a generated answer for each row, label words turned back into labels.
        examples: keys of the examples in the context.
        rows: rows answered.
        tokens: prompt and answer positions that went through the model.
        seconds: wall clock.
        settings: as JSON takes it.
    """

    task: str
    likelihood: Mapping[str, float] | None
    generation: Mapping[str, float]
    likelihood_predictions: Sequence[str]
    generation_predictions: Sequence[str]
    examples: Sequence[str]
    rows: int
    tokens: int
    seconds: float
    settings: Mapping[str, Any]


def prompt_design(
    backbone: Backbone,
    task: Task,
    settings: DesignSettings,
    *,
    train: Split | None = None,
    validation: Split | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> DesignResult:
    """Answer a task's validation rows from a few-shot text prompt.

    Args:
        backbone: frozen.
        task: the task.
        settings: how prompts are written and answered.
        train: where examples are drawn from; the task's training split where not given.
        validation: the rows to answer; the task's validation split where not given.
        batch_tokens: most padded positions in one pass.

    Raises:
        UsageError: a context too long for the model, too few training rows, or a label word that is missing.
    """
    started = time.perf_counter()
    train = train if train is not None or settings.shots == 0 else task.split("train")
    validation = validation if validation is not None else task.split("validation")
    examples = draw_examples(train, settings) if train is not None and settings.shots else []
    prompt = FewShotPrompt(backbone, task, examples, settings)
    rows = [example.inputs for example in validation.examples]
    depth = prompt.answer_tokens()
    prompt.shorten([*rows, *(CONTENT_FREE if settings.calibrated else ())], depth)
    canonical = canonical_text(backbone)
    likely: list[str] = []
    scores: Mapping[str, float] | None = None
    if prompt.words:
        likely = prompt.choose(prompt.likelihoods(rows, batch_tokens=batch_tokens))
        # Labels, not words of the model: compared as they are.
        scores = task.score(likely, validation.examples)
    generated = prompt.generate(rows, depth, batch_tokens=batch_tokens)
    plain = [canonical(text) if text in prompt.words else text for text in generated]
    passes = len(prompt.words) + 1
    tokens = sum(len(ids) for ids in backbone.tokenize_inputs([prompt.text(text) for text in rows])) * passes
    return DesignResult(
        task=task.name,
        likelihood=scores,
        generation=task.score(plain, validation.examples, canonical),
        likelihood_predictions=likely,
        generation_predictions=generated,
        examples=[example.key for example in prompt.examples],
        rows=len(rows),
        tokens=tokens,
        seconds=time.perf_counter() - started,
        settings={**asdict(settings), "label_words": dict(settings.label_words)},
    )
