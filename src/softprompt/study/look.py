"""A first look at what a study will need: every source is opened before anything runs, and a few rows of it are read.

What is missing is said with where it comes from. Data sets of the hub are looked at over the network without a download.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from softprompt.errors import SoftpromptError
from softprompt.study.settings import Study
from softprompt.tasks.rows import BadRows
from softprompt.tasks.sources import HubSource

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.tasks.example import Example
    from softprompt.tasks.task import Task

LOOK_ROWS = 200
"""Examples of each task whose length is measured."""


@dataclass(frozen=True, kw_only=True)
class TaskLook:
    """What was seen of a task.

    Attributes:
        task: its name.
        train_rows: that the study uses; as published where its rows were not read; None where nobody says.
        validation_rows: likewise.
        input_tokens: mean tokens of an input in training; None where the backbone was not at hand.
        target_tokens: mean tokens of a target.
        problem: why the study cannot use it; empty where it can.
    """

    task: str
    train_rows: int | None = None
    validation_rows: int | None = None
    input_tokens: float | None = None
    target_tokens: float | None = None
    problem: str = ""


def look(study: Study, backbone: Backbone | None) -> list[TaskLook]:
    """Open every task of a study.

    Args:
        study: from `load_study`.
        backbone: measures lengths; None leaves them unknown.
    """
    return [_task(study, name, backbone) for name in study.all_tasks]


def _task(study: Study, name: str, backbone: Backbone | None) -> TaskLook:
    from softprompt.tasks.catalog import load_task
    from softprompt.tasks.tuned import for_backbone

    limits = study.rows_of(name)
    try:
        task = load_task(name, study.data or None)
        if backbone is not None:
            task = for_backbone(task, backbone.kind)
        counts = {split: _count(task, split, most) for split, most in limits.items()}
        first = list(islice(_first(task, "train"), LOOK_ROWS))
        if not first or not list(islice(_first(task, "validation"), 1)):
            raise SoftpromptError(f"its first rows make no example; it comes from {_origin(task)}.")
    except SoftpromptError as error:
        told = str(error)
        return TaskLook(task=name, problem=told if f"'{name}'" in told else f"task {name!r}: {told}")
    inputs, targets = _lengths(study, task, first, backbone)
    return TaskLook(
        task=name, train_rows=counts["train"], validation_rows=counts["validation"], input_tokens=inputs,
        target_tokens=targets,
    )  # fmt: skip


def _count(task: Task, split: str, most: int | None) -> int | None:
    """Rows of a split that a study uses: counted where they lie on this machine, as published on the hub."""
    from softprompt.tasks.show import published_sizes

    if task.streamed:
        return most or task.stream_rows.get(split)
    if isinstance(task.source, HubSource):
        known = (published_sizes(task.name) or {}).get(split)
        return min(known, most) if known and most else known or most
    return len(task.split(split, max_rows=most))


def _first(task: Task, split: str) -> Iterator[Example]:
    """The first examples of a split; of the hub's without a download of the whole."""
    source = task.source
    if isinstance(source, HubSource):
        source = replace(source, streamed=True)
    for row in islice(source.rows(split, BadRows(task.skip_bad)), 2 * LOOK_ROWS):
        for k, formed in enumerate(task.form(row)):
            yield task.example(split, row.line, k, formed)


def _origin(task: Task) -> str:
    found = task.source.describe()
    return str(found.get("repo") or found.get("folder") or found.get("kind"))


def _lengths(
    study: Study, task: Task, examples: Sequence[Example], backbone: Backbone | None
) -> tuple[float | None, float | None]:
    if backbone is None:
        return None, None
    settings = study.target if task.name in study.targets else study.source
    most = settings.max_input_tokens or None
    if task.drawn_prefix:  # half of a chunk on either side, on average
        texts = [f"{e.inputs} {e.targets}" for e in examples]
        half = float(np.mean([len(ids) for ids in backbone.tokenize_inputs(texts, most)])) / 2
        return half, half
    inputs = backbone.tokenize_inputs([e.inputs for e in examples], most)
    targets = backbone.tokenize_targets([e.targets for e in examples], task.target_room(settings.max_target_tokens))
    return float(np.mean([len(ids) for ids in inputs])), float(np.mean([len(ids) for ids in targets]))
