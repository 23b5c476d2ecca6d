"""Word order: the good and the bad sentence hold exactly the same words.

``acceptability_swap`` speaks of what the sense and the causation tasks speak of, so that shared words point to those and
the shared skill does not.
"""

from __future__ import annotations

from generated_tasks.causes import CHAINS, say_part
from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw
from generated_tasks.english import plural
from generated_tasks.events import DEEDS
from generated_tasks.lists import words
from generated_tasks.nouns import COLOURS, FEMALE_NAMES, INDOORS, MALE_NAMES, OUTDOORS
from generated_tasks.pairs import PEOPLE_NAMES, STATES, THINGS, Pair, minimal_pair, who
from generated_tasks.sense_words import AMBIGUOUS
from generated_tasks.senses import say_use

_DATA = data_of("word_order")

_ORDERS = frames_of(_DATA["_ORDERS"])


def _order(draw: Draw) -> Pair:
    deed, thing = draw.word(DEEDS), draw.word(THINGS)
    values = {
        "who": who(draw),
        "name": draw.pick(FEMALE_NAMES + MALE_NAMES),
        "thing": thing,
        "colour": draw.pick([c for c in COLOURS if c != "orange"]),
        "state": draw.pick([s for s in STATES if s[0] not in "aeiou" and s not in ("missing", "ready")]),
        "people": plural(draw.word(PEOPLE_NAMES)),
        "place": draw.pick(INDOORS + OUTDOORS),
        "base": deed.base,
        "deed": deed.past,
        "part": deed.participle,
    }
    good, _, bad = draw.frame(_ORDERS).partition(" => ")
    return good.format(**values), bad.format(**values)


_FIXED = frozenset(
    words("the a an his her in on of to with under for from into and my every over at by behind because after than")
)


def _swap(draw: Draw) -> Pair:
    """A sentence of the sense or the causation tasks, and the same with two neighbouring words exchanged."""
    name = draw.pick(FEMALE_NAMES + MALE_NAMES)
    if draw.chance(0.5):
        told = say_use(draw, draw.pick(draw.pick(draw.word(AMBIGUOUS).senses).uses))
    else:
        told = say_part(draw, draw.word(CHAINS), name)
    spoken = told.rstrip(".").split()
    places = [i for i, word in enumerate(spoken[:-1]) if word.lower() in _FIXED and spoken[i + 1].lower() not in _FIXED]
    if not places:
        return _swap(draw)
    i = draw.pick(places)
    first, second = spoken[i], spoken[i + 1]
    if i == 0:
        first, second = first.lower(), second[0].upper() + second[1:]
    return told, " ".join([*spoken[:i], second, first, *spoken[i + 2 :]])


acceptability_order = minimal_pair((_order,))
acceptability_swap = minimal_pair((_swap,))
