"""Tasks, examples and splits: a task is where rows come from, how they become text, and how answers are scored.

Text-to-text as in Raffel et al. 2020; SPoT section 2.1.2, SharPT section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from softprompt.errors import UnknownNameError, UsageError, one_line
from softprompt.tasks import stored
from softprompt.tasks.example import Example, Split
from softprompt.tasks.forms import DECLARATIONS, canonical_name
from softprompt.tasks.metrics import LOSS_METRIC, group_of, score
from softprompt.tasks.reading import draw_key, read_split
from softprompt.tasks.rows import Form, Formed, RowSource
from softprompt.tasks.tables import fields_of_rows
from softprompt.tasks.wording import Worded, Wording

SPLITS = ("train", "validation", "test")
FORMS = ("t5", "natural")


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
        streamed: too large to read whole: a split is of ``max_rows`` rows, or of as many as ``stream_rows`` says.
        stream_rows: rows of a split of a streamed task where none were asked for; empty where they must be.
        target_tokens: longest target, end token included, where the settings of a training leave it to the task.
        drawn_prefix: prefix language modelling: a row is a text, cut at another token each time it is trained on.
        render: turns trimmed inputs into what the backbone reads (a chat template); None leaves them.
        chat: what a prompt tuned on such inputs keeps with it; None where there is no template.
        wording: how rows become text, as a prompt keeps it; None for tasks made without one.
        wordings: the other ways this task can be worded, by name; see `worded`.
        chosen: whether the wording was chosen (`worded`), so that no backbone changes it.
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
    stream_rows: Mapping[str, int] = field(default_factory=dict)
    target_tokens: int = 64
    drawn_prefix: bool = False
    render: Callable[[str], str] | None = None
    chat: Mapping[str, Any] | None = None
    wording: Wording | None = None
    wordings: Mapping[str, Worded] = field(default_factory=dict)
    chosen: bool = False

    def __repr__(self) -> str:
        kind = f"{len(self.labels)} labels" if self.labels else "free text"
        return one_line(f"<Task {self.name}: {kind}, {', '.join(self.metrics)}>")

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
        if (self.wording is not None and self.wording.form == form) or (form in FORMS and not self.wordings):
            return replace(self, chosen=True)
        if form not in self.wordings:
            raise UnknownNameError(f"wording of task {self.name!r}", form, self.wordings)
        chosen = self.wordings[form]
        return replace(
            self,
            form=chosen.form,
            labels=chosen.labels,
            metrics=chosen.metrics or self.metrics,
            wording=replace(chosen.wording, chat=self.chat),
            chosen=True,
        )

    @classmethod
    def from_rows(
        cls,
        data: Any,
        *,
        text: str | Sequence[str] | None = None,
        label: str | None = None,
        validation: Any = None,
        name: str = "rows",
        kind: str | None = None,
        labels: Sequence[str] | None = None,
    ) -> Task:
        """A task of rows in memory.

        Args:
            data: a DataFrame, a datasets.Dataset, a list of dicts; or a mapping of splits (a DatasetDict) to these.
            text: the column of the text, several of them, or a template, ``"Review: {review}\\nSentiment:"``; all but
                label and ids where None.
            label: the column of the answer; ``label``, ``class``, ``target``, ... where None.
            validation: rows to validate on; a fifth of ``data`` where None, drawn by the inputs.
            name: of the task.
            kind: ``classification``, ``regression``, ``multi_label`` or ``text``; found where None.
            labels: label words in index order, where rows hold indices; a datasets.Dataset may know them itself.

        Raises:
            UsageError: a column is not there, gives the label away, or what it holds must be said.
            DataError: a row cannot be used.

        Example:
            >>> rows = [{"text": "a lovely film", "label": "good"}, {"text": "dull", "label": "bad"}] * 10
            >>> task = sp.Task.from_rows(rows, validation=rows[:4], text="text", label="label", name="films")
            >>> task
            <Task films: 2 labels, accuracy>
            >>> target = sp.Task.from_rows(rows, validation=rows[:4], text="text", label="label", name="hotels")
        """
        said = {"text": text, "label": label, "validation": validation, "name": name, "kind": kind, "labels": labels}
        return cls(**fields_of_rows(data, **said))

    def split(self, name: str, *, max_rows: int | None = None, seed: int = 0) -> Split:
        """Read and form a split.

        Args:
            name: ``train``, ``validation`` or ``test``.
            max_rows: at most this many examples, drawn by ``seed``; a smaller draw is part of a larger one of the
                same seed. Of a task whose metrics judge groups (MultiRC's questions) whole groups are drawn, at least
                one. None for all.
            seed: of the draw.

        Raises:
            DataError: where the split is missing, empty or holds a bad row; names file and line.
        """
        if name not in SPLITS:
            raise UnknownNameError("split", name, SPLITS)
        if max_rows is not None and max_rows < 1:
            raise UsageError(f"max_rows is {max_rows}; at least 1 row is needed.")
        if self.streamed and max_rows is None and name not in self.stream_rows:
            raise UsageError(f"task {self.name!r} is streamed; say how many rows to read (max_rows).")
        state = self.state(name, max_rows, seed)
        split = stored.remembered_split(state, name) if state is not None else None
        if split is None:
            split = read_split(self, name, max_rows, seed)
            if state is not None:
                stored.remember_split(state, split)
        return replace(split, drawn_prefix=True) if self.drawn_prefix else split

    def state(self, name: str, max_rows: int | None = None, seed: int = 0) -> str | None:
        """What a split depends on, as a file name: the rows that its source would give now, the wording and the draw.

        None where that cannot be told without reading the rows, or where the rows are worded by code of the user's.
        """
        if self.wording is None or self.wording.form not in FORMS or canonical_name(self.name) not in DECLARATIONS:
            return None
        held = self.source.state(name)
        return held and stored.state_key(
            self.name, name, held, self.wording.record(), self.chat, self.skip_bad, max_rows, seed
        )

    def is_empty(self, example: Example) -> bool:
        """Whether an example has no text: its columns are all empty, whatever stands around them."""
        return not example.inputs or example.inputs == self._empty_inputs

    @cached_property
    def _empty_inputs(self) -> str | None:
        wording = self.wording
        if wording is None or wording.form != "template" or not wording.columns:
            return None
        empty = wording.inputs(dict.fromkeys(wording.columns, ""))
        return self.render(empty) if self.render is not None else empty

    def groups(self, examples: Sequence[Example]) -> list[str]:
        """For each example what it is judged together with; the metrics of a subset need whole groups."""
        return [group_of(self.metrics, example) for example in examples]

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
        return score(self.metrics, self.labels, predictions, examples, canonical)

    def judge_of(self, example: Example) -> Task:
        """The task whose labels and metrics an example is answered and judged by: this one, or a part of a union."""
        return self

    def target_room(self, asked: int = 0) -> int:
        """The most tokens of a target or a free answer: what was asked for, or the task's own where that is 0."""
        return asked or self.target_tokens

    @property
    def judged_by_loss(self) -> bool:
        """Whether answers are losses of the targets and no texts (C4)."""
        return LOSS_METRIC in self.metrics

    @property
    def scored_by_label(self) -> bool:
        """Whether any row can be answered by scoring labels instead of generating."""
        return bool(self.labels)

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
        kept.update(e.key for e in sorted(members, key=lambda e: draw_key(seed, e.key))[:count])
    return Split.of(split.name, [e for e in split.examples if e.key in kept], skipped=split.skipped)
