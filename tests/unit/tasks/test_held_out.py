"""A file without validation rows: what is held out of it, and that it is never held in memory whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from softprompt.tasks.rows import BadRows, Row
from softprompt.tasks.tables import HeldOutSource


class Counted:
    """Rows one by one; how many were given so far."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.given = texts, 0

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        self.given = 0
        for i, text in enumerate(self.texts):
            self.given += 1
            yield Row(values={"text": text}, line=i + 1, where="memory", train=True)

    def describe(self) -> dict[str, Any]:
        return {}

    def state(self, split: str) -> str | None:
        return None


def source_of(texts: list[str]) -> tuple[Counted, HeldOutSource]:
    counted = Counted(texts)
    return counted, HeldOutSource(source=counted, inputs=lambda row: str(row.values["text"]))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 40])
@pytest.mark.parametrize("distinct", [1, 2, 40])
def test_equal_inputs_stay_on_one_side_and_a_small_file_has_both(count: int, distinct: int) -> None:
    texts = [f"text {i % distinct}" for i in range(count)]
    _, source = source_of(texts)
    sides = {
        split: [str(row.values["text"]) for row in source.rows(split, BadRows())] for split in ("train", "validation")
    }
    assert sorted(sides["train"] + sides["validation"]) == sorted(texts)
    assert not set(sides["train"]) & set(sides["validation"])
    if len(set(texts)) > 1:
        assert sides["train"]
        assert sides["validation"]
    keys = {text: int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in texts}
    fifth = {text for text, key in keys.items() if key % 5 == 0}
    if 0 < len(fifth) < len(keys):
        assert set(sides["validation"]) == fifth


def test_rows_are_given_as_they_are_read() -> None:
    counted, source = source_of([f"text {i}" for i in range(1000)])
    rows = source.rows("train", BadRows())
    next(rows)
    assert counted.given < 20
