"""Tasks, examples and splits: a task is where rows come from, how they become text, and how answers are scored.

Text-to-text as in Raffel et al. 2020; SPoT section 2.1.2, SharPT section 3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.rows import BadRows, Form, Formed, Row, RowSource

if TYPE_CHECKING:
    from softprompt.tasks.wording import Wording

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One text-to-text pair.

    Attributes:
        key: stable identity ``task/split/row`` (``.k`` is added to the k-th pair of a row that makes several).
        inputs: what the backbone reads, trimmed.
        targets: what it should write, trimmed; ``<unk>`` where the gold label is missing.
        extra: what metrics and submissions need: ``label`` (index or None), ``answers``, ``group``, ``idx``, ...
    """

    key: str
    inputs: str
    targets: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The examples of a split.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        examples: in the source's order.
        fingerprint: sha256 (hex) of the examples' content; the same texts give the same fingerprint wherever they lie.
        skipped: bad rows left out on request.
    """

    name: str
    examples: Sequence[Example]
    fingerprint: str
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    @classmethod
    def of(cls, name: str, examples: Sequence[Example], *, skipped: int = 0) -> Split:
        """A split with the fingerprint computed."""
        return cls(name=name, examples=tuple(examples), fingerprint=fingerprint(examples), skipped=skipped)


def fingerprint(examples: Iterable[Example]) -> str:
    """sha256 (hex) over inputs, targets and extra of the examples, in order."""
    digest = hashlib.sha256()
    for example in examples:
        content = [example.inputs, example.targets, dict(example.extra)]
        encoded = json.dumps(content, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Worded:
    """One way in which a task's rows become text.

    Attributes:
        form: the preprocessor from row to text.
        wording: the record of it that prompts keep.
        labels: what the backbone writes for each label, in index order; None for free text.
        metrics: names of metrics; those of the task where empty.
    """

    form: Form
    wording: Wording
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task.

    Attributes:
        name: its name in the catalog, file-name safe.
        category: family of tasks, e.g. ``nli``.
        labels: what the backbone writes for each label, in index order; None where targets are free text.
        metrics: names in `softprompt.tasks.metrics.METRICS`; their mean is the task's score.
        source: where rows come from.
        form: the preprocessor from row to text.
        licence: of the data.
        note: what a user should know, e.g. what stands in for a missing validation split.
        id_column: a column whose values must not repeat within a split; None where there is none.
        skip_bad: how many bad rows a split may leave out (counted in ``Split.skipped``); 0 for none.
        streamed: too large to read whole: a split needs ``max_rows`` and takes the first that many.
        render: turns trimmed inputs into what the backbone reads (a chat template); None leaves them.
        chat: what a prompt tuned on such inputs keeps with it; None where there is no template.
        wording: how rows become text, as a prompt keeps it; None for tasks made without one.
        wordings: the other ways this task can be worded, by name; see `worded`.
    """

    name: str
    category: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    source: RowSource
    form: Form
    licence: str = "unstated"
    note: str = ""
    id_column: str | None = None
    skip_bad: int = 0
    streamed: bool = False
    render: Callable[[str], str] | None = None
    chat: Mapping[str, Any] | None = None
    wording: Wording | None = None
    wordings: Mapping[str, Worded] = field(default_factory=dict)

    @property
    def description(self) -> str | None:
        """The task in one sentence, where it is known: the words a prompt may start from."""
        return self.wording.instruction if self.wording is not None else None

    def worded(self, form: str) -> Task:
        """This task in another wording: ``natural`` (natural language, for decoder-only backbones) or ``t5``.

        A task that has that wording already, or only one wording at all (a function of the user's), is given as it is.

        Raises:
            UnknownNameError: no wording has that name.
        """
        if self.wording is not None and self.wording.form == form:
            return self
        if form not in self.wordings:
            if form in ("t5", "natural") and not self.wordings:
                return self
            raise UnknownNameError(f"wording of task {self.name!r}", form, self.wordings)
        chosen = self.wordings[form]
        return replace(
            self,
            form=chosen.form,
            labels=chosen.labels,
            metrics=chosen.metrics or self.metrics,
            wording=chosen.wording.model_copy(update={"chat": self.chat}),
        )

    def split(self, name: str, *, max_rows: int | None = None, seed: int = 0) -> Split:
        """Read and form a split.

        Args:
            name: ``train``, ``validation`` or ``test``.
            max_rows: at most this many examples, drawn by ``seed``; a smaller draw is part of a larger one of the
                same seed. None for all.
            seed: of the draw.

        Raises:
            DataError: where the split is missing, empty or holds a bad row; names file and line.
        """
        if name not in SPLITS:
            raise UnknownNameError("split", name, SPLITS)
        if max_rows is not None and max_rows < 1:
            raise UsageError(f"max_rows is {max_rows}; at least 1 row is needed.")
        if self.streamed and max_rows is None:
            raise UsageError(f"task {self.name!r} is streamed; say how many rows to read (max_rows).")
        bad = BadRows(self.skip_bad)
        if self.streamed:
            return self._streamed(name, max_rows or 0, bad)
        rows = list(self._checked_rows(name, bad))
        chosen = _drawn(rows, seed) if max_rows is not None and max_rows < len(rows) else rows
        made: list[tuple[int, int, Formed]] = []
        for row in chosen:
            if max_rows is not None and len(made) >= max_rows:
                break
            try:
                made.extend((row.line, k, formed) for k, formed in enumerate(self.form(row)))
            except DataError as error:
                bad.record(error)
        made = sorted(made[:max_rows], key=lambda item: item[:2])
        if not made:
            where = rows[0].where if rows else f"task {self.name!r}"
            raise DataError(f"{where}: split {name!r} has no usable rows; give it at least one.")
        examples = [self.example(name, line, k, formed) for line, k, formed in made]
        return Split.of(name, examples, skipped=bad.count)

    def _streamed(self, name: str, max_rows: int, bad: BadRows) -> Split:
        examples: list[Example] = []
        for row in self.source.rows(name, bad):
            for k, formed in enumerate(self.form(row)):
                examples.append(self.example(name, row.line, k, formed))
            if len(examples) >= max_rows:
                break
        if not examples:
            raise DataError(f"task {self.name!r}: split {name!r} has no usable rows; give it at least one.")
        return Split.of(name, examples[:max_rows], skipped=bad.count)

    def _checked_rows(self, name: str, bad: BadRows) -> Iterable[Row]:
        seen: dict[str, int] = {}
        for row in self.source.rows(name, bad):
            value = row.values.get(self.id_column) if self.id_column else None
            if value is not None:
                identity = json.dumps(value, sort_keys=True, default=str)
                if identity in seen:
                    bad.record(
                        row.error(
                            f"{self.id_column} {identity} is already that of line {seen[identity]}; make ids unique."
                        )
                    )
                    continue
                seen[identity] = row.line
            yield row

    def example(self, split: str, line: int, k: int, formed: Formed) -> Example:
        """The example that a formed pair of a row becomes."""
        key = f"{self.name}/{split}/{line}" + (f".{k}" if k else "")
        # T5's vocabulary trims texts; other tokenizers would make a token of an outer blank, so it goes here.
        inputs = formed.inputs.strip()
        if self.render is not None:
            inputs = self.render(inputs)
        return Example(key=key, inputs=inputs, targets=formed.targets.strip(), extra=formed.extra)

    def score(
        self,
        predictions: Sequence[str],
        examples: Sequence[Example],
        canonical: Callable[[str], str] | None = None,
    ) -> dict[str, float]:
        """The task's metrics in percent, and ``score``, their mean.

        Args:
            predictions: generated texts, one for each example.
            examples: with gold targets; those without a gold label are left out.
            canonical: ``decode(encode(text))`` of the backbone's tokenizer, applied to gold texts before comparing,
                since a tokenizer may not give a label word back as it was ("not _ entailment").

        Raises:
            UsageError: where counts differ, nothing has a gold label, or ``canonical`` makes two labels equal.
        """
        from softprompt.tasks.metrics import score

        return score(self.metrics, self.labels, predictions, examples, canonical)

    def with_skip_bad(self, count: int) -> Task:
        """This task, allowed to leave out ``count`` bad rows a split."""
        return replace(self, skip_bad=count)


def few_shot(split: Split, count: int, *, seed: int = 0) -> Split:
    """``count`` examples of each label (of all examples where there are no labels), drawn by ``seed``.

    Raises:
        UsageError: where a label has fewer examples.
    """
    if count < 1:
        raise UsageError(f"few-shot count is {count}; at least 1 is needed.")
    groups: dict[Any, list[Example]] = {}
    for example in split.examples:
        groups.setdefault(example.extra.get("label"), []).append(example)
    kept: set[str] = set()
    for label, members in groups.items():
        if len(members) < count:
            what = f"label {label}" if label is not None else "the split"
            raise UsageError(f"{count} examples of {what} were asked for, {len(members)} are there; ask for fewer.")
        kept.update(e.key for e in sorted(members, key=lambda e: _draw_key(seed, e.key))[:count])
    return Split.of(split.name, [e for e in split.examples if e.key in kept], skipped=split.skipped)


def _drawn(rows: Sequence[Row], seed: int) -> list[Row]:
    """All rows in an order keyed by seed and line: independent of library versions, and prefixes nest."""
    return sorted(rows, key=lambda row: _draw_key(seed, str(row.line)))


def _draw_key(seed: int, identity: str) -> bytes:
    return hashlib.sha256(f"{seed}/{identity}".encode()).digest()
