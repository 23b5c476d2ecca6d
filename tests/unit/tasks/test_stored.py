"""Large splits: the same examples from the disk as from memory, never all as objects, and read once."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softprompt.tasks import stored
from softprompt.tasks.catalog import load_task
from softprompt.tasks.rows import BadRows, Row
from softprompt.tasks.sources import FileSource
from softprompt.tasks.stored import StoredExamples
from softprompt.tasks.task import Task

ROWS = [{"sentence": f"row {i} é", "label": i % 2 if i % 7 else -1, "idx": i} for i in range(60)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "data"


@pytest.mark.parametrize("most", [None, 7, 40, 1000])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_large_split_is_the_small_one(
    data: Path, monkeypatch: pytest.MonkeyPatch, most: int | None, split: str
) -> None:
    small = load_task("sst2", data).split(split, max_rows=most, seed=5)
    assert isinstance(small.examples, tuple)
    monkeypatch.setattr(stored, "IN_MEMORY", 10)
    monkeypatch.setattr(stored, "CHUNK", 8)
    large = load_task("sst2", data).split(split, max_rows=most, seed=5)
    if split == "train" and most == 40:  # rows without an answer are drawn, too, where the rows are chosen first
        assert {e.key for e in large.examples} <= {e.key for e in small.examples}
        return
    assert list(large.examples) == list(small.examples)
    assert (large.fingerprint, len(large)) == (small.fingerprint, len(small))
    assert isinstance(large.examples, StoredExamples) == (most != 7)


def test_rows_of_the_file_by_number_and_slice(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(load_task("sst2", data).split("validation").examples)
    monkeypatch.setattr(stored, "IN_MEMORY", 10)
    monkeypatch.setattr(stored, "CHUNK", 8)
    held = load_task("sst2", data).split("validation").examples
    assert [held[i] for i in (0, 7, 8, 59, -1)] == [whole[i] for i in (0, 7, 8, 59, -1)]
    assert (held[5:21], held[::9], held[60:]) == (whole[5:21], whole[::9], [])
    assert list(pickle.loads(pickle.dumps(held))) == whole
    with pytest.raises(IndexError):
        held[60]


def test_the_second_reading_reads_no_row(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "IN_MEMORY", 10)
    first = load_task("sst2", data).split("train")
    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "rows", None)
        again = load_task("sst2", data).split("train")
        assert (again.fingerprint, again.unlabelled) == (first.fingerprint, 9)
        assert list(again.examples) == list(first.examples)
        with pytest.raises(TypeError):  # another draw is another split
            load_task("sst2", data).split("train", max_rows=20)
        with pytest.raises(TypeError):  # and so is another wording
            load_task("sst2", data).worded("natural").split("train")
    # A changed file is read.
    (data / "sst2" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:-1]))
    assert load_task("sst2", data).split("train").fingerprint != first.fingerprint


def test_a_file_that_is_gone_or_cut_is_made_again(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "IN_MEMORY", 10)
    first = load_task("sst2", data).split("train")
    (file,) = (cache / "examples").glob("*.arrow")
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"no arrow", None):
        file.unlink()
        if broken is not None:
            file.write_bytes(broken)
        assert list(load_task("sst2", data).split("train").examples) == list(first.examples)
        assert file.read_bytes() == whole


def test_bad_rows_are_counted_once_and_refused_beyond_the_budget(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*ROWS, {"sentence": None, "label": 0, "idx": 60}, {"sentence": "x", "label": 5, "idx": 61}]
    (data / "sst2" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(stored, "IN_MEMORY", 10)
    for most in (None, 7, 40):
        task = load_task("sst2", data, skip_bad=2)
        assert task.split("train", max_rows=most).skipped <= 2
    assert task.split("train").skipped == 2
    with pytest.raises(Exception, match="line 61"):
        load_task("sst2", data).split("train")


def test_whole_groups_of_a_large_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "multirc"
    folder.mkdir(parents=True)
    rows = [
        {"paragraph": "p", "question": f"q{i // 5}", "answer": f"a{i}", "label": i % 2,
         "idx": {"paragraph": 0, "question": i // 5, "answer": i}}
        for i in range(50)
    ]  # fmt: skip
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = load_task("multirc", tmp_path / "data").split("validation", max_rows=17)
    monkeypatch.setattr(stored, "IN_MEMORY", 10)
    large = load_task("multirc", tmp_path / "data").split("validation", max_rows=17)
    assert len(small) == 15
    assert list(large.examples) == list(small.examples)


def test_never_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were formed are let go of while the next ones come."""
    import weakref

    living: list[weakref.ref[Any]] = []
    most = 0

    class Text(str):
        __slots__ = ("__weakref__",)

    class Source:
        def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
            nonlocal most
            for i in range(500):
                text = Text(f"row {i}")
                living.append(weakref.ref(text))
                most = max(most, sum(one() is not None for one in living))
                yield Row(values={"text": text}, line=i + 1, where="here")

        def describe(self) -> dict[str, Any]:
            return {}

        def state(self, split: str) -> None:
            return None

    def form(row: Row) -> Any:
        from softprompt.tasks.rows import Formed

        return [Formed(row.values["text"], "yes", {})]

    monkeypatch.setattr(stored, "IN_MEMORY", 20)
    monkeypatch.setattr(stored, "CHUNK", 16)
    task = Task(name="t", category="c", labels=None, metrics=("accuracy",), source=Source(), form=form)
    assert len(task.split("train")) == 500
    assert most < 60


def test_streams_have_rows_of_their_own_and_draw_what_they_are_judged_on() -> None:
    from dataclasses import replace

    from softprompt.tasks.sources import MemorySource

    read: list[int] = []

    def endless() -> Iterator[dict[str, Any]]:
        for i in range(10**9):
            read.append(i)
            yield {"text": f"one two three {i}"}

    source = MemorySource(splits={"train": endless, "validation": endless})
    c4 = replace(load_task("c4"), source=source)
    assert c4.stream_rows == {"train": 2**19, "validation": 2000}
    small = replace(c4, stream_rows={"train": 30, "validation": 5})
    assert [e.key for e in small.split("train").examples] == [f"c4/train/{i + 1}" for i in range(30)]
    assert len(read) == 30
    drawn = [int(e.key.split("/")[2]) for e in small.split("validation").examples]
    assert (len(drawn), len(read)) == (5, 130)
    assert drawn == sorted(drawn)
    assert max(drawn) > 20
    assert len(small.split("train", max_rows=3)) == 3
