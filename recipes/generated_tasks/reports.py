"""Two-way entailment over short reports: converses, symmetric relations, implicative and factive verbs, side remarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw, Frames
from generated_tasks.english import sentence
from generated_tasks.events import ATTITUDES, CONVERSES, DEEDS, GOODS, IMPLICATIVES, SYMMETRIC, TRANSFERS
from generated_tasks.nouns import CITIES, FEMALE_NAMES, MALE_NAMES, SURNAMES, WEEKDAYS

_DATA = data_of("reports")

LABELS = ("entailment", "not_entailment")

_AROUND = frames_of(_DATA["_AROUND"])
_HYPOTHESES = Frames(train=("{c}", "it follows that {c}"), held_out=("so {c}", "this means that {c}"))
_ASIDES = frames_of(_DATA["_ASIDES"])


def people(draw: Draw, count: int) -> list[str]:
    """Different names, some with surnames."""
    names: list[str] = []
    while len(names) < count:
        name = draw.pick(FEMALE_NAMES if draw.chance(0.5) else MALE_NAMES)
        if name not in [n.split()[0] for n in names]:
            names.append(f"{name} {draw.pick(SURNAMES)}" if draw.chance(0.25) else name)
    return names


def _converse(draw: Draw, holds: bool) -> tuple[str, str]:
    x, y = people(draw, 2)
    if draw.chance(0.5):
        move, thing = draw.word(TRANSFERS), draw.pick(GOODS)
        told = f"{{x}} {move.giver.past} the {thing} to {{y}}", f"{{y}} {move.taker.past} the {thing} from {{x}}"
        told = (reordered(told[0], thing), reordered(told[1], thing))
    else:
        told = draw.word(CONVERSES)
    if draw.chance(0.5):
        told = (told[1], told[0])
    swapped = {"x": y, "y": x}
    return told[0].format(x=x, y=y), told[1].format(**({"x": x, "y": y} if holds else swapped))


def reordered(clause: str, thing: str) -> str:
    """ "rented out the car", "got the car back": particles after the object where English has them so."""
    for particle in ("back", "over"):
        if f" {particle} the {thing}" in clause:
            return clause.replace(f" {particle} the {thing}", f" the {thing} {particle}")
    return clause


def _symmetric(draw: Draw, holds: bool) -> tuple[str, str]:
    x, y, z = people(draw, 3)
    relation = draw.word(SYMMETRIC)
    pair = (y, x) if holds else draw.pick(((z, x), (y, z)))
    # The third person is told of too, so that a new name alone gives nothing away.
    second = draw.word(SYMMETRIC, but=(relation,)).format(x=z, y=draw.pick(people(draw, 1)))
    return f"{relation.format(x=x, y=y)}, and {second}", relation.format(x=pair[0], y=pair[1])


def _implicative(draw: Draw, holds: bool) -> tuple[str, str]:
    (x,) = people(draw, 1)
    while True:
        main, plain, denied = draw.word(IMPLICATIVES)
        negated, negative = draw.chance(0.4), draw.chance(0.4)
        truth = denied if negated else plain
        if holds == (truth == ("no" if negative else "yes")):
            break
        draw.words.pop()
    deed = draw.word(DEEDS)
    told = f"{x} did not {main.base} to {deed.base}" if negated else f"{x} {main.past} to {deed.base}"
    return told, (f"{x} did not {deed.base}" if negative else f"{x} {deed.past}")


def _attitude(draw: Draw, holds: bool) -> tuple[str, str]:
    x, y = people(draw, 2)
    negative = draw.chance(0.3)
    # A fact entails itself, and its denial never; of what is only thought, neither follows.
    options = tuple(entry for entry in ATTITUDES if entry[1]) if holds else ATTITUDES
    main, fact = draw.word(options)
    deed = draw.word(DEEDS)
    clause = f"{y} did not {deed.base}" if negative else f"{y} {deed.past}"
    contrary = f"{y} {deed.past}" if negative else f"{y} did not {deed.base}"
    said = f"{x} did not {main.base} that {clause}" if fact and draw.chance(0.35) else f"{x} {main.past} that {clause}"
    if not holds and fact:
        return said, contrary
    return said, clause


def _aside(draw: Draw, holds: bool) -> tuple[str, str]:
    x, y = people(draw, 2)
    first, second = draw.words_of(DEEDS, 2)
    told = draw.frame(_ASIDES).format(x=x, y=y, a=first.past, b=second.past)
    return told, f"{x if holds else y} {draw.pick((first, second)).past}"


_MAKERS: tuple[Callable[[Draw, bool], tuple[str, str]], ...] = (
    _converse,
    _converse,
    _symmetric,
    _implicative,
    _implicative,
    _attitude,
    _aside,
)


def entailment_report(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``sentence1`` (the report) and ``sentence2`` (what may follow)."""
    told, claim = draw.pick(_MAKERS)(draw, label == "entailment")
    around = draw.frame(_AROUND).format(c=told, city=draw.pick(CITIES), day=draw.pick(WEEKDAYS))
    return {"sentence1": sentence(around), "sentence2": sentence(draw.frame(_HYPOTHESES).format(c=claim))}
