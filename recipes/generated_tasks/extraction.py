"""Extraction: the answer to a question is a span of a short text, a diary of people's days."""

from __future__ import annotations

from collections.abc import Mapping

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw, Frames
from generated_tasks.english import Verb, article, sentence, verb
from generated_tasks.nouns import (
    FEMALE_NAMES,
    INDOORS,
    MALE_NAMES,
    OUTDOORS,
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
