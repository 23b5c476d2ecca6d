"""Word order: the good and the bad sentence hold exactly the same words.

``acceptability_swap`` speaks of what the sense and the causation tasks speak of, so that shared words point to those and
the shared skill does not.
"""

from __future__ import annotations

from softprompt.tasks.generated.causes import CHAINS, say_part
from softprompt.tasks.generated.draw import Draw, Frames
from softprompt.tasks.generated.english import plural
from softprompt.tasks.generated.events import DEEDS
from softprompt.tasks.generated.lists import words
from softprompt.tasks.generated.nouns import COLOURS, FEMALE_NAMES, INDOORS, MALE_NAMES, OUTDOORS
from softprompt.tasks.generated.pairs import PEOPLE_NAMES, STATES, THINGS, Pair, minimal_pair, who
from softprompt.tasks.generated.sense_words import AMBIGUOUS
from softprompt.tasks.generated.senses import say_use

_ORDERS = Frames(
    train=(
        "{who} bought a {colour} {thing} => {who} bought a {thing} {colour}",
        "the {state} {thing} belongs to {name} => the {thing} {state} belongs to {name}",
        "where did {who} buy the {thing}? => where {who} did buy the {thing}?",
        "why has {who} {part}? => why {who} has {part}?",
        "I wonder where {who} keeps the {thing} => I wonder where keeps {who} the {thing}",
        "{who} has never {part} => {who} has {part} never",
        "{name} picked it up and {deed} => {name} picked up it and {deed}",
        "we saw a big {colour} {thing} {place} => we saw a {colour} big {thing} {place}",
        "{name} gave him the {thing} => {name} gave the {thing} him",
        "{who} did not {base} => {who} not did {base}",
        "{who} stood {place} with the {thing} => {who} stood {place} the {thing} with",
        "all the {people} {deed} => the all {people} {deed}",
        "the {thing} is big enough for {name} => the {thing} is enough big for {name}",
        "it was such an old {thing} that we sold it => it was an such old {thing} that we sold it",
        "can {who} {base}? => can {base} {who}?",
        "{name} and {who} {deed} => {name} {who} and {deed}",
    ),
    held_out=(
        "the {thing} that {who} found was {colour} => the {thing} {who} that found was {colour}",
        "how old is the {thing} of {who}? => how is old the {thing} of {who}?",
        "both of my {people} {deed} => of both my {people} {deed}",
        "{name} turned them down politely => {name} turned down them politely",
        "she asked me whether {who} {deed} => she asked whether me {who} {deed}",
        "what a {state} {thing} this is => what {state} a {thing} this is",
        "{who} had better not {base} => {who} had not better {base}",
        "neither {name} nor {who} {deed} => {name} neither {who} nor {deed}",
        "there stood an old {thing} {place} => there an old stood {thing} {place}",
        "with whom has {name} {part}? => whom with has {name} {part}?",
    ),
)


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
