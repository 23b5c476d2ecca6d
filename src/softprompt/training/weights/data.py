"""Rows for model tuning: a task alone, and several mixed for the first stage of multi-task model tuning."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.backbones.base import Backbone
from softprompt.inference.evaluate import seeded_rows
from softprompt.tasks.encoded import check_labels, encode_split, input_room, target_limit
from softprompt.tasks.mixed import MixtureTask
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import for_backbone
from softprompt.training.data import TaskData, mixture_data, mixture_run
from softprompt.training.runs import Run
from softprompt.training.weights.settings import TuneSettings


def tuning_data(
    backbone: Backbone,
    task: Task,
    settings: TuneSettings,
    *,
    train_rows: int | None = None,
    validation_rows: int | None = None,
) -> TaskData:
    """A task tokenised as model tuning, LoRA and their evaluation take it: no prompt takes room.

    Args:
        backbone: whose tokenizer is used, and whose ``max_length`` binds.
        task: the task.
        settings: token limits of training rows.
        train_rows: at most this many training rows (a seeded subset); None for all.
        validation_rows: likewise.
    """
    if isinstance(task, MixtureTask):
        rows = {"train_rows": train_rows, "validation_rows": validation_rows}
        return mixture_data(task, [tuning_data(backbone, part, settings, **rows) for part in task.parts.values()])
    task = for_backbone(task, backbone.kind)
    check_labels(backbone, task.labels)
    most = target_limit(backbone, task, settings.max_target_tokens)
    room = input_room(backbone, None, task.labels, 1 if task.drawn_prefix else most)
    limits = [n for n in (settings.max_input_tokens or None, room) if n is not None]
    return TaskData(
        task=task,
        train=encode_split(
            task.split("train", max_rows=train_rows), backbone, max_input_tokens=min(limits) if limits else None,
            max_target_tokens=most,
        ),
        validation=encode_split(
            task.split("validation", max_rows=validation_rows), backbone, max_input_tokens=room,
            max_target_tokens=most if room is not None else None,
        ),
    )  # fmt: skip


def mixed_run(name: str, seed: int, parts: Sequence[TaskData], rates: Sequence[float], settings: TuneSettings) -> Run:
    """The run on a mixture: the first stage of multi-task model tuning (SPoT Appendix C).

    A mixture has no validation of its own. What is watched is the first task, at most ``eval_rows`` rows of it, and
    nothing is chosen by it: the targets start from the last weights.
    """
    first = parts[0].validation
    watched = seeded_rows(len(first), settings.eval_rows, 0, parts[0].task.groups(first.examples))
    return mixture_run(name, seed, parts, rates, validated_on=parts[0], select_rows=watched, report_rows=watched)
