"""Coreference in the manner of Winograd schemas: which of two a pronoun stands for, decided by what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from softprompt.tasks.generated.data import data_of, frames_of
from softprompt.tasks.generated.draw import Draw
from softprompt.tasks.generated.english import sentence
from softprompt.tasks.generated.nouns import FEMALE_NAMES, MALE_NAMES, PEOPLE

_DATA = data_of("coreference")

CHOICE_LABELS = ("choice1", "choice2")
JUDGE_LABELS = ("False", "True")


class Schema(NamedTuple):
    """A sentence about {a} and {b} with a pronoun {p} and room for {x}.

    ``first`` are the endings that make the pronoun stand for {a}, ``second`` those for {b}. ``pairs`` are the things it
    may be about; none means two people.
    """

    text: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def _schemas(text: str) -> tuple[Schema, ...]:
    out = []
    for line in text.strip().splitlines():
        sentence_text, first, second, *pairs = (part.strip() for part in line.split("|"))
        named = [pair.split("/") for pair in (pairs[0].split(",") if pairs else [])]
        out.append(
            Schema(
                sentence_text,
                tuple(p.strip() for p in first.split(";")),
                tuple(p.strip() for p in second.split(";")),
                tuple((a.strip(), b.strip()) for a, b in named),
            )
        )
    return tuple(out)


SCHEMAS: tuple[Schema, ...] = _schemas("\n".join(_DATA["SCHEMAS"]))
_AROUND = frames_of(_DATA["_AROUND"])


def _told(draw: Draw) -> tuple[str, str, str]:
    """The sentence with its pronoun marked, what the pronoun stands for, and the other one."""
    schema = draw.word(SCHEMAS)
    if schema.pairs:
        a, b = draw.pick(schema.pairs)
        pronoun, names = "it", (f"the {a}", f"the {b}")
    else:
        pronoun = draw.pick(("he", "she"))
        if draw.chance(0.7):
            pool = FEMALE_NAMES if pronoun == "she" else MALE_NAMES
            one, two = draw.shuffled(pool)[:2]
        else:
            people = draw.shuffled([n.name for n in PEOPLE if n.name not in _GENDERED])
            one, two = f"the {people[0]}", f"the {people[1]}"
        a, b = one, two
        names = (one, two)
    first = draw.chance(0.5)
    ending = draw.pick(schema.first if first else schema.second)
    text = schema.text.format(a=a, b=b, p=f"*{pronoun}*", x=ending)
    told = sentence(draw.frame(_AROUND).format(c=text))
    return told, names[0 if first else 1], names[1 if first else 0]


_GENDERED = frozenset(("boy", "girl", "schoolboy", "schoolgirl", "postman", "toddler"))


def coreference_choice(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``choice1``, ``choice2`` and ``sentence``: which choice the marked pronoun stands for."""
    told, right, wrong = _told(draw)
    choices = (right, wrong) if label == "choice1" else (wrong, right)
    return {"choice1": choices[0], "choice2": choices[1], "sentence": told}


def coreference_judge(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``candidate`` and ``text``: whether the marked pronoun stands for the candidate."""
    told, right, wrong = _told(draw)
    return {"candidate": right if label == "True" else wrong, "text": told}
