"""Counts and figures by label, against sums made by hand."""

from __future__ import annotations

import pytest

from softprompt.errors import UsageError
from softprompt.tasks.catalog import load_task
from softprompt.tasks.confusion import OTHER, confusion
from softprompt.tasks.example import Example
from softprompt.tasks.task import Task

ROWS = [{"text": f"film {i}", "label": "abc"[i % 3]} for i in range(12)]


def examples(*targets: str) -> list[Example]:
    return [Example(key=f"t/test/{i}", inputs="x", targets=target) for i, target in enumerate(targets)]


def test_counts_and_figures_of_each_label() -> None:
    task = Task.from_rows(ROWS, name="films")
    made = confusion(task, ["a", "b", "b", "nonsense", "a"], examples("a", "a", "b", "b", "<unk>"))
    assert made.labels == ("a", "b", "c")
    assert made.answers == ("a", "b", "c", OTHER)
    assert made.matrix == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    a, b, c = made.per_label
    assert (a.rows, a.precision, a.recall) == (2, 100.0, 50.0)
    assert a.f1 == pytest.approx(200 / 3)
    assert (b.rows, b.precision, b.recall, b.f1) == (2, 50.0, 50.0, 50.0)
    assert (c.rows, c.precision, c.recall) == (0, None, None)
    assert confusion(task, ["a"], examples("a")).answers == task.labels


def test_free_text_has_none() -> None:
    with pytest.raises(UsageError, match="free text"):
        confusion(load_task("gen_extraction_diary"), ["x"], examples("x"))
    with pytest.raises(UsageError, match="none of the 1 rows"):
        confusion(Task.from_rows(ROWS, name="films"), ["a"], examples("<unk>"))
