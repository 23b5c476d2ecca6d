"""Splits: fingerprints, draws, bad rows, few-shot sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.preprocessors import fields
from softprompt.tasks.rows import Formed, Row
from softprompt.tasks.sources import FileSource, MemorySource
from softprompt.tasks.task import Task, few_shot

ROWS = [{"text": f"row {i}", "label": i % 2, "idx": i} for i in range(40)]


def form(row: Row) -> list[Formed]:
    return fields(row, prefix="t", columns=("text",), labels=("no", "yes"))


def task(rows: list[dict[str, Any]] = ROWS, **more: Any) -> Task:
    source = MemorySource(splits={"train": rows, "validation": rows[:4]})
    settings: dict[str, Any] = {"labels": ("no", "yes"), "metrics": ("accuracy",), **more}
    return Task(name="t", category="c", source=source, form=form, **settings)


def test_examples_carry_a_stable_key_and_trimmed_texts() -> None:
    split = task([{"text": " a ", "label": 1}]).split("train")
    [one] = split.examples
    assert (one.key, one.inputs, one.targets) == ("t/train/1", "t text:  a", "yes")


def test_the_fingerprint_is_of_the_content_alone() -> None:
    first, again = task().split("train"), task().split("train")
    assert first.fingerprint == again.fingerprint
    assert len(first.fingerprint) == 64
    changed = [*ROWS[:-1], {**ROWS[-1], "text": "row 39."}]
    assert task(changed).split("train").fingerprint != first.fingerprint
    swapped = [ROWS[1], ROWS[0], *ROWS[2:]]
    assert task(swapped).split("train").fingerprint != first.fingerprint
    moved = Task(**{f: getattr(task(), f) for f in Task.__dataclass_fields__} | {"name": "other"})
    assert moved.split("train").fingerprint == first.fingerprint


def test_a_draw_is_seeded_nested_and_in_order() -> None:
    small, large = task().split("train", max_rows=5, seed=3), task().split("train", max_rows=20, seed=3)
    assert len(small) == 5
    assert {e.key for e in small.examples} <= {e.key for e in large.examples}
    lines = [int(e.key.split("/")[2]) for e in large.examples]
    assert lines == sorted(lines)
    assert task().split("train", max_rows=5, seed=3).fingerprint == small.fingerprint
    assert task().split("train", max_rows=5, seed=4).fingerprint != small.fingerprint
    assert len(task().split("train", max_rows=1000)) == 40


def test_unknown_split_and_bad_counts() -> None:
    with pytest.raises(UnknownNameError, match="did you mean validation"):
        task().split("valid")
    with pytest.raises(UsageError, match="at least 1 row"):
        task().split("train", max_rows=0)


def test_duplicate_ids_name_both_lines() -> None:
    rows = [*ROWS[:3], {"text": "again", "label": 0, "idx": 1}]
    with pytest.raises(
        DataError, match=r"memory, split train, line 4: idx 1 is already that of line 2; make ids unique"
    ):
        task(rows, id_column="idx").split("train")
    assert len(task(rows).split("train")) == 4
    skipped = task(rows, id_column="idx", skip_bad=1).split("train")
    assert (len(skipped), skipped.skipped) == (3, 1)


def test_bad_rows_raise_or_are_counted() -> None:
    rows = [*ROWS[:3], {"text": "x", "label": 7}, {"text": None, "label": 1}]
    with pytest.raises(DataError, match="line 4: label 7"):
        task(rows).split("train")
    split = task(rows).with_skip_bad(2).split("train")
    assert (len(split), split.skipped) == (3, 2)
    with pytest.raises(DataError, match=r"line 5: .*More than the 1 bad rows"):
        task(rows).with_skip_bad(1).split("train")


def test_a_bad_line_and_a_bad_label_share_one_budget(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 1}\nnot json\n{"text": "b", "label": 5}\n')
    made = Task(
        name="t",
        category="c",
        labels=("no", "yes"),
        metrics=("accuracy",),
        source=FileSource(folder=tmp_path),
        form=form,
    )
    with pytest.raises(DataError, match="line 2"):
        made.split("train")
    with pytest.raises(DataError, match="line 3"):
        made.with_skip_bad(1).split("train")
    assert made.with_skip_bad(2).split("train").skipped == 2


def test_a_split_with_nothing_usable() -> None:
    with pytest.raises(DataError, match="no usable rows"):
        task([{"text": "x", "label": 9}]).with_skip_bad(3).split("train")


def test_a_streamed_task_reads_only_what_is_asked_for() -> None:
    read: list[int] = []

    def endless() -> Any:
        for i in range(10**9):
            read.append(i)
            yield {"text": str(i), "label": 0}

    source = MemorySource(splits={"train": endless})
    made = Task(
        name="t", category="c", labels=("no", "yes"), metrics=("accuracy",), source=source, form=form, streamed=True
    )
    assert [e.inputs for e in made.split("train", max_rows=3).examples] == ["t text: 0", "t text: 1", "t text: 2"]
    assert len(read) == 3
    with pytest.raises(UsageError, match="is streamed; say how many rows"):
        made.split("train")


def test_few_shot_takes_as_many_of_each_label() -> None:
    split = task().split("train")
    few = few_shot(split, 3, seed=1)
    assert [e.targets for e in few.examples].count("no") == 3
    assert len(few) == 6
    assert few.fingerprint == few_shot(split, 3, seed=1).fingerprint
    assert few.fingerprint != few_shot(split, 3, seed=2).fingerprint
    with pytest.raises(UsageError, match="21 examples of label 0 were asked for, 20 are there"):
        few_shot(split, 21)
    with pytest.raises(UsageError, match="at least 1"):
        few_shot(split, 0)


def test_score_through_the_task() -> None:
    split = task().split("validation")
    assert task().score(["no", "yes", "no", "no"], split.examples) == {"accuracy": 75.0, "score": 75.0}
