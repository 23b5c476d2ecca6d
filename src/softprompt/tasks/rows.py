"""Rows as a source gives them, with enough said about where they stand to name file and line when one is bad."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from softprompt.errors import DataError, short

UNKNOWN_TARGET = "<unk>"
"""The target of a row without a gold label, as in the T5 code."""


class Formed(NamedTuple):
    """One text-to-text pair made from a row; ``extra`` carries what the metrics need."""

    inputs: str
    targets: str
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        values: the row's columns.
        line: 1-based line of the file (or row of a table without lines).
        where: the file or table, as an error should name it.
        train: whether the row belongs to a training split (ReCoRD and WSC make other rows of those).
        labelled: whether gold labels must be there; False for test splits.
    """

    values: Mapping[str, Any]
    line: int
    where: str
    train: bool = False
    labelled: bool = True

    def error(self, problem: str) -> DataError:
        """An error that names this row's file and line."""
        return DataError(f"{self.where}, line {self.line}: {problem}")

    def get(self, column: str) -> Any:
        """A column's value; a missing column is a `DataError` that names the ones there are."""
        try:
            return self.values[column]
        except KeyError:
            raise self.error(
                f"no column {column!r}; it has {', '.join(map(str, self.values)) or 'none'}: rename one or add it."
            ) from None

    def text(self, column: str) -> str:
        """A text column; numbers are written out, an empty text is allowed, null and nested values are not."""
        value = self.get(column)
        if isinstance(value, str):
            return value
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(f"column {column!r} should hold text, found {value} (a missing value).")
        if isinstance(value, bool) or not isinstance(value, int | float):
            kind = "null" if value is None else f"a {type(value).__name__}"
            raise self.error(f"column {column!r} should hold text, found {kind}.")
        return str(value)

    def texts(self, column: str) -> list[str]:
        """A column that holds a list of texts."""
        value = self.get(column)
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise self.error(f"column {column!r} should hold a list of texts, found {short(value)}.")
        return list(value)

    def label(self, labels: Sequence[str], column: str = "label") -> int | None:
        """A class label cast to its index.

        Integers, digits in a text (csv) and booleans are indices; anything else is a label word. -1, null, NaN and the
        empty text stand for a missing label; so does a missing column where labels are not required (test splits).

        Returns:
            0..len(labels)-1, or None where the row has no gold label.
        """
        if column not in self.values and not self.labelled:
            return None
        value = self.get(column)
        if is_missing(value):
            return None
        if isinstance(value, str) and value in labels:
            return labels.index(value)
        number = _whole(value)
        if number == -1:
            return None
        if number is not None and 0 <= number < len(labels):
            return number
        if isinstance(value, str):
            folded = [word.lower() for word in labels]
            if folded.count(value.strip().lower()) == 1:
                return folded.index(value.strip().lower())
        raise self.error(
            f"label {short(value)} in column {column!r} is none of {', '.join(labels)} (or 0..{len(labels) - 1})."
        )


def is_missing(value: object) -> bool:
    """Whether a label is none: null, NaN, an empty or blank text, ``<unk>``."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip() in ("", UNKNOWN_TARGET)


def _whole(value: object) -> int | None:
    """The whole number a label stands for; None where it stands for none."""
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        if text.removeprefix("-").isdecimal() and text.isascii():
            return int(text)
    return None


class BadRows:
    """A budget of bad rows that may be skipped (``--skip-bad N``); with none, the first bad row raises."""

    def __init__(self, allowed: int = 0) -> None:
        self.allowed = allowed
        self.count = 0

    def record(self, error: DataError) -> None:
        """Count a bad row, or raise where the budget is spent."""
        self.count += 1
        if self.count > self.allowed:
            if self.allowed:
                raise DataError(f"{error} More than the {self.allowed} bad rows that may be skipped.") from error
            raise error


class RowSource(Protocol):
    """Where the rows of a task come from."""

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        """The rows of a split in a fixed order; unreadable ones go to ``bad``. `DataError` where there is no split."""

    def describe(self) -> dict[str, Any]:
        """What `softprompt tasks show` prints about the source."""

    def state(self, split: str) -> str | None:
        """What stands for the rows of a split without reading them (a file's time, a commit); None where nothing does."""


Form = Callable[[Row], Sequence[Formed]]
"""A preprocessor: a row becomes no, one or several text-to-text pairs."""
