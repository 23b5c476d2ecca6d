"""Events of reports and diaries: what people do, to whom, with what, and the words that mean the same or the opposite."""

from __future__ import annotations

from typing import NamedTuple

from generated_tasks.data import data_of, frozen
from generated_tasks.english import Verb, verb

_DATA = data_of("events")

#: Things people get done: verb phrases with their own objects.
DEEDS: tuple[Verb, ...] = tuple(verb(phrase) for phrase in _DATA["DEEDS"])


class PersonVerb(NamedTuple):
    """A verb between two people, another with the same meaning, and one of which at most one can be meant."""

    verb: Verb
    same: Verb
    other: Verb


PERSON_VERBS: tuple[PersonVerb, ...] = tuple(
    PersonVerb(*(verb(v.strip()) for v in entry.split("/"))) for entry in _DATA["PERSON_VERBS"]
)


class Transfer(NamedTuple):
    """Giving seen from both ends: ``giver`` verb with "to", ``taker`` verb with "from"."""

    giver: Verb
    taker: Verb
    double_object: bool


TRANSFERS: tuple[Transfer, ...] = tuple(
    Transfer(verb(give), verb(take), double == "double")
    for give, take, double in (
        ("give", "receive", "double"),
        ("sell", "buy", "double"),
        ("lend", "borrow", "double"),
        ("hand", "take", "double"),
        ("send", "get", "double"),
        ("rent out", "rent", "single"),
        ("bequeath", "inherit", "single"),
        ("donate", "obtain", "single"),
        ("pass", "get", "double"),
        ("return", "get back", "single"),
        ("transfer", "take over", "single"),
        ("mail", "receive", "double"),
        ("loan", "borrow", "double"),
        ("supply", "acquire", "single"),
        ("ship", "receive", "single"),
    )
)
GOODS: tuple[str, ...] = frozen(_DATA["GOODS"])
#: (clause with X, the same said of Y, from the other end). Swapping X and Y changes the meaning.
CONVERSES: tuple[tuple[str, str], ...] = frozen(_DATA["CONVERSES"])
#: Relations that hold both ways round.
SYMMETRIC: tuple[str, ...] = frozen(_DATA["SYMMETRIC"])
#: Verbs before "to do": whether doing follows from saying it, and from denying it ("yes", "no", "open").
IMPLICATIVES: tuple[tuple[Verb, str, str], ...] = tuple(
    (verb(v), plain, denied)
    for v, plain, denied in (
        ("manage", "yes", "no"),
        ("remember", "yes", "no"),
        ("bother", "yes", "no"),
        ("dare", "yes", "no"),
        ("happen", "yes", "no"),
        ("fail", "no", "yes"),
        ("forget", "no", "yes"),
        ("neglect", "no", "yes"),
        ("omit", "no", "yes"),
        ("refuse", "no", "open"),
        ("decline", "no", "open"),
        ("hope", "open", "open"),
        ("plan", "open", "open"),
        ("want", "open", "open"),
        ("promise", "open", "open"),
        ("intend", "open", "open"),
        ("agree", "open", "open"),
        ("wish", "open", "open"),
        ("offer", "open", "open"),
        ("threaten", "open", "open"),
        ("prepare", "open", "open"),
    )
)
#: Verbs before "that": whether what follows is a fact.
ATTITUDES: tuple[tuple[Verb, bool], ...] = tuple(
    (verb(v), fact)
    for v, fact in (
        ("know", True),
        ("regret", True),
        ("discover", True),
        ("notice", True),
        ("realise", True),
        ("find out", True),
        ("reveal", True),
        ("learn", True),
        ("think", False),
        ("believe", False),
        ("claim", False),
        ("suspect", False),
        ("dream", False),
        ("imagine", False),
        ("guess", False),
        ("assume", False),
        ("fear", False),
        ("say", False),
    )
)
