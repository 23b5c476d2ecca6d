"""Which columns of a user's rows are read, which holds the answer, and what kind of answer it is.

The rule, where nothing is said: the label is the first of `LABEL_COLUMNS` that is there; ``id`` and ``idx`` are left out;
every other column is text. A column that gives the label away is refused, and what might be classes or scores is asked.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.rows import UNKNOWN_TARGET, Formed, Row, is_missing

LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "sentiment", "intent")
ID_COLUMNS = ("id", "idx")
MOST_LABELS = 200
"""More distinct texts than this are taken for free text."""
MOST_NUMBERS = 10
"""More distinct whole numbers than this may be scores."""
NONE = "none"
"""The target of a row whose list of labels is empty."""

Kind = Literal["classification", "regression", "multi_label", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)
METRICS_OF: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "regression": ("pearson", "spearman"),
    "multi_label": ("exact_text",),
    "text": ("exact_text",),
}

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user said; what is not said is found by the rule.

    Attributes:
        text: columns of the inputs, in order.
        label: column of the answer.
        labels: label words in index order; a row may hold the word or its index.
        kind: of the answer.
    """

    text: tuple[str, ...] = ()
    label: str | None = None
    labels: tuple[str, ...] | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise UnknownNameError("kind of answer", self.kind, KINDS)
        if self.label is not None and self.label in self.text:
            raise UsageError(
                f"column {self.label!r} is named as text and as label: the answer would stand in the input."
            )

    def __bool__(self) -> bool:
        return bool(self.text or self.label or self.kind)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What was found.

    Attributes:
        inputs: columns of the inputs, in order.
        label: column of the answer.
        kind: of the answer.
        labels: the classes in index order; of ``multi_label`` the words its targets are joined of; None for the others.
        by_index: a row may hold a class's index instead of its word.
        left_out: columns that are not read.
        missing: rows without an answer.
    """

    inputs: tuple[str, ...]
    label: str
    kind: Kind
    labels: tuple[str, ...] | None
    by_index: bool = False
    left_out: tuple[str, ...] = ()
    missing: int = 0

    @property
    def note(self) -> str:
        """What a user should know of it; empty where there is nothing."""
        left = f"Columns left out: {', '.join(self.left_out)}. " if self.left_out else ""
        return left + (f"Training rows without a label: {self.missing}, not trained on. " if self.missing else "")


def find_columns(rows: Iterable[Row], asked: Asked) -> Columns:
    """Read training rows and say what is what.

    Raises:
        UsageError: what is asked for is not there, gives the label away, or must be said (classes or scores).
        DataError: labels are written in several ways, or are too few or too many.
    """
    stream = iter(rows)
    head = list(itertools.islice(stream, 20))
    if not head:
        raise DataError("the training file has no rows; give it at least one.")
    first = head[0]
    label, names = _label_column(head, asked)
    ids = [c for c in first.values if c.lower() in ID_COLUMNS and c != label]
    inputs = asked.text or tuple(c for c in first.values if c not in (label, *ids, *names))
    for column in inputs:
        first.get(column)
    if not inputs:
        raise first.error(f"no text column beside {label!r}; it has {', '.join(map(str, first.values))}.")
    seen = _Labels(column=label, first=first)
    suspects = {} if asked.text or len(inputs) < 2 else {column: _Suspect() for column in inputs}
    for row in itertools.chain(head, stream):
        word = seen.add(row)
        for suspect, column in zip(suspects.values(), suspects, strict=True):
            suspect.add(row.values.get(column), word)
    kind, labels = seen.decide(asked)
    if kind == "classification":
        _refuse_given_away(first, label, suspects, seen.count)
    left_out = tuple(c for c in first.values if c not in inputs and c != label)
    return Columns(
        inputs=inputs,
        label=label,
        kind=kind,
        labels=labels,
        by_index=asked.labels is not None,
        left_out=left_out,
        missing=seen.missing,
    )


def _label_column(head: Sequence[Row], asked: Asked) -> tuple[str, tuple[str, ...]]:
    """The label's column, and the columns that say the same another way: ``label`` beside ``label_text``."""
    first = head[0]
    if asked.label is not None:
        first.get(asked.label)
        return asked.label, ()
    folded = {str(c).lower(): c for c in reversed(list(first.values))}
    found = next((folded[c] for c in LABEL_COLUMNS if c in folded), None)
    if found is None or found in asked.text:
        columns = ", ".join(map(str, first.values))
        if _looks_like_a_row(head):
            raise first.error(
                f"no label column: line 1 should name the columns and holds {columns[:60]!r}; if that is a row, put a line of "
                "names in front, e.g. text,label."
            )
        raise first.error(
            f"no label column among {columns}; say which holds the answer (--label-column NAME; label = in a task.toml)."
        )
    words = f"{found}_text"
    return (words, (found,)) if words in first.values and words not in asked.text else (found, ())


def _looks_like_a_row(head: Sequence[Row]) -> bool:
    """Whether the columns' names read like data: long, numbers, or values of the same column in the rows below."""
    names = [str(c) for c in head[0].values]
    if any(len(name) > 40 or len(name.split()) > 4 or _NUMBER.fullmatch(name) for name in names):
        return True
    return any(str(row.values.get(name)) == name for row in head for name in names)


class _Labels:
    """The answers of a column, as they are read."""

    def __init__(self, *, column: str, first: Row) -> None:
        self.column, self.first = column, first
        self.words: dict[str, int] = {}
        self.items: set[str] = set()
        self.count = self.missing = self.lists = self.numbers = self.whole = 0
        self._kind: tuple[type, Row] | None = None

    def add(self, row: Row) -> str | None:
        """Count a row's answer; gives it as text, None where it is missing."""
        value = row.get(self.column)
        self.count += 1
        if is_missing(value):
            self.missing += 1
            return None
        kind = list if isinstance(value, tuple) else type(value)
        if (isinstance(value, float) and value.is_integer()) or isinstance(value, bool):
            kind = int
        if self._kind is None:
            self._kind = (kind, row)
        elif kind is not self._kind[0] and not {kind, self._kind[0]} <= {int, float}:
            one, where = self._kind
            raise row.error(
                f"column {self.column!r} holds a {kind.__name__} where line {where.line} holds a {one.__name__}; "
                "write all labels one way."
            )
        items = list_of(value)
        if items is not None:
            self.lists += 1
            self.items.update(_item(row, self.column, item) for item in items)
            return ", ".join(map(str, items))
        if not isinstance(value, str | int | float):
            raise row.error(f"column {self.column!r} should hold a label, found a {type(value).__name__}.")
        word = label_word(value)
        self.words[word] = self.words.get(word, 0) + 1
        number = _NUMBER.fullmatch(word)
        self.numbers += number is not None
        self.whole += number is not None and re.fullmatch(r"[-+]?\d+", word) is not None
        return word

    def decide(self, asked: Asked) -> tuple[Kind, tuple[str, ...] | None]:
        """The kind of the answers, and the classes where there are some."""
        here = self.count - self.missing
        if not here:
            raise self.first.error(f"column {self.column!r} holds no label in {self.count} rows.")
        if asked.labels is not None and asked.kind in (None, "classification"):
            return "classification", asked.labels
        if self.lists and self.lists < here:
            raise self.first.error(
                f"column {self.column!r} holds lists in {self.lists} of {here} rows; write all one way."
            )
        kind = asked.kind or self._found(here)
        if (kind == "multi_label") != bool(self.lists):
            found = "lists" if self.lists else "single labels"
            raise self.first.error(f"column {self.column!r} holds {found}, which are not of kind {kind}.")
        if kind == "regression" and self.numbers < here:
            raise self.first.error(
                f"column {self.column!r} holds {here - self.numbers} answers that are no numbers; a regression needs numbers."
            )
        if kind == "multi_label":
            return "multi_label", _sorted(self.items)
        return (kind, self._classes()) if kind == "classification" else (kind, None)  # type: ignore[return-value]

    def _found(self, here: int) -> Kind:
        if self.lists:
            return "multi_label"
        many = len(self.words) > MOST_NUMBERS
        if self.numbers == here and (self.whole < here or many):
            example = next((w for w in self.words if not re.fullmatch(r"[-+]?\d+", w)), next(iter(self.words)))
            raise self.first.error(
                f"column {self.column!r} holds numbers such as {example}, {len(self.words)} distinct values "
                f"in {self.count} rows: are they classes or scores? Say --kind classification or --kind regression (kind = "
                '"regression" in a task.toml).'
            )
        return "classification"

    def _classes(self) -> tuple[str, ...]:
        if not 2 <= len(self.words) <= MOST_LABELS:
            count = len(self.words)
            found = f"{count} distinct values" if count != 1 else f"one value only ({next(iter(self.words))!r})"
            raise self.first.error(
                f"column {self.column!r} has {found} in {self.count} rows; a classification needs 2 "
                f"to {MOST_LABELS}: name the label column (--label-column), or say --kind text where answers are free text."
            )
        return _sorted(self.words)


def _sorted(words: Iterable[str]) -> tuple[str, ...]:
    found = list(words)
    numeric = all(_NUMBER.fullmatch(word) for word in found)
    return tuple(sorted(found, key=lambda word: (float(word), word)) if numeric else sorted(found))


def label_word(value: str | int | float) -> str:
    """A label as text: outer blanks removed, whole numbers without decimals, true and false as 1 and 0."""
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def list_of(value: object) -> list[Any] | None:
    """The items of a list of labels, also where a csv holds it as JSON text; None for anything else."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, list) else None
    return None


def _item(row: Row, column: str, item: object) -> str:
    if isinstance(item, str | int | float) and not is_missing(item):
        word = label_word(item)
        if "," not in word:
            return word
    raise row.error(f"column {column!r} should hold lists of label words without commas, found {item!r} in one.")


@dataclass
class _Suspect:
    """Whether a column gives the label away: by its values, or as a number with a threshold."""

    labels: dict[str, str] = field(default_factory=dict)
    numbers: list[tuple[float, str]] | None = field(default_factory=list)
    rows: int = 0
    clear: bool = False

    def add(self, value: object, label: str | None) -> None:
        if label is None or (self.clear and self.numbers is None):
            return
        self.rows += 1
        text = str(value).strip()
        self.clear = self.clear or self.labels.setdefault(text, label) != label
        if self.clear:
            self.labels = {}
        if self.numbers is not None:
            if isinstance(value, bool) or not _NUMBER.fullmatch(text):
                self.numbers = None
            else:
                self.numbers.append((float(text), label))

    def tells(self) -> bool:
        """Whether the label follows: each value stands for one label and comes twice and more, or numbers fall apart."""
        if self.rows < 10:
            return False
        if not self.clear and 2 * len(self.labels) <= self.rows and len(set(self.labels.values())) > 1:
            return True
        if not self.numbers:
            return False
        ordered = sorted(self.numbers)
        changes = sum(a[1] != b[1] for a, b in itertools.pairwise(ordered))
        return 0 < changes == len({label for _, label in ordered}) - 1


def _refuse_given_away(first: Row, label: str, suspects: Mapping[str, _Suspect], rows: int) -> None:
    telling = [column for column, suspect in suspects.items() if suspect.tells()]
    if len(telling) == len(suspects):  # some column is the text: the short sayings of the others give it away
        telling = [column for column in telling if suspects[column].numbers is not None]
    if not telling or len(telling) == len(suspects):
        return
    others = ",".join(column for column in suspects if column not in telling)
    what = f"column {telling[0]!r} determines" if len(telling) == 1 else f"columns {', '.join(telling)} determine"
    raise UsageError(
        f"{first.where}: {what} the label {label!r} in all {rows} rows, so the answer would stand in the input: say "
        f"--text-column {others}, or name all columns to read it nevertheless (text = in a task.toml)."
    )


def answer_of(row: Row, columns: Columns) -> tuple[str, dict[str, Any]]:
    """(target, what metrics need) of a row; ``<unk>`` where the answer is missing.

    Raises:
        DataError: the answer is none of the classes, no number, or no list.
    """
    value = row.values.get(columns.label) if not row.labelled else row.get(columns.label)
    if columns.kind == "classification":
        index = _class(row, columns, value)
        return UNKNOWN_TARGET if index is None else (columns.labels or ())[index], {"label": index}
    if is_missing(value):
        return UNKNOWN_TARGET, {}
    if columns.kind == "multi_label":
        return _joined(row, columns, value)
    if columns.kind == "regression":
        text = number_text(value)
        if text is None:
            raise row.error(f"column {columns.label!r} should hold a number, found {value!r}.")
        return text, {"value": float(text)}
    text = row.text(columns.label)
    return text, {"references": [text], "answers": [text]}


def _class(row: Row, columns: Columns, value: Any) -> int | None:
    labels = columns.labels or ()
    if columns.by_index:
        return row.label(labels, columns.label)
    if is_missing(value):
        return None
    word = label_word(value) if isinstance(value, str | int | float) else str(value)
    if word not in labels:
        raise row.error(f"label {word!r} in column {columns.label!r} is none of {', '.join(labels)}.")
    return labels.index(word)


def _joined(row: Row, columns: Columns, value: Any) -> tuple[str, dict[str, Any]]:
    items = list_of(value)
    if items is None:
        raise row.error(f"column {columns.label!r} should hold a list of labels, found {value!r}.")
    labels = columns.labels or ()
    words = {_item(row, columns.label, item) for item in items}
    unknown = sorted(words - set(labels))
    if unknown:
        raise row.error(f"label {unknown[0]!r} in column {columns.label!r} is none of {', '.join(labels)}.")
    found = sorted(labels.index(word) for word in words)
    return ", ".join(labels[i] for i in found) or NONE, {"labels": found}


def number_text(value: object) -> str | None:
    """A score as the backbone writes it: as it stands where it is text, without needless decimals else; None for no number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = value.strip() if isinstance(value, str) else f"{value:.6f}".rstrip("0").rstrip(".")
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        return None
    return text


def formed(row: Row, inputs: str, columns: Columns) -> list[Formed]:
    """The pair of a row."""
    target, extra = answer_of(row, columns)
    return [Formed(inputs, target, extra)]


def as_names(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """Column names from one name or several."""
    if text is None:
        return ()
    return (text,) if isinstance(text, str) else tuple(text)
