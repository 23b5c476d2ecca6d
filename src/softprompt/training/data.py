"""From a task to what a training takes: tokenised splits and runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from softprompt.backbones.base import Backbone
from softprompt.inference.evaluate import seeded_rows
from softprompt.prompts.init import InitSettings, Role, default_init
from softprompt.tasks.encoded import check_labels, encode_split, input_room, target_limit
from softprompt.tasks.example import Split
from softprompt.tasks.mixed import MixtureTask, joined
from softprompt.tasks.splits import EncodedSplit, JoinedSplit
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import for_backbone
from softprompt.training.runs import Run
from softprompt.training.settings import LoopSettings, TrainSettings, TuneSettings


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task tokenised for one backbone.

    Attributes:
        task: gives labels and metrics.
        train: training rows, inputs cut to ``max_input_tokens``.
        validation: validation rows, inputs cut only where the backbone cannot hold them.
        parts: of a mixture, each task's training rows, which ``train`` joins; empty for one task.
        rates: of a mixture, the probability of drawing from each.
    """

    task: Task
    train: EncodedSplit
    validation: EncodedSplit
    parts: tuple[EncodedSplit, ...] = ()
    rates: tuple[float, ...] = (1.0,)

    def run(
        self,
        name: str,
        seed: int,
        *,
        select_rows: np.ndarray | None = None,
        report_rows: np.ndarray | None = None,
        steps: int | None = None,
        validated: bool = True,
    ) -> Run:
        """A run on this task alone."""
        return Run(
            name=name,
            seed=seed,
            train=self.parts or (self.train,),
            rates=self.rates,
            task=self.task,
            validation=self.validation,
            select_rows=select_rows,
            report_rows=report_rows,
            steps=steps,
            validated=validated,
        )


def task_data(
    backbone: Backbone,
    task: Task,
    settings: LoopSettings,
    *,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> TaskData:
    """Tokenise a task's training and validation rows.

    Args:
        backbone: whose tokenizer is used, and whose ``max_length`` binds.
        task: the task; in natural language for decoder-only backbones, unless a wording was chosen (`Task.worded`).
        settings: token limits; of a tuning of weights, where no prompt takes room, those of `TuneSettings`.
        train_rows: at most this many training rows (a seeded subset).
        validation_rows: the same for validation.
        seed: of those subsets.
        cache: folder of the on-disk cache of tokenised rows; None for memory only.
    """
    if isinstance(task, MixtureTask):
        same: dict[str, Any] = {
            "train_rows": train_rows, "validation_rows": validation_rows, "seed": seed, "cache": cache,
        }  # fmt: skip
        return mixture_data(task, [task_data(backbone, part, settings, **same) for part in task.parts.values()])
    task = for_backbone(task, backbone.kind)
    check_labels(backbone, task.labels)
    most = target_limit(backbone, task, settings.max_target_tokens)
    prompt_length = settings.prompt_length if isinstance(settings, TrainSettings) else None
    # A text that is cut in two has its target in the same chunk.
    room = input_room(backbone, prompt_length, task.labels, 1 if task.drawn_prefix else most)
    train_limit = _least(settings.max_input_tokens or None, room)
    return TaskData(
        task=task,
        train=encode_split(
            task.split("train", max_rows=train_rows, seed=seed), backbone, max_input_tokens=train_limit,
            max_target_tokens=most, cache=cache,
        ),
        validation=encode_split(
            task.split("validation", max_rows=validation_rows, seed=seed), backbone, max_input_tokens=room,
            max_target_tokens=most if room is not None else None, cache=cache,
        ),
    )  # fmt: skip


def mixture_data(task: MixtureTask, parts: Sequence[TaskData]) -> TaskData:
    """A mixture's rows, tokenised task by task: each within its own limits, in its own wording."""
    named = {part.task.name: part for part in parts}
    train, validation = (
        JoinedSplit.of(joined([_untokenised(split) for split in splits]), splits)
        for splits in ([part.train for part in parts], [part.validation for part in parts])
    )
    return TaskData(
        task=task.having({name: part.task for name, part in named.items()}),
        train=train,
        validation=validation,
        parts=tuple(part.train for part in parts),
        rates=task.rates({name: len(part.train) for name, part in named.items()}),
    )


def _untokenised(split: EncodedSplit) -> Split:
    return Split(
        name=split.name, examples=split.examples, fingerprint=split.fingerprint, skipped=split.skipped,
        unlabelled=split.unlabelled,
    )  # fmt: skip


def start_of(backbone: Backbone, task: Task, role: Role) -> InitSettings:
    """How a prompt of a task starts on a backbone; see `default_init`."""
    return default_init(role, labels=task.labels, kind=backbone.kind, description=task.description)


def _least(*limits: int | None) -> int | None:
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None


def mixture_run(
    name: str,
    seed: int,
    parts: Sequence[TaskData],
    rates: Sequence[float],
    *,
    validated_on: TaskData,
    select_rows: np.ndarray | None = None,
    report_rows: np.ndarray | None = None,
    validated: bool = True,
) -> Run:
    """A run on a mixture of tasks, validated on one of them."""
    alone = validated_on.run(name, seed, select_rows=select_rows, report_rows=report_rows, validated=validated)
    return replace(alone, train=tuple(part.train for part in parts), rates=tuple(rates))


def mixed_run(name: str, seed: int, parts: Sequence[TaskData], rates: Sequence[float], settings: TuneSettings) -> Run:
    """The run on a mixture: the first stage of multi-task model tuning (SPoT Appendix C).

    A mixture has no validation of its own. What is watched is the first task, at most ``eval_rows`` rows of it, and
    nothing is chosen by it: the targets start from the last weights.
    """
    first = parts[0].validation
    watched = seeded_rows(len(first), settings.eval_rows, 0, parts[0].task.groups(first.examples))
    return mixture_run(name, seed, parts, rates, validated_on=parts[0], select_rows=watched, report_rows=watched)
