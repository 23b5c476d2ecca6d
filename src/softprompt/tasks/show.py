"""What `softprompt tasks show` and `tasks ls` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softprompt.errors import DataError
from softprompt.tasks.catalog import generated, task_names
from softprompt.tasks.forms import DECLARATIONS
from softprompt.tasks.mixture import MIXTURES
from softprompt.tasks.rows import BadRows
from softprompt.tasks.task import Task


def describe(task: Task, split: str = "validation") -> dict[str, Any]:
    """A task in plain values: source, licence, sizes, one raw row, its inputs and targets, its metrics.

    Args:
        split: where the example is taken from.

    Raises:
        DataError: where the split cannot be read.
    """
    if task.streamed:
        data = task.split(split, max_rows=1)
        rows: dict[str, int | None] = {split: None}
    else:
        data = task.split(split)
        rows = {split: len(data)}
    example = data.examples[0]
    line = int(example.key.rsplit("/", 1)[1].split(".")[0])
    raw = next(row.values for row in task.source.rows(split, BadRows(task.skip_bad)) if row.line == line)
    return {
        "task": task.name,
        "category": task.category,
        "source": task.source.describe(),
        "licence": task.licence,
        "note": task.note,
        "labels": list(task.labels) if task.labels is not None else None,
        "metrics": list(task.metrics),
        "published_sizes": published_sizes(task.name),
        "rows": {**_other_sizes(task, split), **rows},
        "fingerprint": {split: data.fingerprint},
        "skipped": data.skipped,
        "split": split,
        "raw": dict(raw),
        "columns": list(task.wording.columns) if task.wording is not None else [],
        "label_column": task.wording.label_column if task.wording is not None else None,
        "instruction": task.description,
        "inputs": example.inputs,
        "targets": example.targets,
        "natural": _natural(task, split, example.key),
    }


def _natural(task: Task, split: str, key: str) -> dict[str, str] | None:
    """The same row in natural language; None for tasks with one wording alone."""
    if "natural" not in task.wordings:
        return None
    other = task.worded("natural").split(split, max_rows=1 if task.streamed else None)
    return next(({"inputs": e.inputs, "targets": e.targets} for e in other.examples if e.key == key), None)


def _other_sizes(task: Task, split: str) -> dict[str, int | None]:
    """Examples of the other splits, where reading them is no download."""
    sizes: dict[str, int | None] = {}
    if task.streamed or task.source.describe().get("kind") == "hub":
        return sizes
    for name in ("train", "validation"):
        if name != split:
            try:
                sizes[name] = len(task.split(name))
            except DataError:
                sizes[name] = None
    return sizes


def published_sizes(name: str) -> dict[str, int | None] | None:
    """Rows of train and validation as published; None where the task is not of the catalog."""
    declared = DECLARATIONS.get(name)
    return None if declared is None else {"train": declared.size[0], "validation": declared.size[1]}


def list_tasks() -> list[dict[str, Any]]:
    """One row per task for `tasks ls`, without reading any data."""
    made: Mapping[str, Any] = generated()
    rows: list[dict[str, Any]] = []
    for name in task_names():
        declared = DECLARATIONS.get(name)
        if declared is None:
            task = made[name]()
            rows.append({"task": name, "category": task.category, "metrics": list(task.metrics), "source": "built in"})
            continue
        hub = (
            f"{declared.hub[0]}" + (f" ({declared.hub[1]})" if declared.hub[1] else "")
            if declared.hub
            else "files only"
        )
        rows.append(
            {
                "task": name,
                "category": declared.category,
                "metrics": list(declared.metrics),
                "source": hub,
                "train": declared.size[0],
                "validation": declared.size[1],
                "licence": declared.licence,
            }
        )
    return rows


def list_mixtures() -> list[dict[str, Any]]:
    """One row per mixture."""
    return [{"mixture": m.name, "tasks": list(m.tasks), "limit": m.limit} for m in MIXTURES.values()]
