"""Graded similarity from 5.0 (same event) to 0.0 (nothing shared), on scenes and on headlines.

The grade is what is left of 5 after every differing part has taken its share. A part costs less where it differs only
in kind ("violinist" for "pianist") than where it has nothing in common. All costs are whole steps of 0.2, the steps of
STS-B in text-to-text form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from softprompt.tasks.generated.draw import Draw, Frames
from softprompt.tasks.generated.draw import side as side_of
from softprompt.tasks.generated.english import article, sentence
from softprompt.tasks.generated.nouns import CITIES, INDOORS, OUTDOORS, PEOPLE, Noun, of_kind
from softprompt.tasks.generated.scenes import ACTIVITIES, Activity

#: (cost when near, cost when far) of each part, in tenths of a point.
_COSTS = {"subject": (6, 12), "verb": (6, 18), "object": (6, 14), "place": (4, 6)}
_COSTS_WITHOUT_OBJECT = {"subject": (8, 18), "verb": (10, 26), "place": (4, 6)}

_SCENES = Frames(
    train=("{s} is {p} {w}", "{w}, {s} is {p}", "there is {s} {p} {w}", "{s} is seen {p} {w}"),
    held_out=("we can see {s} {p} {w}", "{s} keeps {p} {w}", "{p} {w}: that is what {s} is doing"),
)


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


def _stories(text: str) -> tuple[Story, ...]:
    out = []
    for line in text.strip().splitlines():
        theme, subject, predicate = (part.strip() for part in line.split("|"))
        one, two = (s.strip() for s in subject.split("/"))
        first, second = (p.strip() for p in predicate.split("/"))
        out.append(Story(f"{one} {first}", theme, (one, two), (first, second)))
    return tuple(out)


STORIES: tuple[Story, ...] = _stories(
    """
    weather | a heavy storm / a violent storm | shut schools / forced schools to close
    weather | a heat wave / extreme heat | dried out rivers / left rivers without water
    weather | a flood / high water | damaged hundreds of homes / wrecked hundreds of houses
    weather | a snowfall / thick snow | brought traffic to a halt / stopped all traffic
    weather | a hurricane / a cyclone | knocked out power / left people without electricity
    weather | hail / hailstones | destroyed the grape harvest / ruined the vineyards
    business | a carmaker / a maker of automobiles | cut 300 jobs / laid off 300 workers
    business | an airline / an air carrier | raised ticket prices / made flights dearer
    business | a bank / a lender | opened a new branch / started a new office
    business | a supermarket chain / a chain of grocery shops | bought its rival / took over its competitor
    business | a brewery / a maker of beer | reported record profit / earned more than ever
    business | a shipyard / a shipbuilder | went bankrupt / filed for bankruptcy
    crime | thieves / burglars | stole a famous painting / made off with a well-known picture
    crime | police / officers | arrested a bank robber / caught the man who held up a bank
    crime | a court / a judge | jailed a former mayor / sent an ex-mayor to prison
    crime | hackers / computer criminals | attacked a hospital network / broke into a clinic's computers
    crime | smugglers / traffickers | hid gold in a truck / concealed gold in a lorry
    crime | a detective / an investigator | solved an old murder case / cleared up a murder from long ago
    politics | parliament / lawmakers | passed a new tax law / approved a law on taxes
    politics | the president / the head of state | visited earthquake victims / met survivors of the quake
    politics | the mayor / the leader of the city | banned cars from the centre / kept cars out of downtown
    politics | a minister / a member of the cabinet | resigned over a scandal / stepped down after an affair
    politics | voters / citizens | rejected the school reform / voted against changing schools
    politics | the opposition / the rival party | called for an early election / demanded that people vote sooner
    sport | a football team / a soccer side | won the cup / took the trophy
    sport | a young swimmer / a teenage swimmer | broke the world record / swam faster than anyone before
    sport | a tennis star / a top tennis player | missed the final with an injury / was too hurt to play the final
    sport | a cyclist / a bike racer | crashed before the finish line / fell just short of the finish
    sport | a coach / a trainer | left the club after a defeat / quit the team following a loss
    sport | fans / supporters | celebrated in the streets / partied outdoors
    science | researchers / scientists | discovered a new frog / found an unknown frog species
    science | doctors / physicians | tested a malaria vaccine / tried out a shot against malaria
    science | astronomers / sky watchers | spotted a distant comet / observed a comet far away
    science | engineers / technicians | built a tiny robot / constructed a very small robot
    science | a zoo / an animal park | welcomed a baby panda / celebrated the birth of a panda
    science | divers / underwater explorers | found an ancient ship / discovered a very old wreck
    culture | a museum / a gallery | showed lost drawings / displayed sketches thought lost
    culture | an actor / a film star | returned to the stage / acted in a theatre again
    culture | an orchestra / a philharmonic | played in a hospital / gave a concert for patients
    culture | a writer / an author | won a book prize / received a literary award
    culture | a festival / a music fair | drew a record crowd / attracted more visitors than ever
    culture | a library / a public reading room | stayed open at night / did not close until morning
    """
)
_HEADLINES = Frames(
    train=("{s} {p} in {c}", "{c}: {s} {p}", "news from {c}: {s} {p}"),
    held_out=("in {c}, {s} {p}, local paper says", "{s} {p}, according to {c} radio"),
)


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
