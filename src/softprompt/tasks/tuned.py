"""A task, or a text, worded as a prompt was tuned: what `predict`, `eval`, serving and the Python API read a prompt with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from softprompt.errors import UsageError
from softprompt.tasks.chat import Chat, conversation, with_chat
from softprompt.tasks.rows import Form, Formed, Row
from softprompt.tasks.task import Task
from softprompt.tasks.template import worded
from softprompt.tasks.wording import Wording

Input = Mapping[str, Any] | str
"""A row, or the text of the only column."""


class Kept(Protocol):
    """What a prompt keeps of its task: a library's manifest."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def wording(self) -> Mapping[str, Any] | None:
        """See `Wording.record`."""

    @property
    def chat(self) -> Mapping[str, Any] | None:
        """See `softprompt.tasks.chat.Chat.record`."""


def wording_of(kept: Kept) -> Wording | None:
    """The wording a prompt was tuned with; None where it is not known (imported prompts).

    Prompts from before wordings were kept were tuned on the papers' form where their task is one known here.

    Raises:
        CorruptArtifactError: what it keeps is no wording.
    """
    from softprompt.tasks.catalog import known_wording

    if kept.wording is not None:
        return Wording.of_record(kept.wording)
    found = known_wording(kept.task)
    return found and replace(found, chat=kept.chat)


def reader(kept: Kept | None, tokenizer: Any) -> Callable[[Input], str]:
    """Turns a row or a text into what the backbone read when a prompt was tuned; texts stay as they are without one.

    Raises:
        IncompatibleBackboneError: the tokenizer has another chat template.
    """
    wording = wording_of(kept) if kept is not None else None
    around = conversation(kept.chat if kept is not None else None, tokenizer)

    def read(given: Input) -> str:
        if wording is not None:
            return around(wording.inputs(given))
        if not isinstance(given, str):
            what = (
                "without a prompt"
                if kept is None
                else f"with a prompt of task {kept.task!r}, whose wording is not kept"
            )
            raise UsageError(f"a row of columns cannot be read {what}: give its text, worded.")
        return around(given)

    return read


def for_backbone(task: Task, kind: str, form: str = "auto") -> Task:
    """A task in the wording that suits a backbone.

    Args:
        task: any task.
        kind: of the backbone: ``causal`` reads natural language, the others the papers' form.
        form: ``auto``, or ``t5`` or ``natural`` for every kind; ``auto`` leaves a wording that was chosen.

    Raises:
        UnknownNameError: no such wording.
    """
    if form == "auto" and task.chosen:
        return task
    if form == "auto":
        form = "natural" if kind == "causal" else "t5"
    return task.worded(form)


def as_tuned(task: Task, kept: Kept | None, tokenizer: Any) -> Task:
    """A task in the form a prompt was tuned on. Where the prompt is of another task, only the kind of form is taken over.

    Raises:
        IncompatibleBackboneError: the tokenizer has another chat template.
    """
    if kept is None:
        return task
    wording = wording_of(kept)
    if wording is not None:
        task = reworded(task, wording)
    return task if kept.chat is None else with_chat(task, Chat.of_record(kept.chat, tokenizer), tokenizer)


def reworded(task: Task, wording: Wording) -> Task:
    """A task in a prompt's wording; where that is a template over other columns, the task's own wording stays."""
    own = task.wording
    if own is None or own.form == "raw" or wording.form == "raw":
        return task
    plain = replace(wording, chat=None)
    for name, other in task.wordings.items():
        if other.wording == plain:
            return task.worded(name)
    if wording.form in ("t5", "natural"):
        return task.worded(wording.form)
    same = wording.task == own.task or set(wording.columns) <= set(own.columns)
    if own.form != "template" or not same:
        return task
    form: Form = partial(_read_as, base=task.form, own=own, wording=wording)
    return replace(task, form=form, labels=wording.label_words, wording=wording)


def _read_as(row: Row, *, base: Form, own: Wording, wording: Wording) -> Sequence[Formed]:
    """A row's pairs with the inputs of a prompt's wording, and the label counted as that one counts."""
    inputs = worded(wording.template or "", row)
    made = []
    for one in base(row):
        index = one.extra.get("label")
        if wording.labels is None or own.labels is None or index is None:
            made.append(Formed(inputs, one.targets, one.extra))
            continue
        name = own.labels[index]
        if name not in wording.labels:
            raise row.error(f"label {name!r} is none of those the prompt was tuned on: {', '.join(wording.labels)}.")
        index = wording.labels.index(name)
        made.append(Formed(inputs, (wording.label_words or ())[index], {**one.extra, "label": index}))
    return made
