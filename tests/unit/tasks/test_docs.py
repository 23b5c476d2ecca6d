"""docs/tasks.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from softprompt.tasks.catalog import load_task
from softprompt.tasks.declaration import DECLARED
from softprompt.tasks.mixture import MIXTURES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "tasks.md").read_text("utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_table_has_every_task_with_its_metrics() -> None:
    rows = {cells[1]: cells for line in TEXT.splitlines() if len(cells := [c.strip() for c in line.split("|")]) == 8}
    for one in DECLARED:
        assert rows[one.name][6] == ", ".join(one.metrics)
        assert one.hub is None or one.hub[0] in rows[one.name][3]
        assert rows[one.name][4] == (f"{one.size[0]:,}" if one.size[0] else "-")


def test_every_mixture_is_named() -> None:
    assert all(re.search(rf"\b{name}\b", TEXT) for name in MIXTURES)


def test_the_examples_run(tmp_path: Path) -> None:
    rows = '{"question": "Q?", "answer": "A", "good": 1}\n{"question": "R?", "answer": "B", "good": 0}\n'
    (tmp_path / "train.jsonl").write_text(rows)
    (tmp_path / "validation.jsonl").write_text(rows)
    (tmp_path / "task.toml").write_text(block("toml"))
    (tmp_path / "mine.py").write_text(block("python"))
    one, other = load_task(str(tmp_path / "task.toml")), load_task(str(tmp_path / "mine.py"))
    assert one.split("train").examples[0].inputs == "question: Q? answer: A"
    assert one.split("train").fingerprint == other.split("train").fingerprint
