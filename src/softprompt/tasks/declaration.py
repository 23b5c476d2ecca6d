"""What is declared of the tasks of the papers: where their rows lie, their text form, labels, metrics, licence.

``catalog.toml`` says it, a table a task.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompt.tasks import preprocessors
from softprompt.tasks.rows import Formed


def _frozen(value: Any) -> Any:
    """Plain data with tuples for its lists."""
    if isinstance(value, list):
        return tuple(_frozen(part) for part in value)
    return {name: _frozen(part) for name, part in value.items()} if isinstance(value, dict) else value


FILE: Mapping[str, Any] = _frozen(tomllib.loads((Path(__file__).parent / "catalog.toml").read_text(encoding="utf-8")))
PINS: Mapping[str, str] = FILE["commits"]
"""Commits of ``main`` that are known to be parquet, by repository."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which rows of a shared source belong to a task, by the text of one column; rows without it do.

    Attributes:
        column: that tells.
        equals: what it must be; anything where empty.
        unlike: what it must not be.
        starts: what it must start with.
    """

    column: str
    equals: str = ""
    unlike: str | None = None
    starts: str = ""

    def __call__(self, row: Mapping[str, Any]) -> bool:
        if row.get(self.column) is None:
            return True
        value = str(row[self.column])
        return value != self.unlike and value.startswith(self.starts) and self.equals in ("", value)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A task as declared.

    Attributes:
        name: of the task, and of its folder where ``folder`` is not given.
        category: family of tasks.
        form: a function of `softprompt.tasks.preprocessors`.
        settings: its keyword settings, without ``prefix`` and ``labels``.
        labels: label words by index; given to the form where ``takes_labels``.
        metrics: names whose mean is the score.
        hub: repository, configuration and branch; None where the data is not on the hub as parquet.
        splits: hub splits that stand for ours, where names differ or a split is missing.
        rename: hub or file column -> column of the form.
        keep: which rows of the source belong to the task; all where None.
        folder: of local files.
        prefix: what the prefix switch puts in front; the task's name where None, nothing where empty.
        tag: column naming the hub split a row came from.
        id_column: column whose values must be unique.
        size: (train, validation) rows as published, None where not stated.
        streamed: too large to read whole.
        stream_rows: rows of each split that are read where none were asked for.
        target_tokens: longest target where a training's settings leave it to the task.
        stream_rows: rows of each split that are read where none were asked for.
        target_tokens: longest target where a training's settings leave it to the task.
        takes_labels: whether the form wants ``labels``.
        remedy: how to get data that is not on the hub.
    """

    name: str
    category: str
    form: Callable[..., Sequence[Formed]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    hub: tuple[str, str | None, str] | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    keep: Keep | None = None
    folder: str | None = None
    prefix: str | None = None
    tag: str = ""
    id_column: str | None = None
    size: tuple[int | None, int | None] = (None, None)
    streamed: bool = False
    stream_rows: Mapping[str, int] = field(default_factory=dict)
    target_tokens: int = 64
    takes_labels: bool = True
    licence: str = "research use, see the data set"
    note: str = ""
    remedy: str = ""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns its inputs are made of, in order."""
        given, name = self.settings, self.form.__name__
        if name == "choices":
            options = given["options"]
            return (*given["texts"], *((options,) if isinstance(options, str) else options))
        if name == "question_answer":
            return (given.get("question", "question"), given.get("context", "context"))
        if name in ("fields", "similarity"):
            return tuple(given["columns"])
        return _COLUMNS.get(name) or (str(given.get("source" if name == "generate" else "column", "text")),)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The label words where an answer is one of them; None where it joins several (GoEmotions) or is free text."""
        return None if self.form.__name__ == "tag_words" else self.labels

    @property
    def label_column(self) -> str | None:
        """The column of the answer; None where the inputs hold it."""
        given, name = self.settings, self.form.__name__
        key, usual = _ANSWERS[name]
        column: str | None = given.get(key, usual)
        return column


_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "multirc": ("question", "answer", "paragraph"),
    "wsc": ("text", "span2_text", "span2_index", "span1_text"),
    "record": ("query", "entities", "passage"),
    "translate": ("translation",),
}
"""Form -> its input columns, where its settings do not name them."""

_ANSWERS: Mapping[str, tuple[str, str | None]] = {
    "fields": ("label", "label"),
    "multirc": ("label", "label"),
    "similarity": ("label", "label"),
    "wsc": ("label", "label"),
    "record": ("label", "answers"),
    "prefix_lm": ("label", None),
    "question_answer": ("answers", "answers"),
    "choices": ("answer", "label"),
    "translate": ("label", None),
    "generate": ("target", None),
    "tag_words": ("label", "labels"),
}
"""Form -> the setting that names the answer's column, and the column where it is not set."""


def _declared(name: str, told: Mapping[str, Any]) -> Declared:
    fields = {key: value for key, value in told.items() if key not in ("natural", "form", "keep", "hub", "size")}
    if "keep" in told:
        fields["keep"] = Keep(**told["keep"])
    if "hub" in told:
        repo, config, branch = told["hub"]
        fields["hub"] = (repo, config or None, branch)
    if "size" in told:
        fields["size"] = tuple(rows or None for rows in told["size"])
    return Declared(name=name, form=getattr(preprocessors, told["form"]), **fields)


DECLARED: tuple[Declared, ...] = tuple(_declared(name, told) for name, told in FILE["tasks"].items())
