"""The natural-language wording of every task of the catalogue: a template, the answers, and the task in one sentence.

For decoder-only backbones, which were trained on text as people write it. The papers' form stands beside it and stays the
default for T5. A template names the row's columns, and these that are made of them: ``choices`` (the options under A, B,
C, ...), ``text`` (the source of a generation task, structures as one line), ``marked`` (WSC's text with the pronoun
marked), ``beginning`` (the first part of a text that is to be continued).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from softprompt.tasks import preprocessors
from softprompt.tasks.declaration import FILE
from softprompt.tasks.rows import UNKNOWN_TARGET, Form, Formed, Row
from softprompt.tasks.template import escaped, worded

LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H")


@dataclass(frozen=True, kw_only=True)
class Natural:
    """A natural-language wording.

    Attributes:
        template: of the inputs; it ends where the answer begins.
        instruction: the task in one sentence.
        answers: what the backbone writes for each label, in the labels' order; the labels themselves where None.
        settings: of the task's form, where they differ from those of the papers' wording.
        by_label: the answer is the row's label, though the papers' form asks for a text (WSC).
        labels: of the task, where ``by_label``.
        metrics: those of the task where empty.
    """

    template: str
    instruction: str
    answers: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_label: bool = False
    labels: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()


NATURAL: Mapping[str, Natural] = {name: Natural(**told["natural"]) for name, told in FILE["tasks"].items()}
"""Task -> its wording, as ``catalog.toml`` has it."""


def generic(columns: Sequence[str], label: str) -> str:
    """The natural template of a task known by its columns alone: ``Text: {text}``, a line each, then ``Label:``."""
    lines = [f"{_title(column)}: {{{column}}}" for column in columns]
    return "\n".join([*lines, f"{_title(label)}:"])


def _title(column: str) -> str:
    words = column.replace("_", " ").strip()
    return escaped(words[:1].upper() + words[1:])


def natural_form(
    row: Row, *, natural: Natural, form: Callable[..., Sequence[Formed]] | None, base: Form
) -> list[Formed]:
    """The pairs of a row in natural language.

    Args:
        natural: the wording.
        form: the function of the task's own form, by which columns are made (`with_made_columns`); None for none.
        base: that form with its settings: gives targets and what metrics need.
    """
    inputs = worded(natural.template, with_made_columns(row, form, base))
    if natural.by_label:
        index = row.label(natural.labels or ())
        made = [Formed(inputs, UNKNOWN_TARGET, {"label": index, "idx": row.values.get("idx")})]
    else:
        made = [Formed(inputs, one.targets, one.extra) for one in base(row)]
    if natural.answers is None:
        return made
    return [replace_target(one, natural.answers) for one in made]


def replace_target(one: Formed, answers: Sequence[str]) -> Formed:
    """A pair with the answer of its label as target."""
    index = one.extra.get("label")
    return Formed(one.inputs, UNKNOWN_TARGET if index is None else answers[index], one.extra)


def with_made_columns(row: Row, form: Callable[..., Sequence[Formed]] | None, base: Form) -> Row:
    """A row with the columns that a natural template may name beside the row's own."""
    settings = getattr(base, "keywords", {})
    made: dict[str, Any] = {}
    if form is preprocessors.choices:
        options = preprocessors.listed_options(row, settings["options"])
        made["choices"] = "\n".join(f"{letter}: {text}" for letter, text in zip(LETTERS, options, strict=False))
    elif form is preprocessors.multirc:
        made = {name: preprocessors.without_tags(row.text(name)) for name in ("paragraph", "question", "answer")}
    elif form is preprocessors.wsc:
        made["marked"] = preprocessors.marked_pronoun(row)
    elif form is preprocessors.record:
        made["passage"] = preprocessors.without_highlights(row.text("passage"))
    elif form is preprocessors.generate:
        made["text"] = preprocessors.source_text(row, settings["source"])
    elif form is preprocessors.translate:
        made["text"] = preprocessors.in_language(row, settings["source"][0], "translation")
    elif form is preprocessors.prefix_lm:
        made["beginning"] = "".join(one.inputs for one in base(row)[:1])
    return replace(row, values={**row.values, **made}) if made else row
