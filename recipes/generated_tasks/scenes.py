"""Scenes: who does what where, with what each part is a kind of and what it excludes. The world of the entailment tasks.

A premise and a hypothesis are two readings of one scene. Every part of the hypothesis stands in one relation to the
premise's: EQUAL, WIDER (a dog is an animal; a part left out), NARROWER (the converse), or APART (cannot both hold).
Truth follows from the relations alone: all equal or wider, the hypothesis is entailed; something apart and nothing
narrower, it is contradicted; something narrower and nothing apart, it is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from generated_tasks.data import data_of
from generated_tasks.draw import Draw
from generated_tasks.english import Verb, article, verb
from generated_tasks.lists import words
from generated_tasks.nouns import (
    ANYBODY_OPPOSITES,
    COLOURS,
    INDOORS,
    OUTDOORS,
    PEOPLE,
    PERSON_OPPOSITES,
    SIZE_OPPOSITES,
    THING_OPPOSITES,
    Noun,
    above,
    of_kind,
)

_DATA = data_of("scenes")

EQUAL, WIDER, NARROWER, APART = "equal", "wider", "narrower", "apart"


class Activity(NamedTuple):
    """Something one does for a while.

    Attributes:
        name: identity, the specific verb's base form and its object kind.
        specific: a narrow verb.
        general: a verb that holds whenever the narrow one does.
        objects: kinds of its object; empty where it has none.
        where: "in", "out" or "any".
        posture: doings of different posture groups exclude each other; "" excludes nothing.
    """

    name: str
    specific: Verb
    general: Verb
    objects: tuple[str, ...]
    where: str
    posture: str


def _activity(line: str) -> Activity:
    """``specific > general | object kinds | where | posture``"""
    verbs, kinds, where, posture = (part.strip() for part in (line + "||||").split("|")[:4])
    specific, _, general = (v.strip() for v in verbs.partition(">"))
    objects = tuple(k.strip() for k in kinds.split(",") if k.strip())
    return Activity(f"{specific} {kinds}".strip(), verb(specific), verb(general), objects, where, posture)


ACTIVITIES: tuple[Activity, ...] = tuple(_activity(line) for line in _DATA["ACTIVITIES"])

_COLOURED = frozenset(words("vehicle boat garment hat toy container device flower piece_of_furniture"))
_MADE = frozenset(_DATA["_MADE"])
#: Postures in which one thing is used at a time, so that another of its kind is excluded.
_ONE_AT_A_TIME = frozenset(("drive",))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part as the premise says it and as the hypothesis says it; "" where it is left out."""

    premise: str
    hypothesis: str
    relation: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A premise and a hypothesis over the same scene, part by part.

    ``verbs`` are the forms the two sides use.
    """

    subject: Part
    subject_adjective: Part
    verbs: tuple[Verb, Verb]
    verb_relation: str
    object: Part
    object_adjective: Part
    place: Part

    def relations(self) -> set[str]:
        """All relations that occur."""
        parts = (self.subject, self.subject_adjective, self.object, self.object_adjective, self.place)
        return {part.relation for part in parts} | {self.verb_relation}

    def noun_phrase(self, part: Part, adjective: Part, premise: bool) -> str:
        """Adjective and noun, without an article."""
        words = (adjective.premise, part.premise) if premise else (adjective.hypothesis, part.hypothesis)
        return " ".join(w for w in words if w)

    def subject_phrase(self, premise: bool) -> str:
        """The subject without an article."""
        return self.noun_phrase(self.subject, self.subject_adjective, premise)

    def predicate(self, premise: bool) -> str:
        """Verb in -ing with its object."""
        form = self.verbs[0 if premise else 1].ing
        noun = self.noun_phrase(self.object, self.object_adjective, premise)
        if not noun:
            return form
        return f"{form} {article(noun)}"

    def where(self, premise: bool) -> str:
        """The place, or ""."""
        return self.place.premise if premise else self.place.hypothesis


def _adjective(draw: Draw, options: tuple[tuple[str, str], ...], relation: str) -> Part:
    """A part from pairs of adjectives that exclude each other (or colours), in the wanted relation."""
    if relation == "none":
        return Part(premise="", hypothesis="", relation=EQUAL)
    pair = draw.words_of(COLOURS, 2) if options is _COLOUR_PAIRS else draw.word(options)
    first, second = (pair[0], pair[1]) if draw.chance(0.5) else (pair[1], pair[0])
    if relation == EQUAL:
        return Part(premise=first, hypothesis=first, relation=EQUAL)
    if relation == WIDER:
        return Part(premise=first, hypothesis="", relation=WIDER)
    if relation == NARROWER:
        return Part(premise="", hypothesis=first, relation=NARROWER)
    return Part(premise=first, hypothesis=second, relation=APART)


#: Stands for any two colours.
_COLOUR_PAIRS: tuple[tuple[str, str], ...] = (("colour", "colour"),)


def _place(draw: Draw, where: str, relation: str) -> Part:
    inside = draw.chance(0.5) if where == "any" else where == "in"
    names, word, other = (INDOORS, "indoors", "outdoors") if inside else (OUTDOORS, "outdoors", "indoors")
    if relation == "none":
        return Part(premise="", hypothesis="", relation=EQUAL)
    name = draw.word(names)
    if relation == EQUAL:
        return Part(premise=name, hypothesis=name, relation=EQUAL)
    if relation == WIDER:
        return Part(premise=name, hypothesis=draw.pick(("", word)), relation=WIDER)
    if relation == NARROWER:
        return Part(premise=draw.pick(("", word)), hypothesis=name, relation=NARROWER)
    if draw.chance(0.4):
        return Part(premise=name, hypothesis=other, relation=APART)
    return Part(premise=name, hypothesis=draw.word(names, but=(name,)), relation=APART)


def _noun(draw: Draw, noun: Noun, relation: str, others: tuple[Noun, ...] = ()) -> Part:
    wider = draw.pick(above(noun))
    if relation == EQUAL:
        return Part(premise=noun.name, hypothesis=noun.name, relation=EQUAL)
    if relation == WIDER:
        return Part(premise=noun.name, hypothesis=wider, relation=WIDER)
    if relation == NARROWER:
        return Part(premise=wider, hypothesis=noun.name, relation=NARROWER)
    return Part(premise=noun.name, hypothesis=draw.word(others, but=(noun,)).name, relation=APART)


def _verbs(draw: Draw, activity: Activity, relation: str) -> tuple[Verb, Verb]:
    if relation == EQUAL:
        form = draw.pick((activity.specific, activity.general))
        return form, form
    if relation == WIDER:
        return activity.specific, activity.general
    if relation == NARROWER:
        return activity.general, activity.specific
    rivals = tuple(
        a
        for a in ACTIVITIES
        if a.posture
        and activity.posture
        and a.posture != activity.posture
        and a.objects == activity.objects
        and a.where in (activity.where, "any")
    )
    rival = draw.word(rivals)
    return draw.pick((activity.specific, activity.general)), draw.pick((rival.specific, rival.general))


def scene(draw: Draw, wanted: str, *, fixed: tuple[str, ...] = ()) -> Scene:
    """A scene whose relations give ``wanted``: "entailed", "open" or "excluded".

    Entailed: one to three parts wider, the rest equal. Open: one or two narrower, perhaps some wider. Excluded: one
    apart, perhaps some wider.

    Args:
        fixed: slots that stay equal, of "subject", "adjective", "verb", "object", "object adjective", "place".
    """
    activity = draw.word(ACTIVITIES)
    person = draw.word(PEOPLE)
    while person.kind == "child" and activity.posture == "drive":
        person = draw.word(PEOPLE)
    thing = _thing(draw, activity)
    slots = ["subject", "adjective", "verb", "place"] + (["object", "object adjective"] if thing else [])
    relation = dict.fromkeys(slots, EQUAL)
    for slot in ("adjective", "object adjective", "place"):
        if slot in relation and draw.chance(0.55):
            relation[slot] = "none"
    free = draw.shuffled([slot for slot in slots if slot not in fixed])
    if wanted == "excluded":
        chosen = next(s for s in free if _can_exclude(s, activity))
        relation[chosen] = APART
        free.remove(chosen)
        # "An old musician" does not exclude "a young violinist": with opposite adjectives the noun must be the same.
        same = {"adjective": "subject", "object adjective": "object"}.get(chosen)
        free = [slot for slot in free if slot != same]
    elif wanted == "open":
        for slot in free[: 1 + int(draw.chance(0.25))]:
            relation[slot] = NARROWER
        free = free[2:]
    least, most = (1, 3) if wanted == "entailed" else (0, 2)
    for slot in free[: least + int(draw.random.random() * (most - least + 1))]:
        relation[slot] = WIDER
    return _build(draw, activity, person, thing, relation)


def _thing(draw: Draw, activity: Activity) -> Noun | None:
    if not activity.objects:
        return None
    return draw.word(of_kind(draw.pick(activity.objects)))


def _can_exclude(slot: str, activity: Activity) -> bool:
    if slot == "subject":
        return False
    if slot == "object":
        return activity.posture in _ONE_AT_A_TIME
    if slot == "verb":
        return bool(activity.posture) and not activity.objects
    return True


def _build(draw: Draw, activity: Activity, person: Noun, thing: Noun | None, relation: dict[str, str]) -> Scene:
    empty = Part(premise="", hypothesis="", relation=EQUAL)
    object_part, object_adjective = empty, empty
    if thing:
        object_part = _noun(draw, thing, relation["object"], of_kind(thing.kind))
        pairs = THING_OPPOSITES if thing.kind in _MADE else SIZE_OPPOSITES
        if thing.kind in _COLOURED and draw.chance(0.5):
            pairs = _COLOUR_PAIRS
        object_adjective = _adjective(draw, pairs, relation["object adjective"])
    return Scene(
        subject=_noun(draw, person, relation["subject"]),
        subject_adjective=_adjective(
            draw, ANYBODY_OPPOSITES if person.kind == "child" else PERSON_OPPOSITES, relation["adjective"]
        ),
        verbs=_verbs(draw, activity, relation["verb"]),
        verb_relation=relation["verb"],
        object=object_part,
        object_adjective=object_adjective,
        place=_place(draw, activity.where, relation["place"]),
    )
