"""A mixture as one task: rows of several tasks, drawn at the mixture's rates, each answered and judged by its own task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softprompt.errors import DataError, UsageError, one_line
from softprompt.tasks.example import Example, Picked, Split, places
from softprompt.tasks.mixture import Mixture
from softprompt.tasks.rows import BadRows, Formed, Row
from softprompt.tasks.task import Task


@dataclass(frozen=True, kw_only=True, repr=False)
class MixtureTask(Task):
    """Several tasks as one.

    A split holds every task's rows, one task after the other; `softprompt.training.data.task_data` draws training rows at
    the rates. ``max_rows`` bounds each task. The score is the mean of the tasks' scores.

    Attributes:
        parts: the tasks, by name; a row belongs to the one its key begins with.
        mixture: their rates.
    """

    parts: Mapping[str, Task]
    mixture: Mixture

    def __repr__(self) -> str:
        return one_line(f"<Task {self.name}: a mixture of {', '.join(self.parts)}>")

    @classmethod
    def of(cls, mixture: Mixture, parts: Sequence[Task]) -> MixtureTask:
        """The mixture over loaded tasks, in the order of its names.

        Raises:
            UsageError: two tasks have one name.
        """
        named = {part.name: part for part in parts}
        if len(named) < len(parts):
            raise UsageError(f"mixture {mixture.name!r} holds two tasks of one name: give their files other names.")
        licences = sorted({part.licence for part in parts})
        return cls(
            name=mixture.name, category="mixture", labels=None, metrics=(), source=MixtureSource(named), form=_no_form,
            licence=licences[0] if len(licences) == 1 else "several: " + "; ".join(licences), parts=named, mixture=mixture,
            note=f"A mixture of {', '.join(named)}.",
        )  # fmt: skip

    def split(self, name: str, *, max_rows: int | None = None, seed: int = 0) -> Split:
        """Every task's split, joined; see `Task.split`, whose errors it raises."""
        return joined([part.split(name, max_rows=max_rows, seed=seed) for part in self.parts.values()])

    def state(self, name: str, max_rows: int | None = None, seed: int = 0) -> str | None:
        """See `Task.state`."""
        states = [part.state(name, max_rows, seed) for part in self.parts.values()]
        return None if None in states else " ".join(map(str, states))

    def judge_of(self, example: Example) -> Task:
        """The task that the row comes from."""
        return self.parts[example.key.split("/", 1)[0]]

    def is_empty(self, example: Example) -> bool:
        """As its own task says."""
        return self.judge_of(example).is_empty(example)

    def worded(self, form: str) -> Task:
        """Every task in that wording."""
        return self.having({name: part.worded(form) for name, part in self.parts.items()}, chosen=True)

    def with_skip_bad(self, count: int) -> Task:
        """Every task allowed as many."""
        return self.having({name: part.with_skip_bad(count) for name, part in self.parts.items()})

    def having(self, parts: Mapping[str, Task], **changes: Any) -> MixtureTask:
        """The same mixture of other forms of its tasks."""
        return replace(self, parts=parts, source=MixtureSource(parts), **changes)

    @property
    def scored_by_label(self) -> bool:
        """Whether a part has labels; rows of the others are answered by generating."""
        return any(part.labels for part in self.parts.values())

    @property
    def judged_by_loss(self) -> bool:
        """Whether a part is."""
        return any(part.judged_by_loss for part in self.parts.values())

    def target_room(self, asked: int = 0) -> int:
        """The longest of any task."""
        return max(part.target_room(asked) for part in self.parts.values())

    def rates(self, sizes: Mapping[str, int]) -> tuple[float, ...]:
        """The probability of drawing from each task, in their order, by their training rows."""
        return tuple(replace(self.mixture, tasks=tuple(self.parts)).rates(sizes).values())

    def score(
        self,
        predictions: Sequence[str],
        examples: Sequence[Example],
        canonical: Callable[[str], str] | None = None,
    ) -> dict[str, float]:
        """Each task's score in percent by its name, and ``score``, their mean over the tasks that have rows here."""
        rows: dict[str, list[int]] = {}
        for i, example in enumerate(examples):
            rows.setdefault(self.judge_of(example).name, []).append(i)
        scores = {
            name: self.parts[name].score([predictions[i] for i in own], [examples[i] for i in own], canonical)["score"]
            for name, own in rows.items()
        }
        return {**scores, "score": float(np.mean(list(scores.values()))) if scores else 0.0}

    def groups(self, examples: Sequence[Example]) -> list[str]:
        """For each example what its own task judges it together with."""
        parts = [self.judge_of(example) for example in examples]
        return [f"{part.name} {part.groups([e])[0]}" for part, e in zip(parts, examples, strict=True)]


@dataclass(frozen=True)
class MixtureSource:
    """Where a mixture's rows come from: its tasks."""

    parts: Mapping[str, Task]

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        """A mixture has rows of several kinds; its tasks read them."""
        raise DataError(
            f"the rows of a mixture ({', '.join(self.parts)}) are read task by task; name one of the tasks."
        )

    def describe(self) -> dict[str, Any]:
        """Its tasks."""
        return {"kind": "mixture", "tasks": list(self.parts)}

    def state(self, split: str) -> None:
        """Its tasks have states."""


def _no_form(row: Row) -> Sequence[Formed]:
    raise row.error("a mixture forms no rows; its tasks do.")


def joined(parts: Sequence[Split]) -> Split:
    """Splits of several tasks as one; its fingerprint is of theirs."""
    digest = hashlib.sha256("\n".join(part.fingerprint for part in parts).encode()).hexdigest()
    return Split(
        name=parts[0].name, examples=Picked([part.examples for part in parts], *places([len(p) for p in parts])),
        fingerprint=digest, skipped=sum(part.skipped for part in parts), unlabelled=sum(p.unlabelled for p in parts),
        parts=tuple(parts),
    )  # fmt: skip
