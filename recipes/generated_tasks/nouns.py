"""Nouns of the generated tasks: people, things and places, with what they are kinds of and what they are also called."""

from __future__ import annotations

from typing import NamedTuple

from generated_tasks.data import data_of, frozen
from generated_tasks.lists import words

_DATA = data_of("nouns")

FEMALE_NAMES: tuple[str, ...] = frozen(_DATA["FEMALE_NAMES"])
MALE_NAMES: tuple[str, ...] = frozen(_DATA["MALE_NAMES"])
SURNAMES: tuple[str, ...] = frozen(_DATA["SURNAMES"])
CITIES: tuple[str, ...] = frozen(_DATA["CITIES"])

#: Hyponyms by kind. A kind may itself be a kind of something (``PARENT``).
KINDS: dict[str, tuple[str, ...]] = frozen(_DATA["KINDS"])
#: The kind above a kind. "somebody" is above every person.
PARENT: dict[str, str] = frozen(_DATA["PARENT"])
PEOPLE_KINDS = ("musician", "athlete", "scientist", "artist", "child", "doctor", "worker")
#: People without a kind of their own here: the word above them is "person".
OTHER_PEOPLE: tuple[str, ...] = frozen(_DATA["OTHER_PEOPLE"])

INDOORS: tuple[str, ...] = frozen(_DATA["INDOORS"])
OUTDOORS: tuple[str, ...] = frozen(_DATA["OUTDOORS"])
WEEKDAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")

COLOURS = words("red blue green yellow white black brown grey pink purple orange")
NUMBERS = words("two three four five six seven eight nine ten")

#: Adjectives of anybody that cannot both hold.
ANYBODY_OPPOSITES: tuple[tuple[str, str], ...] = frozen(_DATA["ANYBODY_OPPOSITES"])
#: The same for grown-ups.
PERSON_OPPOSITES: tuple[tuple[str, str], ...] = (
    *ANYBODY_OPPOSITES,
    ("young", "old"),
    ("rich", "poor"),
    ("slim", "plump"),
    ("famous", "unknown"),
    ("experienced", "inexperienced"),
)
#: Sizes that cannot both hold.
SIZE_OPPOSITES: tuple[tuple[str, str], ...] = frozen(_DATA["SIZE_OPPOSITES"])
#: Adjectives of made things that cannot both hold.
THING_OPPOSITES: tuple[tuple[str, str], ...] = (
    *SIZE_OPPOSITES,
    ("new", "old"),
    ("heavy", "light"),
    ("clean", "dirty"),
    ("cheap", "expensive"),
    ("wet", "dry"),
    ("shiny", "dull"),
    ("modern", "ancient"),
    ("beautiful", "ugly"),
    ("dusty", "spotless"),
    ("damaged", "intact"),
)


class Noun(NamedTuple):
    """A noun and the kind right above it."""

    name: str
    kind: str


PEOPLE: tuple[Noun, ...] = tuple(Noun(name, kind) for kind in PEOPLE_KINDS for name in KINDS[kind]) + tuple(
    Noun(name, "person") for name in OTHER_PEOPLE
)


def of_kind(*kinds: str) -> tuple[Noun, ...]:
    """All nouns of some kinds."""
    return tuple(Noun(name, kind) for kind in kinds for name in KINDS[kind])


def above(noun: Noun) -> tuple[str, ...]:
    """The words for what a noun is a kind of, nearest first."""
    parent = PARENT.get(noun.kind)
    return (noun.kind, parent) if parent else (noun.kind,)
