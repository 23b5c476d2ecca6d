"""Built-in tasks with known kinship, for the quickstart, the tests and the tutorials; docs/builtin-tasks.md.

Their rows are data files (``rows/NAME.jsonl.xz``: training rows first, then 500 of validation), and ``tasks.json`` says what
each task is and which are kin. ``recipes/generated_tasks`` made them and makes them again, row for row.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from softprompt.tasks import preprocessors as form
from softprompt.tasks.rows import Form

FOLDER = Path(__file__).parent
VALIDATION_ROWS = 500

_FILE: Mapping[str, Any] = json.loads((FOLDER / "tasks.json").read_text(encoding="utf-8"))
#: Name -> kind, columns, train_rows, labels and instruction.
TASKS: Mapping[str, Mapping[str, Any]] = _FILE["tasks"]

#: Tasks that need one skill, by its name. Two tasks are kin where a family holds both.
FAMILIES: Mapping[str, Sequence[str]] = _FILE["families"]
#: Task -> its kin, itself left out. Written before any ranking by prompts was measured against it.
KINSHIP: Mapping[str, frozenset[str]] = {
    name: frozenset(members) - {name} for members in FAMILIES.values() for name in members
}
#: High-resource tasks whose prompts make a library. Some are decoys for a target: they share its words, not its skill.
DEMO_SOURCES: tuple[str, ...] = tuple(_FILE["sources"])
#: Low-resource tasks to transfer to; each has kin among the sources.
DEMO_TARGETS: tuple[str, ...] = tuple(_FILE["targets"])
#: Target -> the source that shares most of its words without being kin.
DECOYS: Mapping[str, str] = _FILE["decoys"]


@cache
def rows_of(name: str) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """The rows of a task's splits, ``train`` and ``validation``: its columns' texts, and the answer as ``label``."""
    lines = lzma.decompress((FOLDER / "rows" / f"{name}.jsonl.xz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    return {"train": rows[:-VALIDATION_ROWS], "validation": rows[-VALIDATION_ROWS:]}


def form_of(name: str) -> Form:
    """How a task's rows become text: the form of its GLUE or SuperGLUE relatives."""
    told = TASKS[name]
    if told["kind"] == "similarity":
        return partial(form.similarity, prefix=name, columns=tuple(told["columns"]))
    if told["kind"] == "answer":
        return partial(form.question_answer, prefix=name, answers="label")
    return partial(form.fields, prefix=name, columns=tuple(told["columns"]), labels=tuple(told["labels"]))
