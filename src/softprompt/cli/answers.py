"""What `softprompt eval` says of single rows: every answer beside its row, and which label was taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.cli import opening
from softprompt.cli.output import table
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.inference.evaluate import EvalJob, Evaluation
    from softprompt.tasks.task import Task

ADDED = ("key", "prompt", "prediction", "target")


def check(tasks: Sequence[Task], split: str, predictions: Path | None, confusion: bool) -> None:
    """Say before anything is loaded what cannot be written or counted.

    Raises:
        UsageError: a name of another format, a task's own file, columns that would be overwritten, or no task with labels
            for a confusion.
    """
    if confusion and not any(task.labels for task in tasks):
        raise UsageError("--confusion needs a task with labels: these answer in free text or with scores.")
    if predictions is not None:
        sources = [task.source.describe() for task in tasks]
        read = [Path(source["folder"]) / file for source in sources for file in source.get("files", {}).values()]
        for task in tasks:
            _own_columns(task, split)
        opening.check_file(predictions, read)


def write(path: Path, rows: Sequence[Mapping[str, Any]], jobs: Sequence[EvalJob], found: Sequence[Evaluation]) -> None:
    """Write every row with its own columns, and ``key``, ``prompt``, ``prediction`` and ``target`` behind them."""
    from softprompt.tasks.writers import write_rows

    written: list[dict[str, Any]] = []
    for row, job, evaluation in zip(rows, jobs, found, strict=True):
        own = _own_columns(job.task, str(row["split"]))
        for example, prediction in zip(job.split.examples, evaluation.predictions, strict=True):
            columns = own.get(int(example.key.rsplit("/", 1)[1].partition(".")[0]), {})
            target = {} if "target" in columns else {"target": example.targets}
            added = {"key": example.key, "prompt": row["prompt"], "prediction": prediction, **target}
            written.append({**columns, **added})
    write_rows(path, written)


def _own_columns(task: Task, split: str) -> dict[int, Mapping[str, Any]]:
    """The columns of a split's rows by line; of a task that is streamed none, since it is not read twice.

    Raises:
        UsageError: a column has one of the names in `ADDED`; the column of the label may be called ``target``.
    """
    from softprompt.tasks.rows import BadRows

    if task.streamed:
        return {}
    label = task.wording.label_column if task.wording is not None else None
    own = {row.line: row.values for row in task.source.rows(split, BadRows(task.skip_bad))}
    names = {name for values in own.values() for name in values} - {label if label == "target" else ""}
    taken = sorted(names & set(ADDED))
    if taken:
        raise UsageError(
            f"--predictions adds the columns {', '.join(ADDED)}, and the rows of {task.name} have {', '.join(taken)} "
            "already: rename it in the file."
        )
    return own


def confusions(
    rows: Sequence[Mapping[str, Any]], jobs: Sequence[EvalJob], found: Sequence[Evaluation], backbone: Backbone
) -> list[dict[str, Any]]:
    """For each result with labels: task, prompt and its `Confusion`."""
    from softprompt.inference.evaluate import canonical_text
    from softprompt.tasks.confusion import confusion

    canonical = canonical_text(backbone)
    return [
        {"task": row["task"], "prompt": row["prompt"],
         "confusion": confusion(job.task, evaluation.predictions, job.split.examples, canonical)}
        for row, job, evaluation in zip(rows, jobs, found, strict=True) if job.task.labels
    ]  # fmt: skip


def shown(found: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Two tables a result: labels down and answers across; precision, recall and F1 of each label in percent."""
    parts = []
    for one in found:
        what = one["task"] if one["prompt"] is None else f"{one['task']}, {one['prompt']}"
        made = one["confusion"]
        counts = [[label, *row] for label, row in zip(made.labels, made.matrix, strict=True)]
        parts.append(table(["label \\ answer", *made.answers], counts, title=f"{what}: rows by label and answer"))
        figures = [[f.label, f.rows, f.precision, f.recall, f.f1] for f in made.per_label]
        parts.append(table(["label", "rows", "precision", "recall", "F1"], figures))
    return parts
