"""Which label was taken for which, and precision, recall and F1 of each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from softprompt.errors import UsageError
from softprompt.tasks.example import Example
from softprompt.tasks.metrics import Canonical, canonical_labels, class_index
from softprompt.tasks.rows import UNKNOWN_TARGET
from softprompt.tasks.task import Task

OTHER = "(other)"
"""The column of answers that are no label."""


@dataclass(frozen=True, kw_only=True)
class LabelFigures:
    """How one label was answered.

    Attributes:
        label: its name.
        rows: rows whose label it is.
        precision: of the rows answered so, the share that is right, percent; None where no row was answered so.
        recall: of the rows whose label it is, the share that was answered so, percent; None where there is no such row.
        f1: harmonic mean of the two, percent; 0 where no answer is right, None where neither of them is there.
    """

    label: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Answers against labels.

    Attributes:
        labels: names of the rows of ``matrix``, the task's labels in index order.
        answers: names of its columns: the labels, and `OTHER` where some answer is none of them.
        matrix: counts; row i, column j: rows of label i that were answered j.
        per_label: one a label.
    """

    labels: tuple[str, ...]
    answers: tuple[str, ...]
    matrix: list[list[int]]
    per_label: tuple[LabelFigures, ...]


def confusion(
    task: Task, predictions: Sequence[str], examples: Sequence[Example], canonical: Canonical | None = None
) -> Confusion:
    """Count answers by label; rows without a gold label are left out.

    Args:
        task: with labels.
        predictions: one text a row, as `evaluate` gives them.
        examples: the rows.
        canonical: as in `Task.score`.

    Raises:
        UsageError: the task has no labels, or no row has one.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if not task.labels:
        raise UsageError(f"task {task.name!r} answers in free text: a confusion needs labels.")
    same = lru_cache(maxsize=None)(lambda text: (canonical(text) if canonical else text).strip())
    words = canonical_labels(task.labels, same)
    pairs = [
        (class_index(same(example.targets), words), class_index(text.strip(), words))
        for text, example in zip(predictions, examples, strict=True)
        if example.targets != UNKNOWN_TARGET
    ]
    if not pairs:
        raise UsageError(f"none of the {len(examples)} rows of task {task.name!r} has a gold label.")
    count = len(words)
    gold = [pair[0] for pair in pairs]
    given = [pair[1] if pair[1] >= 0 else count for pair in pairs]
    names = task.wording.labels if task.wording is not None and task.wording.labels else task.labels
    numbers = [*range(count), *([count] if count in given else [])]
    matrix = confusion_matrix(gold, given, labels=numbers)[:count].tolist()
    shares = precision_recall_fscore_support(gold, given, labels=list(range(count)), zero_division=float("nan"))
    return Confusion(
        labels=tuple(names),
        answers=(*names, *((OTHER,) if count in given else ())),
        matrix=matrix,
        per_label=tuple(
            LabelFigures(label=name, rows=int(rows), precision=_percent(p), recall=_percent(r), f1=_percent(f))
            for name, p, r, f, rows in zip(names, *shares, strict=True)
        ),
    )


def _percent(share: float) -> float | None:
    return None if share != share else 100.0 * float(share)
