"""Cause and effect in the manner of COPA: chains of three events; the middle one is given, one end is to be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from generated_tasks.data import data_of
from generated_tasks.draw import Draw, Frames
from generated_tasks.english import sentence
from generated_tasks.lists import words
from generated_tasks.nouns import FEMALE_NAMES, MALE_NAMES

_DATA = data_of("causes")

LABELS = ("choice1", "choice2")


class Chain(NamedTuple):
    """What led to an event, the event, and what came of it. {n} a name; {p} she, {o} her, {s} her (own)."""

    event: str
    cause: str
    effect: str


def _chains(lines: list[str]) -> tuple[Chain, ...]:
    out = []
    for line in lines:
        cause, event, effect = (part.strip() for part in line.split(">"))
        out.append(Chain(event, cause, effect))
    return tuple(out)


CHAINS: tuple[Chain, ...] = _chains(_DATA["CHAINS"])
_TOLD = Frames(
    train=("{c}", "{c}", "one day {c}", "yesterday {c}"), held_out=("the other week {c}", "as it happened, {c}")
)


_WEATHER = frozenset(
    words("snow snowed rain rained icy wind sun heating electricity zero lightning storm river flooded ash")
)


def _weather(chain: Chain) -> bool:
    """Whether weather or a failing house is in it: such causes and effects could change places."""
    return bool(_WEATHER & set(f"{chain.cause} {chain.event} {chain.effect}".split()))


_OTHER_THAN_WEATHER = tuple(chain for chain in CHAINS if not _weather(chain))


def _pronouns(name: str) -> dict[str, str]:
    female = name in FEMALE_NAMES
    return {"n": name, "o": "her" if female else "him", "s": "her" if female else "his"}


def say_part(draw: Draw, chain: Chain, name: str) -> str:
    """Any part of a chain as a sentence about ``name``."""
    return sentence(draw.frame(_TOLD).format(c=draw.pick(chain).format(**_pronouns(name))))


def _choice(draw: Draw, label: str, asked: str) -> Mapping[str, str]:
    chain = draw.word(CHAINS)
    name = draw.pick(FEMALE_NAMES + MALE_NAMES)
    right, opposite = (chain.cause, chain.effect) if asked == "cause" else (chain.effect, chain.cause)
    if draw.chance(0.3):
        wrong = opposite  # the right story the wrong way round
    else:
        other = draw.word(_OTHER_THAN_WEATHER if _weather(chain) else CHAINS, but=(chain,))
        wrong = other.cause if asked == "cause" else other.effect
    # The stories share one person, so that the name gives nothing away.
    texts = [sentence(t.format(**_pronouns(name))) for t in ((right, wrong) if label == "choice1" else (wrong, right))]
    premise = sentence(draw.frame(_TOLD).format(c=chain.event.format(**_pronouns(name))))
    return {"choice1": texts[0], "choice2": texts[1], "premise": premise, "question": asked}


def cause_choice(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``choice1``, ``choice2``, ``premise`` and ``question``: which choice led to the premise."""
    return _choice(draw, label, "cause")


def effect_choice(draw: Draw, label: str) -> Mapping[str, str]:
    """The same fields: which choice came of the premise."""
    return _choice(draw, label, "effect")
