"""Extraction: the answer to a question is a span of a short text, of a diary of people's days or of invented facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from softprompt.tasks.generated.data import data_of, frames_of, frozen
from softprompt.tasks.generated.draw import Draw, Frames
from softprompt.tasks.generated.english import Verb, article, sentence, verb
from softprompt.tasks.generated.lists import words
from softprompt.tasks.generated.nouns import (
    CITIES,
    FEMALE_NAMES,
    INDOORS,
    MALE_NAMES,
    MONTHS,
    OUTDOORS,
    SURNAMES,
    WEEKDAYS,
    of_kind,
)

_DATA = data_of("extraction")

_DOINGS: tuple[Verb, ...] = tuple(verb(base) for base in _DATA["_DOINGS"])
_GOODS: tuple[str, ...] = tuple(
    noun.name
    for noun in of_kind(
        "vehicle",
        "piece of furniture",
        "tool",
        "toy",
        "container",
        "device",
        "garment",
        "piece of jewellery",
        "string instrument",
        "publication",
    )
)
_PLACES = INDOORS + OUTDOORS

_DIARY = frames_of(_DATA["_DIARY"])
_ASKED: dict[str, Frames] = {name: frames_of(told) for name, told in _DATA["_ASKED"].items()}


def _entry(draw: Draw, names: list[str], things: list[str], places: list[str], days: list[str]) -> dict[str, str]:
    done = draw.word(_DOINGS)
    thing = things.pop()
    return {
        "who": names.pop(),
        "thing": thing,
        "a_thing": article(thing),
        "place": places.pop(),
        "day": days.pop(),
        "base": done.base,
        "past": done.past,
        "part": done.participle,
    }


def extraction_diary(draw: Draw) -> tuple[Mapping[str, str], str]:
    """Fields ``context`` (two to four people, each doing one thing) and ``question``; the answer stands in the text."""
    count = 2 + int(draw.random.random() * 3)
    names = draw.shuffled([draw.word(FEMALE_NAMES + MALE_NAMES) for _ in range(count)])
    while len(set(names)) < count:
        names = [draw.word(FEMALE_NAMES + MALE_NAMES) for _ in range(count)]
    things, places = draw.words_of(_GOODS, count), draw.words_of(_PLACES, count)
    days = draw.shuffled(WEEKDAYS)[:count]
    entries = [_entry(draw, names, things, places, days) for _ in range(count)]
    context = " ".join(sentence(draw.frame(_DIARY).format(**entry)) for entry in entries)
    entry = draw.pick(entries)
    asked = draw.pick(tuple(_ASKED))
    question = draw.frame(_ASKED[asked]).format(**entry)
    return {"context": context, "question": sentence(question)}, entry[asked]


class Fact(NamedTuple):
    """Something a text can say of an invented place: how it says it, and how one asks for it."""

    name: str
    said: tuple[str, str]
    asked: tuple[str, str]


#: ``said`` and ``asked`` hold a training wording and a held-out wording.
_FACTS: tuple[Fact, ...] = tuple(Fact(*frozen(told)) for told in _DATA["_FACTS"])
_BUILDINGS = words(
    "bridge museum tower theatre library station market castle garden hall church lighthouse school hospital"
)
_COMPANIES = words("Brothers Company Foundation Society Trust Bank Club Family")
_INTRODUCED = frames_of(_DATA["_INTRODUCED"])


def _value(draw: Draw, kind: str) -> str:
    animals = tuple(noun.name for noun in of_kind("wild animal", "bird"))
    name = f"{draw.word(FEMALE_NAMES + MALE_NAMES)} {draw.word(SURNAMES)}"
    number = int(draw.random.random() * 900) + 100
    made: dict[str, str] = {
        "year": str(1800 + number % 220),
        "person": name,
        "city": draw.word(CITIES),
        "length": str(number // 2 + 13),
        "visitors": f"{number} thousand",
        "colour": draw.pick(("red", "blue", "green", "yellow", "white", "black", "brown", "grey", "pink")),
        "month": draw.pick(MONTHS),
        "owner": f"the {draw.word(SURNAMES)} {draw.pick(_COMPANIES)}",
        "price": str(number % 60 + 2),
        "animal": article(draw.word(animals)),
    }
    return made[kind]


def extraction_facts(draw: Draw) -> tuple[Mapping[str, str], str]:
    """Fields ``context`` (three or four facts about an invented building) and ``question``."""
    name = f"{draw.word(SURNAMES)} {draw.pick(_BUILDINGS)}"
    wording = 1 if draw.held_out else 0
    facts = draw.shuffled(_FACTS)[: 3 + int(draw.chance(0.5))]
    values = [_value(draw, fact.name) for fact in facts]
    draw.structures.extend(text for fact in facts for text in (fact.said[wording], fact.asked[wording]))
    told = [sentence(draw.frame(_INTRODUCED).format(n=name))]
    told += [sentence(fact.said[wording].format(v=value)) for fact, value in zip(facts, values, strict=True)]
    which = int(draw.random.random() * len(facts))
    question = facts[which].asked[wording].format(n=f"the {name}")
    return {"context": " ".join(told), "question": sentence(question)}, values[which]
