"""Graded similarity from 5.0 (same event) to 0.0 (nothing shared), on scenes.

The grade is what is left of 5 after every differing part has taken its share. A part costs less where it differs only
in kind ("violinist" for "pianist") than where it has nothing in common. All costs are whole steps of 0.2, the steps of
STS-B in text-to-text form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw
from generated_tasks.draw import side as side_of
from generated_tasks.english import article, sentence
from generated_tasks.nouns import INDOORS, OUTDOORS, PEOPLE, Noun, of_kind
from generated_tasks.scenes import ACTIVITIES, Activity

_DATA = data_of("similarity")

#: (cost when near, cost when far) of each part, in tenths of a point.
_COSTS = {"subject": (6, 12), "verb": (6, 18), "object": (6, 14), "place": (4, 6)}
_COSTS_WITHOUT_OBJECT = {"subject": (8, 18), "verb": (10, 26), "place": (4, 6)}

_SCENES = frames_of(_DATA["_SCENES"])


class _Side(NamedTuple):
    person: Noun
    activity: Activity
    thing: Noun | None
    place: str


def _grade(cost: int) -> str:
    return f"{max(0, 50 - cost) / 10:.1f}"


def similarity_scene(draw: Draw) -> tuple[Mapping[str, str], str]:
    """Fields ``sentence1`` and ``sentence2``; the target is the grade."""
    first = _side(draw)
    costs = _COSTS if first.thing else _COSTS_WITHOUT_OBJECT
    # As many pairs with no, one, two, ... changed parts, so that the grades spread over the scale.
    changed = draw.shuffled(sorted(costs))[: int(draw.random.random() * (len(costs) + 1))]
    far_share = draw.random.random()
    second, cost = first, 0
    for part in sorted(changed):
        second, distance = _change(draw, second, part, near=draw.random.random() > far_share)
        cost += 0 if distance == "same" else costs[part][0 if distance == "near" else 1]
    sides = [_say(draw, side) for side in (first, second)]
    while sides[0] == sides[1]:
        sides[1] = _say(draw, second)
    return {"sentence1": sides[0], "sentence2": sides[1]}, _grade(cost)


def _side(draw: Draw) -> _Side:
    activity = draw.word(ACTIVITIES)
    thing = draw.word(of_kind(draw.pick(activity.objects))) if activity.objects else None
    return _Side(draw.word(PEOPLE), activity, thing, _place(draw, activity))


def _place(draw: Draw, activity: Activity) -> str:
    return draw.word(INDOORS if activity.where == "in" or (activity.where == "any" and draw.chance(0.5)) else OUTDOORS)


def _change(draw: Draw, side: _Side, part: str, near: bool) -> tuple[_Side, str]:
    """The side with one part changed, and how far it moved: "near", "far", or "same" where nothing else would fit."""
    if part == "subject":
        alike = tuple(p for p in PEOPLE if p.kind == side.person.kind)
        near = near and draw.left(alike, but=(side.person,))
        pool = alike if near else tuple(p for p in PEOPLE if p.kind != side.person.kind)
        return side._replace(person=draw.word(pool, but=(side.person,))), "near" if near else "far"
    if part == "place":
        return (side._replace(place=""), "near") if near else (side._replace(place=_elsewhere(draw, side)), "far")
    if part == "object" and side.thing:
        other_kinds = tuple(k for k in side.activity.objects if k != side.thing.kind)
        alike_things = of_kind(side.thing.kind)
        far = bool(other_kinds) and (not near or not draw.left(alike_things, but=(side.thing,)))
        pool_of = of_kind(draw.pick(other_kinds)) if far else alike_things
        if not draw.left(pool_of, but=(side.thing,)):
            return side, "same"
        return side._replace(thing=draw.word(pool_of, but=(side.thing,))), "far" if far else "near"
    fitting = [a for a in side_of(ACTIVITIES, draw.held_out) if _fits(a, side) and a != side.activity]
    for wanted in (near, not near):
        pool_of_verbs = tuple(a for a in fitting if (a.general.base == side.activity.general.base) == wanted)
        if pool_of_verbs:
            return side._replace(activity=draw.word(pool_of_verbs)), "near" if wanted else "far"
    return side, "same"


def _fits(activity: Activity, side: _Side) -> bool:
    """Whether the activity suits the side's object (or its lack of one) and its place."""
    if not side.thing:
        return not activity.objects
    return side.thing.kind in activity.objects


def _elsewhere(draw: Draw, side: _Side) -> str:
    return draw.word(INDOORS + OUTDOORS, but=(side.place,))


def _say(draw: Draw, side: _Side) -> str:
    form = side.activity.specific.ing
    doing = f"{form} {article(side.thing.name)}" if side.thing else form
    text = draw.frame(_SCENES).format(s=article(side.person.name), p=doing, w=side.place)
    return sentence(text.removeprefix(", "))
