"""Acceptability: agreement and forms, word order, and what verbs take with them.

Every row is one half of a minimal pair: a construction makes the good and the bad sentence from the same words, and the
label picks one. Word-order pairs hold exactly the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from softprompt.tasks.generated.draw import Draw, Frames, RowMaker
from softprompt.tasks.generated.english import article, plural, sentence, verb
from softprompt.tasks.generated.events import DEEDS, GOODS
from softprompt.tasks.generated.nouns import (
    COLOURS,
    FEMALE_NAMES,
    INDOORS,
    MALE_NAMES,
    NUMBERS,
    OUTDOORS,
    PEOPLE,
    WEEKDAYS,
    of_kind,
)

LABELS = ("unacceptable", "acceptable")
#: A construction: (good sentence, bad sentence).
Pair = tuple[str, str]

THINGS: tuple[str, ...] = tuple(
    noun.name for noun in of_kind("vehicle", "furniture", "tool", "toy", "container", "device", "flower", "instrument")
)
_PEOPLE_NAMES: tuple[str, ...] = tuple(noun.name for noun in PEOPLE)
_STATES = (
    "old new expensive dirty beautiful broken heavy useful famous strange cheap small safe ugly dusty popular dangerous "
    "missing ready wet"
).split()
_PERSON_STATES = "tired happy late hungry ill nervous friendly busy angry proud absent lonely quiet rich strict kind".split()
_LINKS = ("next to", "behind", "in front of", "near", "beside", "opposite")


def _number(noun: str, many: bool) -> str:
    return plural(noun) if many else noun


def _attractor(draw: Draw) -> Pair:
    """"The chairs next to the table are/is old": the verb follows the head, not the nearest noun."""
    many = draw.chance(0.5)
    head = _number(draw.word(THINGS), many)
    near = _number(draw.word(THINGS), not many if draw.chance(0.7) else many)
    right, wrong = draw.pick((("are", "is"), ("were", "was"), ("have been", "has been"), ("seem", "seems"), ("look", "looks")))
    right, wrong = (right, wrong) if many else (wrong, right)
    frame = draw.frame(_ATTRACTORS)
    values = {"head": head, "near": near, "link": draw.pick(_LINKS), "state": draw.pick(_STATES)}
    if "{question}" in frame:
        right, wrong = ("are", "is") if many else ("is", "are")
        return tuple(frame.format(question=v, **values) for v in (right, wrong))  # type: ignore[return-value]
    return tuple(frame.format(verb=v, **values) for v in (right, wrong))  # type: ignore[return-value]


_ATTRACTORS = Frames(
    train=(
        "the {head} {link} the {near} {verb} {state}",
        "my {head} {link} the {near} {verb} {state}",
        "the {head} that we saw {link} the {near} {verb} {state}",
        "I think the {head} {link} the {near} {verb} rather {state}",
    ),
    held_out=(
        "{question} the {head} {link} the {near} {state}?",
        "the {head}, which stood {link} the {near}, {verb} {state}",
        "everybody says that the {head} bought for the {near} {verb} {state}",
    ),
)


def _person_relative(draw: Draw) -> Pair:
    many = draw.chance(0.5)
    head, near = _number(draw.word(_PEOPLE_NAMES), many), _number(draw.word(THINGS), not many)
    right, wrong = draw.pick((("are", "is"), ("were", "was"), ("seem", "seems"))) if many else draw.pick(
        (("is", "are"), ("was", "were"), ("seems", "seem"))
    )
    values = {"head": head, "near": near, "deed": draw.pick(DEEDS).past, "state": draw.pick(_PERSON_STATES)}
    frame = draw.frame(_RELATIVES)
    return frame.format(verb=right, **values), frame.format(verb=wrong, **values)


_RELATIVES = Frames(
    train=("the {head} who {deed} {verb} {state}", "the {head} with the {near} {verb} {state}"),
    held_out=("the {head} from whom we got the {near} {verb} {state}", "nobody knows why the {head} by the {near} {verb} {state}"),
)


def _reflexive(draw: Draw) -> Pair:
    kind = draw.pick(("she", "he", "they"))
    own = {"she": "herself", "he": "himself", "they": "themselves"}
    if kind == "they":
        who = f"the {plural(draw.word(_PEOPLE_NAMES))}"
    else:
        who = draw.word(FEMALE_NAMES if kind == "she" else MALE_NAMES)
    wrong = draw.pick([form for k, form in own.items() if k != kind])
    frame = draw.frame(_REFLEXIVES)
    return frame.format(who=who, own=own[kind]), frame.format(who=who, own=wrong)


_REFLEXIVES = Frames(
    train=(
        "{who} blamed {own} for the accident",
        "{who} taught {own} to swim",
        "yesterday {who} hurt {own} in the kitchen",
        "{who} bought {own} a bicycle",
        "{who} looked at {own} in the mirror",
    ),
    held_out=("after the race {who} rewarded {own} with a cake", "{who} made {own} at home", "{who} could not forgive {own}"),
)


def _determiner(draw: Draw) -> Pair:
    many = draw.chance(0.5)
    noun = draw.word(THINGS)
    right, wrong = draw.pick((("these", "this"), ("those", "that"), ("many", "every"), ("several", "each"), ("few", "a")))
    right, wrong = (right, wrong) if many else (wrong, right)
    if right == "a":
        right, wrong = "every", "few"
    frame = draw.frame(_DETERMINERS)
    form = _number(noun, many)
    return frame.format(d=right, n=form), frame.format(d=wrong, n=form)


_DETERMINERS = Frames(
    train=("I would like to buy {d} {n}", "we looked at {d} {n} in the shop", "he has painted {d} {n}"),
    held_out=("{d} {n} caught my eye", "who on earth would steal {d} {n}?"),
)


def _forms(draw: Draw) -> Pair:
    """Auxiliaries and the verb form each one takes."""
    deed = draw.word(DEEDS)
    while deed.past in (deed.base, deed.participle) and deed.past == deed.base:
        deed = draw.word(DEEDS)
    auxiliary, right = draw.pick(
        (("did not", deed.base), ("can", deed.base), ("should", deed.base), ("has", deed.participle), ("is", deed.ing),
         ("was", deed.ing), ("had", deed.participle), ("will", deed.base), ("must not", deed.base))
    )
    wrong = draw.pick([f for f in (deed.base, deed.third, deed.past, deed.ing) if f not in (right, deed.participle)])
    frame = draw.frame(_FORMS)
    who = draw.pick(FEMALE_NAMES + MALE_NAMES)
    return frame.format(who=who, aux=auxiliary, v=right), frame.format(who=who, aux=auxiliary, v=wrong)


_FORMS = Frames(
    train=("{who} {aux} {v}", "{who} says that my brother {aux} {v}", "it seems that {who} {aux} {v}"),
    held_out=("the woman whose name is {who} {aux} {v}", "in the end, {who} {aux} {v} after all"),
)


def _tense(draw: Draw) -> Pair:
    deed = draw.word(DEEDS)
    past = draw.chance(0.5)
    when = draw.pick(("yesterday", f"last {draw.pick(WEEKDAYS)}", "two weeks ago")) if past else draw.pick(
        ("tomorrow", f"next {draw.pick(WEEKDAYS)}", "in two weeks from now")
    )
    forms = (deed.past, f"will {deed.base}") if past else (f"will {deed.base}", deed.past)
    frame = draw.frame(_TENSES)
    who = draw.pick(FEMALE_NAMES + MALE_NAMES)
    return frame.format(who=who, when=when, v=forms[0]), frame.format(who=who, when=when, v=forms[1])


_TENSES = Frames(
    train=("{when} {who} {v}", "{who} {v} {when}", "my sister says that {who} {v} {when}"),
    held_out=("the person who {v} {when} is {who}", "it is {who} who {v} {when}"),
)


def _existence(draw: Draw) -> Pair:
    many = draw.chance(0.5)
    noun = draw.word(THINGS)
    what = f"{draw.pick(NUMBERS)} {plural(noun)}" if many else article(noun)
    place = draw.pick(INDOORS + OUTDOORS)
    right, wrong = draw.pick((("are", "is"), ("were", "was"), ("have been", "has been")))
    right, wrong = (right, wrong) if many else (wrong, right)
    frame = draw.frame(_EXISTENCE)
    return frame.format(v=right, what=what, place=place), frame.format(v=wrong, what=what, place=place)


_EXISTENCE = Frames(
    train=("there {v} {what} {place}", "{place} there {v} {what}"),
    held_out=("I hear that there {v} {what} {place}", "did you know there {v} {what} {place}?"),
)

_AGREEMENT: tuple[Callable[[Draw], Pair], ...] = (
    _attractor, _attractor, _person_relative, _reflexive, _determiner, _forms, _forms, _tense, _existence,
)


def _who(draw: Draw) -> str:
    return draw.pick((draw.pick(FEMALE_NAMES), draw.pick(MALE_NAMES), f"the {draw.pick(_PEOPLE_NAMES)}"))


# Each frame holds the good and the bad order, with the same words.
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
        "{name} and {who} {deed} => and {name} {who} {deed}",
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
        "who": _who(draw),
        "name": draw.pick(FEMALE_NAMES + MALE_NAMES),
        "thing": thing,
        "colour": draw.pick([c for c in COLOURS if c != "orange"]),
        "state": draw.pick([s for s in _STATES if s[0] not in "aeiou" and s not in ("missing", "ready")]),
        "people": plural(draw.word(_PEOPLE_NAMES)),
        "place": draw.pick(INDOORS + OUTDOORS),
        "base": deed.base,
        "deed": deed.past,
        "part": deed.participle,
    }
    good, _, bad = draw.frame(_ORDERS).partition(" => ")
    return good.format(**values), bad.format(**values)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split(",") if part.strip())


_INTRANSITIVE = _list(
    "laugh, sleep, arrive, disappear, sneeze, cry, exist, fall, blush, faint, smile, cough, vanish, snore, yawn, hesitate, rise"
)
_TRANSITIVE = _list(
    """devour, fix, buy, mention, discover, avoid, own, contain, destroy, describe, deserve, require, purchase, possess, damage,
    produce, locate"""
)
#: (verb, its preposition, a wrong one, what may follow)
_PREPOSITIONS: tuple[tuple[str, str, str, str], ...] = (
    ("depends", "on", "of", "the weather"),
    ("consists", "of", "from", "three parts"),
    ("believes", "in", "at", "ghosts"),
    ("listens", "to", "at", "the radio"),
    ("insists", "on", "for", "a second cup of tea"),
    ("differs", "from", "of", "the others"),
    ("belongs", "to", "at", "the choir"),
    ("relies", "on", "to", "the old map"),
    ("waits", "for", "at", "an answer"),
    ("suffers", "from", "of", "headaches"),
    ("agrees", "with", "at", "the doctor"),
    ("objects", "to", "for", "the new rules"),
    ("apologises", "for", "from", "the noise"),
    ("concentrates", "on", "at", "the exam"),
    ("longs", "for", "on", "the summer"),
    ("deals", "with", "to", "angry customers"),
    ("refers", "to", "on", "the first chapter"),
    ("specialises", "in", "at", "old clocks"),
    ("benefits", "from", "with", "the fresh air"),
    ("looks", "after", "of", "the twins"),
    ("participates", "in", "to", "the contest"),
    ("complains", "about", "from", "the food"),
    ("succeeds", "in", "to", "everything"),
    ("recovers", "from", "of", "the operation"),
    ("dreams", "of", "from", "a house by the sea"),
)
_GERUND = _list("enjoys, avoids, finishes, keeps, suggests, practises, considers, misses, imagines, postpones, risks")
_INFINITIVE = _list("wants, hopes, refuses, decides, manages, promises, offers, fails, hesitates, agrees, expects, wishes")
_BARE = _list("let, made, saw, heard, helped, watched, had, noticed")
_TO = _list("asked, told, forced, allowed, wanted, expected, persuaded, invited, ordered, advised, encouraged, taught")


def _argument(draw: Draw) -> Pair:
    """A verb with what it takes, and with what it does not."""
    who, thing = _who(draw), draw.pick(THINGS)
    deed, kind = draw.pick(DEEDS), draw.pick(("bare", "object", "preposition", "gerund", "clause", "place", "causative"))
    if kind == "bare":
        form = verb(draw.word(_INTRANSITIVE)).past if draw.chance(0.5) else ""
        if form:
            good, bad = f"{who} {form}", f"{who} {form} the {thing}"
        else:
            past = verb(draw.word(_TRANSITIVE)).past
            good, bad = f"{who} {past} the {thing}", f"{who} {past}"
    elif kind == "object":
        taker = verb(draw.word(_TRANSITIVE)).past
        sitter = verb(draw.word(_INTRANSITIVE)).past
        good, bad = f"{who} {taker} the {thing} and {sitter}", f"{who} {sitter} the {thing} and {taker}"
    elif kind == "preposition":
        third, right, wrong, what = draw.word(_PREPOSITIONS)
        good, bad = f"{who} {third} {right} {what}", f"{who} {third} {wrong} {what}"
    elif kind == "gerund":
        doing = draw.chance(0.5)
        main = draw.word(_GERUND if doing else _INFINITIVE)
        forms = (deed.ing, f"to {deed.base}") if doing else (f"to {deed.base}", deed.ing)
        good, bad = f"{who} {main} {forms[0]}", f"{who} {main} {forms[1]}"
    elif kind == "causative":
        bare = draw.chance(0.5)
        main, other = draw.word(_BARE if bare else _TO), draw.pick(FEMALE_NAMES + MALE_NAMES)
        forms = (deed.base, f"to {deed.base}") if bare and main != "helped" else (f"to {deed.base}", deed.base)
        good, bad = f"{who} {main} {other} {forms[0]}", f"{who} {main} {other} {forms[1]}"
        if main == "helped":
            bad = f"{who} {main} {other} {deed.past}"
    elif kind == "clause":
        asker, teller = draw.word(_ASKING), draw.word(_TELLING)
        right_asks = draw.chance(0.5)
        main = asker if right_asks else teller
        clause = f"{draw.pick(FEMALE_NAMES + MALE_NAMES)} {deed.past}"
        links = ("whether", "that") if right_asks else ("that", "whether")
        good, bad = f"{who} {main} {links[0]} {clause}", f"{who} {main} {links[1]} {clause}"
    else:
        main = draw.word(_PLACING)
        place = draw.pick(("on the table", "in the basket", "on the shelf", "under the bed", "into the box"))
        good, bad = f"{who} {main} the {draw.pick(_SMALL)} {place}", f"{who} {main} {place}"
    frame = draw.frame(_ARGUMENTS)
    return frame.format(c=good), frame.format(c=bad)


_ASKING = _list("wondered, asked, inquired, investigated, wanted to know, tried to find out, was not sure")
_TELLING = _list("believed, thought, claimed, hoped, feared, insisted, pretended, assumed, suspected")
_SMALL: tuple[str, ...] = tuple(noun.name for noun in of_kind("toy", "jewellery", "fruit", "vegetable", "publication", "flower"))
_PLACING = _list("put, placed, laid, stuffed, slid, lowered, shoved, tucked")
_ARGUMENTS = Frames(
    train=("{c}", "as you know, {c}", "I am told that {c}", "that day {c}"),
    held_out=("it surprised nobody that {c}", "to our great relief, {c}", "there is a rumour that {c}"),
)


def minimal_pair(constructions: tuple[Callable[[Draw], Pair], ...]) -> RowMaker:
    """Rows with field ``sentence``: the good or the bad half of a pair from one of the constructions."""

    def make(draw: Draw, label: str) -> Mapping[str, str]:
        good, bad = draw.pick(constructions)(draw)
        return {"sentence": sentence(good if label == "acceptable" else bad)}

    return make


acceptability_agreement = minimal_pair(_AGREEMENT)
acceptability_order = minimal_pair((_order,))
acceptability_verbs = minimal_pair((_argument,))
