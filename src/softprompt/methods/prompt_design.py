"""Prompt design: few-shot text prompts for a frozen model, no parameter tuned (Brown et al. 2020; SPoT's PromptDesign).

How a prompt is written and answered is in ``few_shot``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from softprompt.backbones.base import Backbone
from softprompt.inference.evaluate import DEFAULT_BATCH_TOKENS, canonical_text
from softprompt.methods.few_shot import CONTENT_FREE, DesignSettings, FewShotPrompt, draw_examples
from softprompt.methods.method import Result, Target, Work, result_of
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Split
from softprompt.tasks.splits import EncodedSplit
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData
from softprompt.training.runs import RunResult


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
    # Labels, not words of the model: compared as they are.
    likely = prompt.choose(prompt.likelihoods(rows, batch_tokens=batch_tokens)) if prompt.words else []
    generated = prompt.generate(rows, depth, batch_tokens=batch_tokens)
    plain = [canonical(text) if text in prompt.words else text for text in generated]
    tokens = sum(len(ids) for ids in backbone.tokenize_inputs([prompt.text(text) for text in rows]))
    return DesignResult(
        task=task.name, likelihood=task.score(likely, validation.examples) if prompt.words else None,
        generation=task.score(plain, validation.examples, canonical), likelihood_predictions=likely,
        generation_predictions=generated, examples=[example.key for example in prompt.examples], rows=len(rows),
        tokens=tokens * (len(prompt.words) + 1), seconds=time.perf_counter() - started,
        settings={**asdict(settings), "label_words": dict(settings.label_words)},
    )  # fmt: skip


class PromptDesign:
    """Few-shot text prompts as a method: nothing is tuned; label likelihood answers closed tasks, generation the others.

    Args:
        settings: how prompts are written and answered; a run's seed draws its examples.
        name: of the method.
    """

    def __init__(self, settings: DesignSettings, *, name: str = "prompt_design") -> None:
        self.settings, self.name = settings, name

    def plain(self) -> dict[str, Any]:
        """See `Method.plain`."""
        return {**asdict(self.settings), "label_words": dict(self.settings.label_words)}

    def encode(
        self, backbone: Backbone, task: Task, *, train_rows: int | None = None, validation_rows: int | None = None
    ) -> TaskData:
        """See `Method.encode`; inputs are cut only where the backbone cannot hold them."""
        rows = {"train": train_rows, "validation": validation_rows}
        made = {
            name: encode_split(
                task.split(name, max_rows=most), backbone, max_input_tokens=backbone.max_length, max_target_tokens=None
            )
            for name, most in rows.items()
        }
        return TaskData(task=task, train=made["train"], validation=made["validation"])

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """See `Method.run`; a run is one draw of examples, and its curve has one point."""
        results = [self._answered(work.backbone, target, seed) for seed in seeds]
        return result_of(self.name, target, results, work.backbone)

    def _answered(self, backbone: Backbone, target: Target, seed: int) -> RunResult:
        data = target.data
        found = prompt_design(
            backbone, data.task, replace(self.settings, seed=seed), train=_plain(data.train), validation=_plain(data.validation)
        )  # fmt: skip
        canonical = canonical_text(backbone)
        answers = [canonical(a) for a in found.likelihood_predictions] or list(found.generation_predictions)
        select, report = (
            list(range(len(answers))) if rows is None else [int(row) for row in rows]
            for rows in (target.select, target.report)
        )

        def scores(rows: Sequence[int]) -> dict[str, float]:
            gold = [data.validation.examples[row] for row in rows]
            return data.task.score([answers[row] for row in rows], gold, canonical=canonical)

        return RunResult(
            name=f"{target.label or target.name}-{seed}", seed=seed, status="done", best_score=scores(select)["score"],
            scores=scores(report), predictions=[answers[row] for row in report],
            curve=[{"step": 0, "loss": None, "score": scores(select)["score"], "metrics": scores(select)}],
            evidence={"select_rows": len(select), "report_rows": len(report), "examples": list(found.examples)},
            seconds=found.seconds, eval_tokens=found.tokens,
        )  # fmt: skip


def _plain(split: EncodedSplit) -> Split:
    return Split(name=split.name, examples=split.examples, fingerprint=split.fingerprint, skipped=split.skipped)
