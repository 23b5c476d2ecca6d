"""Tasks of a table: rows with columns, of a file, a folder, the hub or memory, about which little or nothing else is said.

Everything here gives the fields of a `softprompt.tasks.task.Task`, so that `Task.from_rows` can use it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.columns import ID_COLUMNS, METRICS_OF, Asked, Columns, as_names, find_columns, formed
from softprompt.tasks.memory import class_names, rows_by_split
from softprompt.tasks.metrics import METRICS
from softprompt.tasks.natural import generic
from softprompt.tasks.rows import BadRows, Form, Formed, Row, RowSource
from softprompt.tasks.sources import FileSource, MemorySource
from softprompt.tasks.template import column_of, escaped, places, worded
from softprompt.tasks.wording import Worded, Wording

HELD_OUT_NOTE = "No validation rows: a fifth of the rows, drawn by their inputs, stands in and is not trained on."


def fields_of_rows(
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    validation: Any = None,
    name: str = "rows",
    kind: str | None = None,
    labels: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Fields of a `Task` of rows in memory; see `Task.from_rows`."""
    splits = rows_by_split(data, validation)
    source = MemorySource(splits=splits, what=name)
    words = tuple(labels) if labels is not None else class_names(data, label)
    template = text if isinstance(text, str) and "{" in text and text not in (splits["train"][:1] or [{}])[0] else None
    read = () if template is not None else as_names(text)
    if template is not None:
        read = tuple(dict.fromkeys(column_of(place) for place in places(template)))
    asked = Asked(text=read, label=label, labels=words, kind=kind)
    return fields_of_table(name, source, asked, template=template)


def task_fields(
    name: str,
    form: Form,
    source: RowSource,
    *,
    labels: Sequence[str] | None,
    metrics: Sequence[str] | None = None,
    category: str = "user",
    licence: str = "unstated",
    note: str = "",
    id_column: str | None = None,
    wording: Wording | None = None,
    wordings: Mapping[str, Worded] | None = None,
) -> dict[str, Any]:
    """Fields of a `Task` of the user's, checked.

    Raises:
        UsageError: the name is not safe, or labels repeat.
        UnknownNameError: there is no such metric.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"task name {name!r} should be letters, digits, '.', '_' and '-'; choose another name.")
    if labels is not None and len(set(labels)) != len(labels):
        raise UsageError(f"labels of task {name!r} repeat: {', '.join(labels)}; name each once.")
    for metric in metrics or ():
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
    return {
        "name": name,
        "category": category,
        "labels": tuple(labels) if labels is not None else None,
        "metrics": tuple(metrics or (("accuracy",) if labels is not None else ("exact_text",))),
        "source": source,
        "form": form,
        "licence": licence,
        "note": note,
        "id_column": id_column,
        "wording": wording,
        "wordings": wordings or {},
    }


@dataclass(frozen=True, kw_only=True)
class HeldOutSource:
    """Training rows as training and validation: rows are held out by what is read of them, so equal inputs stay on one side.

    Attributes:
        source: gives all rows as its training split.
        inputs: what is read of a row.
        share: one input in this many is held out.
    """

    source: RowSource
    inputs: Callable[[Row], str]
    share: int = 5

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        if split == "test":
            raise DataError("there is one file of rows and no test split; use validation.")
        waiting: list[tuple[int, Row]] = []  # until there are rows for both sides: a file of a few keeps one on each
        sides: set[bool] = set()
        for row in self.source.rows("train", bad):
            key = self._key(row)
            sides.add(key % self.share == 0)
            waiting.append((key, row))
            if len(sides) == 2:
                yield from self._of(split, waiting)
                waiting.clear()
        keys = {key for key, _ in waiting}
        if sides == {True}:
            yield from self._of(split, waiting, but=max(keys))
        elif len(sides) == 1:
            yield from self._of(split, waiting, but=min(keys) if len(keys) > 1 else None)

    def _of(self, split: str, rows: Sequence[tuple[int, Row]], but: int | None = None) -> Iterator[Row]:
        """Those of a split, by their keys; the rows of the key ``but`` go to the other side."""
        for key, row in rows:
            held_out = (key % self.share == 0) != (key == but)
            if held_out == (split != "train"):
                yield Row(values=row.values, line=row.line, where=row.where, train=split == "train")

    def _key(self, row: Row) -> int:
        try:
            content = " ".join(self.inputs(row).split())
        except DataError:  # a bad row: told where it is used
            content = json.dumps(dict(row.values), sort_keys=True, default=str)
        return int.from_bytes(hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[:8], "little")

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "held_out": f"1 in {self.share}"}

    def state(self, split: str) -> None:
        """What is held out follows from the inputs, which a user's code may make."""


def _check_names(columns: Sequence[str]) -> None:
    """Raises DataError where a column has a name that no template can hold."""
    for column in columns:
        try:
            named = places(f"{{{column}}}")
        except UsageError:
            named = ()
        if named != (column,):
            raise DataError(
                f"column {column!r} has a sign in its name that means something to templates: rename it (letters, digits, "
                "blanks and _ are safe), or say which columns to read with --text-column."
            )


def fields_of_table(
    name: str, source: RowSource, asked: Asked, *, template: str | None = None, note: str = "", **more: Any
) -> dict[str, Any]:
    """Fields of a `Task` of columns alone: those of the inputs, and one of the answer (`softprompt.tasks.columns`).

    Where there are no validation rows, a fifth of the training rows is held out.

    Args:
        name: of the task.
        source: of its rows.
        asked: what the user says of the columns.
        template: of the inputs; ``column: text`` for every column where None.
        note: what a user should know.
        more: further arguments of `Task`.
    """
    found = find_columns(source.rows("train", BadRows()), asked)
    if template is None:
        _check_names(found.inputs)
    labels = found.labels if found.kind == "classification" else None
    said: dict[str, Any] = {
        "task": name,
        "form": "template",
        "columns": found.inputs,
        "label_column": found.label,
        "labels": labels,
        "metrics": METRICS_OF[found.kind],
    }
    plain = template or " ".join(f"{escaped(column)}: {{{column}}}" for column in found.inputs)
    wordings = {
        form: Worded(form=partial(_columns, template=text, columns=found), wording=wording, labels=labels)
        for form, text in (("t5", plain), ("natural", template or generic(found.inputs, found.label)))
        for wording in [Wording(template=text, **said)]
    }
    held_out = not has_split(source, "validation")
    if held_out:
        source = HeldOutSource(source=source, inputs=partial(_read, template=plain))
    fields = source.describe().get("fields")
    several = f"Several labels a row: {', '.join(found.labels or ())}." if found.kind == "multi_label" else ""
    apart = f"The fields are {fields}." if fields else ""
    notes = [note, apart, several, found.note, HELD_OUT_NOTE if held_out else ""]
    ids = [c for c in found.left_out if c.lower() in ID_COLUMNS]
    return task_fields(
        name,
        wordings["t5"].form,
        source,
        labels=labels,
        metrics=METRICS_OF[found.kind],
        note=" ".join(part.strip() for part in notes if part),
        id_column=ids[0] if ids else None,
        wording=wordings["t5"].wording,
        wordings=wordings,
        **more,
    )


def has_split(source: RowSource, split: str) -> bool:
    """Whether a source has a split, told without reading it; the hub is taken to have it."""
    if isinstance(source, FileSource):
        return source.find(split) is not None
    return split in source.splits if isinstance(source, MemorySource) else True


def _read(row: Row, *, template: str) -> str:
    return worded(template, row)


def _columns(row: Row, *, template: str, columns: Columns) -> list[Formed]:
    return formed(row, worded(template, row), columns)
