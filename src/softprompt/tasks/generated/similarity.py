"""Graded similarity from 5.0 (same event) to 0.0 (nothing shared), on scenes and on headlines.

The grade is what is left of 5 after every differing part has taken its share. A part costs less where it differs only
in kind ("violinist" for "pianist") than where it has nothing in common. All costs are whole steps of 0.2, the steps of
STS-B in text-to-text form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from softprompt.tasks.generated.data import data_of, frames_of
from softprompt.tasks.generated.draw import Draw
from softprompt.tasks.generated.draw import side as side_of
from softprompt.tasks.generated.english import article, sentence
from softprompt.tasks.generated.nouns import CITIES, INDOORS, OUTDOORS, PEOPLE, Noun, of_kind
from softprompt.tasks.generated.scenes import ACTIVITIES, Activity

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


class Story(NamedTuple):
    """A kind of news: two ways to name who, two ways to say what happened."""

    name: str
    theme: str
    subject: tuple[str, str]
    predicate: tuple[str, str]


def _stories(lines: list[str]) -> tuple[Story, ...]:
    out = []
    for line in lines:
        theme, subject, predicate = (part.strip() for part in line.split("|"))
        one, two = (s.strip() for s in subject.split("/"))
        first, second = (p.strip() for p in predicate.split("/"))
        out.append(Story(f"{one} {first}", theme, (one, two), (first, second)))
    return tuple(out)


STORIES: tuple[Story, ...] = _stories(_DATA["STORIES"])
_HEADLINES = frames_of(_DATA["_HEADLINES"])


def similarity_headline(draw: Draw) -> tuple[Mapping[str, str], str]:
    """Fields ``sentence1`` and ``sentence2``: same story (5.0), same theme, or nothing shared; another city costs 0.8."""
    story = draw.word(STORIES)
    level = draw.pick(("same", "same", "subject", "predicate", "theme", "theme", "apart"))
    near = tuple(s for s in STORIES if s.theme == story.theme)
    far = tuple(s for s in STORIES if s.theme != story.theme)
    other, cost = story, 0
    if level in ("subject", "predicate"):
        # One half is kept, the other half comes from another story, of the theme where there is one.
        change = draw.word(near if draw.left(near, but=(story,)) else far, but=(story,))
        if level == "subject":
            other = story._replace(predicate=change.predicate)
        else:
            other = story._replace(subject=change.subject)
        cost = 12
    elif level == "theme" and draw.left(near, but=(story,)):
        other, cost = draw.word(near, but=(story,)), 32
    elif level != "same":
        other, cost = draw.word(far), 42
    cities = draw.shuffled(CITIES)[:2]
    if draw.chance(0.5):
        cities[1] = cities[0]
    else:
        cost += 8
    texts = []
    for told, city in zip((story, other), cities, strict=True):
        way = 0 if draw.chance(0.5) else 1
        subject, predicate = told.subject[way], told.predicate[way if draw.chance(0.7) else 1 - way]
        texts.append(sentence(draw.frame(_HEADLINES).format(s=subject, p=predicate, c=city)))
    texts = draw.shuffled(texts)
    return {"sentence1": texts[0], "sentence2": texts[1]}, _grade(cost)
