"""Agreement and verb forms: subjects and verbs, reflexives, determiners, auxiliaries, tenses."""

from __future__ import annotations

from collections.abc import Callable

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw
from generated_tasks.english import article, plural
from generated_tasks.events import DEEDS
from generated_tasks.lists import words
from generated_tasks.nouns import FEMALE_NAMES, INDOORS, MALE_NAMES, NUMBERS, OUTDOORS, WEEKDAYS
from generated_tasks.pairs import PEOPLE_NAMES, STATES, THINGS, Pair, minimal_pair

_DATA = data_of("agreement")

_PERSON_STATES = words(
    "tired happy late hungry ill nervous friendly busy angry proud absent lonely quiet rich strict kind"
)
_LINKS = ("next to", "behind", "in front of", "near", "beside", "opposite")


def _number(noun: str, many: bool) -> str:
    return plural(noun) if many else noun


def _attractor(draw: Draw) -> Pair:
    """ "The chairs next to the table are/is old": the verb follows the head, not the nearest noun."""
    many = draw.chance(0.5)
    head = _number(draw.word(THINGS), many)
    near = _number(draw.word(THINGS), not many if draw.chance(0.7) else many)
    right, wrong = draw.pick(
        (("are", "is"), ("were", "was"), ("have been", "has been"), ("seem", "seems"), ("look", "looks"))
    )
    right, wrong = (right, wrong) if many else (wrong, right)
    frame = draw.frame(_ATTRACTORS)
    values = {"head": head, "near": near, "link": draw.pick(_LINKS), "state": draw.pick(STATES)}
    if "{question}" in frame:
        right, wrong = ("are", "is") if many else ("is", "are")
        return tuple(frame.format(question=v, **values) for v in (right, wrong))  # type: ignore[return-value]
    return tuple(frame.format(verb=v, **values) for v in (right, wrong))  # type: ignore[return-value]


_ATTRACTORS = frames_of(_DATA["_ATTRACTORS"])


def _person_relative(draw: Draw) -> Pair:
    many = draw.chance(0.5)
    head, near = _number(draw.word(PEOPLE_NAMES), many), _number(draw.word(THINGS), not many)
    right, wrong = (
        draw.pick((("are", "is"), ("were", "was"), ("seem", "seems")))
        if many
        else draw.pick((("is", "are"), ("was", "were"), ("seems", "seem")))
    )
    values = {"head": head, "near": near, "deed": draw.pick(DEEDS).past, "state": draw.pick(_PERSON_STATES)}
    frame = draw.frame(_RELATIVES)
    return frame.format(verb=right, **values), frame.format(verb=wrong, **values)


_RELATIVES = frames_of(_DATA["_RELATIVES"])


def _reflexive(draw: Draw) -> Pair:
    kind = draw.pick(("she", "he", "they"))
    own = {"she": "herself", "he": "himself", "they": "themselves"}
    if kind == "they":
        who = f"the {plural(draw.word(PEOPLE_NAMES))}"
    else:
        who = draw.word(FEMALE_NAMES if kind == "she" else MALE_NAMES)
    wrong = draw.pick([form for k, form in own.items() if k != kind])
    frame = draw.frame(_REFLEXIVES)
    return frame.format(who=who, own=own[kind]), frame.format(who=who, own=wrong)


_REFLEXIVES = frames_of(_DATA["_REFLEXIVES"])


def _determiner(draw: Draw) -> Pair:
    many = draw.chance(0.5)
    noun = draw.word(THINGS)
    right, wrong = draw.pick(
        (("these", "this"), ("those", "that"), ("many", "every"), ("several", "each"), ("few", "a"))
    )
    right, wrong = (right, wrong) if many else (wrong, right)
    if right == "a":
        right, wrong = "every", "few"
    frame = draw.frame(_DETERMINERS)
    form = _number(noun, many)
    return frame.format(d=right, n=form), frame.format(d=wrong, n=form)


_DETERMINERS = frames_of(_DATA["_DETERMINERS"])


def _forms(draw: Draw) -> Pair:
    """Auxiliaries and the verb form each one takes."""
    deed = draw.word(DEEDS)
    while deed.past in (deed.base, deed.participle) and deed.past == deed.base:
        deed = draw.word(DEEDS)
    auxiliary, right = draw.pick(
        (
            ("did not", deed.base),
            ("can", deed.base),
            ("should", deed.base),
            ("has", deed.participle),
            ("is", deed.ing),
            ("was", deed.ing),
            ("had", deed.participle),
            ("will", deed.base),
            ("must not", deed.base),
        )
    )
    wrong = draw.pick([f for f in (deed.base, deed.third, deed.past, deed.ing) if f not in (right, deed.participle)])
    frame = draw.frame(_FORMS)
    who = draw.pick(FEMALE_NAMES + MALE_NAMES)
    return frame.format(who=who, aux=auxiliary, v=right), frame.format(who=who, aux=auxiliary, v=wrong)


_FORMS = frames_of(_DATA["_FORMS"])


def _tense(draw: Draw) -> Pair:
    deed = draw.word(DEEDS)
    past = draw.chance(0.5)
    when = (
        draw.pick(("yesterday", f"last {draw.pick(WEEKDAYS)}", "two weeks ago"))
        if past
        else draw.pick(("tomorrow", f"next {draw.pick(WEEKDAYS)}", "in two weeks"))
    )
    forms = (deed.past, f"will {deed.base}") if past else (f"will {deed.base}", deed.past)
    frame = draw.frame(_TENSES)
    who = draw.pick(FEMALE_NAMES + MALE_NAMES)
    return frame.format(who=who, when=when, v=forms[0]), frame.format(who=who, when=when, v=forms[1])


_TENSES = frames_of(_DATA["_TENSES"])


def _existence(draw: Draw) -> Pair:
    many = draw.chance(0.5)
    noun = draw.word(THINGS)
    what = f"{draw.pick(NUMBERS)} {plural(noun)}" if many else article(noun)
    place = draw.pick(INDOORS + OUTDOORS)
    right, wrong = draw.pick((("are", "is"), ("were", "was"), ("have been", "has been")))
    right, wrong = (right, wrong) if many else (wrong, right)
    frame = draw.frame(_EXISTENCE)
    return frame.format(v=right, what=what, place=place), frame.format(v=wrong, what=what, place=place)


_EXISTENCE = frames_of(_DATA["_EXISTENCE"])

_AGREEMENT: tuple[Callable[[Draw], Pair], ...] = (
    _attractor,
    _attractor,
    _person_relative,
    _reflexive,
    _determiner,
    _forms,
    _forms,
    _tense,
    _existence,
)
acceptability_agreement = minimal_pair(_AGREEMENT)
