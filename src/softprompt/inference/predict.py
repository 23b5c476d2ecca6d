"""Answers to rows that a user has: worded, cut, scored or generated as `evaluate` does it on a task's split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError, one_line
from softprompt.fields import Scoring
from softprompt.inference.engine import kept_scoring
from softprompt.inference.evaluate import EvalJob, answers, canonical_text, label_probabilities, scoring_of
from softprompt.prompts.prompter import Prompter
from softprompt.tasks.encoded import answer_room, encode_split, input_room
from softprompt.tasks.example import Example, Split
from softprompt.tasks.rows import UNKNOWN_TARGET
from softprompt.tasks.sources import MemorySource
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import Input, Kept, reader, wording_of
from softprompt.tasks.wording import Wording


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to one row.

    Attributes:
        output: what the backbone wrote.
        label: name of the label it stands for; None where it stands for none, or the task has no labels.
        probabilities: by label name, 0..1, summing to 1; None where the task has no labels or they were not asked for.
    """

    output: str
    label: str | None
    probabilities: Mapping[str, float] | None = None

    def __repr__(self) -> str:
        shares = sorted((self.probabilities or {}).items(), key=lambda item: -item[1])
        told = ", ".join(f"{label} {share:.2f}" for label, share in shares)
        return one_line(f"<Prediction {self.output!r}{': ' if told else ''}{told}>")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The answers to some rows, in their order.

    Attributes:
        rows: one a row.
        cut: rows whose text was longer than the backbone holds and was cut.
    """

    rows: list[Prediction]
    cut: int


def predict(
    backbone: Backbone,
    prompter: Prompter | None,
    rows: Sequence[Input],
    kept: Kept | None = None,
    *,
    as_is: bool = False,
    max_new_tokens: int | None = None,
    probabilities: bool = False,
) -> Predictions:
    """Answer rows with a prompt; on the rows of a split the answers are those of `evaluate`.

    Args:
        backbone: the frozen model.
        prompter: gives the prompt (its run 0); None for the bare backbone.
        rows: texts, or rows of columns, which the prompt's wording turns into texts.
        kept: what the prompt keeps: its manifest. None leaves texts as they are.
        as_is: the texts are worded already.
        max_new_tokens: longest answer in free text (`answer_room` where None); a task with labels answers with one of them.
        probabilities: give each label's probability too, where the task has labels; a second pass where answers are
            generated.

    Raises:
        UsageError: a row of columns where there is no wording, or a text where the wording has several columns.
        DataError: a row lacks a column.
    """
    wording = wording_of(kept) if kept is not None else None
    read: Callable[[Input], str] = _as_given if as_is else reader(kept, backbone.tokenizer)
    task = _task(wording)
    split = Split.of(
        "test", [Example(key=f"row/{i}", inputs=read(row), targets=UNKNOWN_TARGET) for i, row in enumerate(rows)]
    )
    most = answer_room(backbone, max_new_tokens)
    room = input_room(backbone, prompter, task.labels, most)
    encoded = encode_split(split, backbone, max_input_tokens=room, max_target_tokens=None)
    job = EvalJob(run=0, task=task, split=encoded, scoring=_scoring(kept, task.labels))
    shares: list[Mapping[str, float] | None] = [None] * len(rows)
    scored = None
    if probabilities and wording is not None and wording.labels and task.labels:
        scored = label_probabilities(backbone, prompter, job)
        shares = [dict(zip(wording.labels, row, strict=True)) for row in scored.tolist()]
    if scored is not None and scoring_of(backbone, task.labels, job.scoring) == "labels":
        texts = backbone.decode(backbone.tokenize_targets(list(task.labels or ())))
        found = [texts[int(row.argmax())] for row in scored]
    else:
        (answered,) = answers(backbone, prompter, [job], max_target_tokens=most)
        found = [text for text, _ in answered]
    canonical = canonical_text(backbone)
    made = [
        Prediction(output=text, label=_label(wording, text, canonical), probabilities=share)
        for text, share in zip(found, shares, strict=True)
    ]
    return Predictions(rows=made, cut=encoded.cut_inputs)


def _scoring(kept: Kept | None, labels: Sequence[str] | None) -> Scoring:
    """As the prompt was validated; `engine.served` takes it the same way."""
    return kept_scoring(kept) if labels else "auto"


def _label(wording: Wording | None, text: str, canonical: Callable[[str], str]) -> str | None:
    return wording.label_of(text, canonical) if wording is not None else None


def _as_given(row: Input) -> str:
    if not isinstance(row, str):
        raise UsageError("a row of columns is not worded: leave --as-is out, or give texts.")
    return row


def _task(wording: Wording | None) -> Task:
    """A task for rows without answers: what bounds and scores them is known from the wording alone."""
    labels = wording.label_words if wording is not None else None
    return Task(
        name=wording.task if wording is not None else "texts",
        category="user",
        labels=labels,
        metrics=wording.metrics if wording is not None else (),
        source=MemorySource(splits={}),
        form=lambda row: (),
        wording=wording,
    )
