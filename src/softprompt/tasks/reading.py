"""From a task's rows to the examples of a split: all of them, a seeded draw, or the first of a stream."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Protocol

from softprompt.errors import DataError
from softprompt.tasks import stored
from softprompt.tasks.example import Example, Split
from softprompt.tasks.metrics import GROUPED
from softprompt.tasks.rows import UNKNOWN_TARGET, BadRows, Form, Formed, Row, RowSource

STREAM_SHARE = 20
"""Validation rows of a stream are drawn out of its first rows, this many for each that is wanted."""


class Readable(Protocol):
    """What is needed of a `softprompt.tasks.task.Task` to read it."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> RowSource: ...
    @property
    def form(self) -> Form: ...
    @property
    def metrics(self) -> tuple[str, ...]: ...
    @property
    def id_column(self) -> str | None: ...
    @property
    def skip_bad(self) -> int: ...
    @property
    def streamed(self) -> bool: ...
    @property
    def stream_rows(self) -> Mapping[str, int]: ...
    def example(self, split: str, line: int, k: int, formed: Formed) -> Example: ...
    def groups(self, examples: Sequence[Example]) -> list[str]: ...


def read_split(task: Readable, name: str, max_rows: int | None, seed: int) -> Split:
    """Read and form a split; see `Task.split`."""
    reader = _Reader(task, name, seed)
    if task.streamed:
        return reader.streamed(max_rows or task.stream_rows[name])
    rows = reader.checked_rows(reader.bad)
    first = list(islice(rows, stored.IN_MEMORY))
    if len(first) == stored.IN_MEMORY:
        return reader.large(chain(first, rows), max_rows)
    return reader.small(first, max_rows)


def draw_key(seed: int, identity: str) -> bytes:
    """The place of a row in a seeded draw: independent of library versions, and prefixes nest."""
    return hashlib.sha256(f"{seed}/{identity}".encode()).digest()


class _Reader:
    """One reading of one split.

    Args:
        task: whose rows they are.
        name: of the split.
        seed: of the draw.
    """

    def __init__(self, task: Readable, name: str, seed: int) -> None:
        self.task, self.name, self.seed = task, name, seed
        self.bad = BadRows(task.skip_bad)
        self.unlabelled = 0

    def small(self, rows: list[Row], max_rows: int | None) -> Split:
        """A split of few rows, in memory."""
        grouped = max_rows is not None and self.in_groups(rows)
        drawn = max_rows is not None and max_rows < len(rows) and not grouped
        made: list[tuple[int, int, Example]] = []
        for row in sorted(rows, key=self.order) if drawn else rows:
            if max_rows is not None and len(made) >= max_rows and not grouped:
                break
            made += [(row.line, k, example) for k, example in enumerate(self.formed_or_bad(row))]
        if not made:
            raise self.unusable(rows[0].where if rows else None)
        if grouped:
            return self.split(self.whole_groups([example for _, _, example in made], max_rows or 0))
        return self.split([example for _, _, example in sorted(made[:max_rows], key=lambda item: item[:2])])

    def large(self, rows: Iterable[Row], max_rows: int | None) -> Split:
        """A split of many rows: never all of them in memory."""
        if max_rows is not None and not self.in_groups(self.task.source.rows(self.name, BadRows(sys.maxsize))):
            if max_rows <= stored.IN_MEMORY:
                return self.split(stored.draw(rows, self.formed, self.order, max_rows, self.bad.record))
            lines = stored.drawn_lines(rows, self.order, max_rows)
            rows = (row for row in self.checked_rows(BadRows(self.bad.allowed)) if row.line in lines)
        examples, fingerprint = stored.store(example for row in rows for example in self.formed_or_bad(row))
        if not examples:
            raise self.unusable()
        if max_rows is not None and max_rows < len(examples):
            return self.split(self.whole_groups(examples, max_rows))
        return self.split(examples, fingerprint)

    def streamed(self, max_rows: int) -> Split:
        """The first rows of a stream; of what is judged on, rows drawn by the seed out of the first part of the stream."""
        rows = self.task.source.rows(self.name, self.bad)
        if self.name != "train":
            first = islice(rows, STREAM_SHARE * max_rows)
            return self.split(stored.draw(first, self.formed, self.order, max_rows, self.bad.record))
        stream = islice((example for row in rows for example in self.formed(row)), max_rows)
        if max_rows <= stored.IN_MEMORY:
            return self.split(list(stream))
        return self.split(*stored.store(stream))

    def split(self, examples: Sequence[Example], fingerprint: str | None = None) -> Split:
        """The examples as a split.

        Raises:
            DataError: there are none.
        """
        if not examples:
            raise self.unusable()
        if fingerprint is None:
            return Split.of(self.name, examples, skipped=self.bad.count, unlabelled=self.unlabelled)
        return Split(
            name=self.name,
            examples=examples,
            fingerprint=fingerprint,
            skipped=self.bad.count,
            unlabelled=self.unlabelled,
        )

    def unusable(self, where: str | None = None) -> DataError:
        """The error for a split without examples."""
        place = where or f"task {self.task.name!r}"
        return DataError(f"{place}: split {self.name!r} has no usable rows; give it at least one.")

    def order(self, row: Row) -> bytes:
        """The place of a row in the draw."""
        return draw_key(self.seed, str(row.line))

    def formed(self, row: Row) -> list[Example]:
        """The examples of a row; those of a training row without an answer are counted and left out."""
        made = []
        for k, formed in enumerate(self.task.form(row)):
            if self.name == "train" and formed.targets == UNKNOWN_TARGET:
                self.unlabelled += 1
            else:
                made.append(self.task.example(self.name, row.line, k, formed))
        return made

    def formed_or_bad(self, row: Row) -> list[Example]:
        """The same; a row that cannot be used is counted, or raises where the budget is spent."""
        try:
            return self.formed(row)
        except DataError as error:
            self.bad.record(error)
            return []

    def in_groups(self, rows: Iterable[Row]) -> bool:
        """Whether a metric judges groups of examples together, and rows say which; the first usable row tells."""
        if not GROUPED & set(self.task.metrics):
            return False
        for row in rows:
            with suppress(DataError):
                for one in self.task.form(row):
                    return one.extra.get("group") is not None
        return False

    def whole_groups(self, examples: Sequence[Example], most: int) -> Sequence[Example]:
        """Examples of as many drawn groups as fit into ``most``, at least one group, in their own order."""
        if most >= len(examples):
            return examples
        members: dict[str, int] = {}
        first: dict[str, str] = {}
        groups = self.task.groups(examples)
        for group, example in zip(groups, examples, strict=True):
            members[group] = members.get(group, 0) + 1
            first.setdefault(group, example.key.rsplit("/", 1)[1])
        kept: set[str] = set()
        room = most
        for group in sorted(members, key=lambda group: draw_key(self.seed, first[group])):
            if members[group] > room and kept:
                break
            kept.add(group)
            room -= members[group]
        return [example for group, example in zip(groups, examples, strict=True) if group in kept]

    def checked_rows(self, bad: BadRows) -> Iterator[Row]:
        """The rows, their ids seen once."""
        seen: dict[str, int] = {}
        column = self.task.id_column
        for row in self.task.source.rows(self.name, bad):
            value = row.values.get(column) if column else None
            if value is not None:
                identity = json.dumps(value, sort_keys=True, default=str)
                if identity in seen:
                    bad.record(
                        row.error(f"{column} {identity} is already that of line {seen[identity]}; make ids unique.")
                    )
                    continue
                seen[identity] = row.line
            yield row
