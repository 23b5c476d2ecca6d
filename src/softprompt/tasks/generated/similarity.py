"""Graded similarity from 5.0 (same event) to 0.0 (nothing shared), on scenes and on headlines.

The grade is what is left of 5 after every differing part has taken its share. A part costs less where it differs only
in kind ("violinist" for "pianist") than where it has nothing in common. All costs are whole steps of 0.2, the steps of
STS-B in text-to-text form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from softprompt.tasks.generated.draw import Draw, Frames
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
    general: bool


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
        near = draw.random.random() > far_share
        second, near = _change(draw, second, part, near)
        cost += costs[part][0 if near else 1]
    sides = [_say(draw, side) for side in draw.shuffled((first, second))]
    return {"sentence1": sides[0], "sentence2": sides[1]}, _grade(cost)


def _side(draw: Draw) -> _Side:
    activity = draw.word(ACTIVITIES)
    thing = draw.word(of_kind(draw.pick(activity.objects))) if activity.objects else None
    return _Side(draw.word(PEOPLE), activity, thing, _place(draw, activity), draw.chance(0.3))


def _place(draw: Draw, activity: Activity) -> str:
    return draw.word(INDOORS if activity.where == "in" or (activity.where == "any" and draw.chance(0.5)) else OUTDOORS)


def _change(draw: Draw, side: _Side, part: str, near: bool) -> tuple[_Side, bool]:
    """The side with one part changed, and whether it is still near (where no near part exists, a far one is taken)."""
    if part == "subject":
        return side._replace(person=draw.word(_relatives(side.person, PEOPLE, near), but=(side.person,))), near
    if part == "object" and side.thing:
        pool = of_kind(side.thing.kind) if near else of_kind(*_other_kinds(side))
        return side._replace(thing=draw.word(pool, but=(side.thing,))), near
    if part == "place":
        return (side._replace(place=""), True) if near else (side._replace(place=_elsewhere(draw, side)), False)
    general = side.activity.general.base
    pool = tuple(
        a for a in ACTIVITIES
        if bool(a.objects) == bool(side.activity.objects) and (a.general.base == general) == near and a != side.activity
    )
    pool = tuple(a for a in pool if not side.thing or near is False or side.thing.kind in a.objects) or pool
    try:
        return side._replace(activity=draw.word(pool), general=False), near
    except ValueError:
        far = tuple(
            a for a in ACTIVITIES if bool(a.objects) == bool(side.activity.objects) and a.general.base != general
        )
        return side._replace(activity=draw.word(far), general=False), False


def _relatives(person: Noun, people: tuple[Noun, ...], near: bool) -> tuple[Noun, ...]:
    return tuple(p for p in people if (p.kind == person.kind) == near)


def _other_kinds(side: _Side) -> tuple[str, ...]:
    kinds = {k for a in ACTIVITIES for k in a.objects if side.thing and k != side.thing.kind}
    return tuple(sorted(kinds))


def _elsewhere(draw: Draw, side: _Side) -> str:
    return draw.word(INDOORS + OUTDOORS, but=(side.place,))


def _say(draw: Draw, side: _Side) -> str:
    form = (side.activity.general if side.general else side.activity.specific).ing
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
    weather | heavy storm / violent storm | shuts schools / forces schools to close
    weather | heat wave / extreme heat | dries out rivers / leaves rivers without water
    weather | flood / high water | damages hundreds of homes / wrecks hundreds of houses
    weather | snowfall / thick snow | brings traffic to a halt / stops all traffic
    weather | hurricane / cyclone | knocks out power / leaves people without electricity
    weather | hail / hailstones | destroys the grape harvest / ruins the vineyards
    business | carmaker / automobile maker | cuts 300 jobs / lays off 300 workers
    business | airline / air carrier | raises ticket prices / makes flights dearer
    business | bank / lender | opens a new branch / starts a new office
    business | supermarket chain / grocery chain | buys its rival / takes over its competitor
    business | brewery / beer maker | reports record profit / earns more than ever
    business | shipyard / shipbuilder | goes bankrupt / files for bankruptcy
    crime | thieves / burglars | steal famous painting / make off with well-known picture
    crime | police / officers | arrest bank robber / catch man who held up bank
    crime | court / judge | jails former mayor / sends ex-mayor to prison
    crime | hackers / computer criminals | attack hospital network / break into clinic's computers
    crime | smugglers / traffickers | hide gold in truck / conceal gold in lorry
    crime | detective / investigator | solves old murder case / clears up murder from long ago
    politics | parliament / lawmakers | passes new tax law / approves law on taxes
    politics | president / head of state | visits earthquake victims / meets survivors of quake
    politics | mayor / city leader | bans cars from centre / keeps cars out of downtown
    politics | minister / cabinet member | resigns over scandal / steps down after affair
    politics | voters / citizens | reject school reform / vote against changing schools
    politics | opposition / rival party | calls for early election / demands that people vote sooner
    sport | football team / soccer side | wins the cup / takes the trophy
    sport | young swimmer / teenage swimmer | breaks world record / swims faster than anyone before
    sport | tennis star / top tennis player | misses final with injury / is too hurt to play final
    sport | cyclist / bike racer | crashes before finish line / falls just short of finish
    sport | coach / trainer | leaves club after defeat / quits team following loss
    sport | fans / supporters | celebrate in the streets / party outdoors
    science | researchers / scientists | discover new frog / find unknown frog species
    science | doctors / physicians | test malaria vaccine / try out shot against malaria
    science | astronomers / sky watchers | spot distant comet / observe comet far away
    science | engineers / technicians | build tiny robot / construct very small robot
    science | zoo / animal park | welcomes baby panda / celebrates birth of panda
    science | divers / underwater explorers | find ancient ship / discover very old wreck
    culture | museum / gallery | shows lost drawings / displays sketches thought lost
    culture | actor / film star | returns to the stage / acts in theatre again
    culture | orchestra / symphony | plays in hospital / gives concert for patients
    culture | writer / author | wins book prize / receives literary award
    culture | festival / music fair | draws record crowd / attracts more visitors than ever
    culture | library / book collection | stays open at night / does not close until morning
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
        # One half is kept, the other half comes from another story.
        change, within = draw.word(STORIES, but=(story,)), 0
        within = 12 if change.theme == story.theme else 18
        kept = {level: getattr(change, level)}
        other, cost = story._replace(**kept), within
    elif level == "theme":
        try:
            other, cost = draw.word(near, but=(story,)), 32
        except ValueError:
            other, cost = draw.word(far), 42
    elif level == "apart":
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
