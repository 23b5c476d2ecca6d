"""What the forms of the tasks known here by name make of a row: the papers' and the natural one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from softprompt.tasks.declaration import DECLARED, Declared
from softprompt.tasks.generated import TASKS, form_of
from softprompt.tasks.natural import NATURAL, with_made_columns
from softprompt.tasks.rows import Form, Row
from softprompt.tasks.template import worded

ALIASES: Mapping[str, str] = {
    "yelp2": "yelp_polarity",
    "yelp_2": "yelp_polarity",
    "yelp": "yelp_polarity",
    "sst_2": "sst2",
    "sts_b": "stsb",
    "docnli": "doc_nli",
    "goemotions": "go_emotions",
    "cosmosqa": "cosmos_qa",
    "cnn_dm": "cnn_dailymail",
    "wikilingua": "wiki_lingua",
    "multinews": "multi_news",
    "socialiqa": "social_i_qa",
    "social_iqa": "social_i_qa",
    "newsqa": "mrqa_news_qa",
    "triviaqa": "mrqa_trivia_qa",
    "searchqa": "mrqa_search_qa",
    "hotpotqa": "mrqa_hotpot_qa",
    "naturalquestions": "mrqa_natural_questions",
    "art": "alpha_nli",
}

DECLARATIONS: Mapping[str, Declared] = {declared.name: declared for declared in DECLARED}


def canonical_name(name: str) -> str:
    """A task's name as it is known here, whatever its case, hyphens or alias; the name itself where it is not known."""
    folded = name.lower().replace("-", "_")
    known = {*DECLARATIONS, *TASKS}
    if name in known:
        return name
    return folded if folded in known else ALIASES.get(folded, name)


def t5_form(declared: Declared, *, prefix: bool, **changes: Any) -> Form:
    """The papers' form of a task of the catalogue.

    Args:
        declared: the task.
        prefix: whether its name stands in front.
        changes: settings of the form to change.
    """
    word = declared.name if declared.prefix is None else declared.prefix
    settings: dict[str, Any] = {**declared.settings, **changes, "prefix": word if prefix and word else None}
    if declared.labels is not None and declared.takes_labels:
        settings["labels"] = declared.labels
    return partial(declared.form, **settings)


def worded_inputs(
    task: str, natural: bool, row: Row, *, template: str | None, label_column: str | None, prefix: bool
) -> str | None:
    """What the form of a task known here makes of a row without its answer; None where it is not known here.

    Args:
        task: its name.
        natural: its natural form; the papers' where False.
        row: with the answer or without.
        template: of the natural form, as a prompt keeps it: what the table has may change later.
        label_column: the answer's.
        prefix: whether the papers' form has the task's name in front.
    """
    known = canonical_name(task)
    values = {name: value for name, value in row.values.items() if name != label_column}
    if known in DECLARATIONS:
        of = DECLARATIONS[known]
        renamed = {of.rename.get(name, name): value for name, value in values.items()}
        row = replace(row, values={name: v for name, v in renamed.items() if name != of.label_column})
        if natural:
            if template is None:
                return None
            base = t5_form(of, prefix=False, **NATURAL[known].settings)
            return worded(template, with_made_columns(row, of.form, base))
        made = t5_form(of, prefix=prefix)(row)
    elif known in TASKS and not natural:
        made = form_of(known)(replace(row, values=values))
    else:
        return None
    if not made:
        raise row.error(f"task {known!r} makes no input of this row.")
    return made[0].inputs
