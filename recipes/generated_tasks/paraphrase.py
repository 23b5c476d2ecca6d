"""Paraphrase of sentences (same event or not) and of questions (same answer or not).

Most wrong pairs share all their words with the right ones: who did it to whom, what came first and which way round
decide, not which words occur.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw, Frames
from generated_tasks.english import Verb, article, sentence, verb
from generated_tasks.events import CONVERSES, DEEDS, GOODS, PERSON_VERBS, SYMMETRIC, TRANSFERS
from generated_tasks.nouns import CITIES, WEEKDAYS
from generated_tasks.reports import people, reordered

_DATA = data_of("paraphrase")

SENTENCE_LABELS = ("not_equivalent", "equivalent")
QUESTION_LABELS = ("not_duplicate", "duplicate")

_ACTIVE = frames_of(_DATA["_ACTIVE"])
_PASSIVE = frames_of(_DATA["_PASSIVE"])
_GIVING = frames_of(_DATA["_GIVING"])
_TAKING = frames_of(_DATA["_TAKING"])
_BEFORE = frames_of(_DATA["_BEFORE"])
_AFTER = frames_of(_DATA["_AFTER"])


def _time(draw: Draw) -> str:
    place = f"in {draw.pick(CITIES)}"
    return draw.pick(
        (f"on {draw.pick(WEEKDAYS)}", f"last {draw.pick(WEEKDAYS)}", place, place, "yesterday", "this morning")
    )


def _voice(draw: Draw, same: bool) -> tuple[str, str]:
    x, y = people(draw, 2)
    entry = draw.word(PERSON_VERBS)
    when = _time(draw)
    change = "none" if same else draw.pick(("swap", "verb"))
    other = entry.other if change == "verb" else draw.pick((entry.verb, entry.same))
    sides = [(entry.verb, x, y), (other, *((y, x) if change == "swap" else (x, y)))]
    return tuple(_told(draw, done, who, whom, when) for done, who, whom in sides)  # type: ignore[return-value]


def _told(draw: Draw, done: Verb, who: str, whom: str, when: str) -> str:
    frame = draw.frame(_PASSIVE if draw.chance(0.5) else _ACTIVE)
    return frame.format(x=who, y=whom, past=done.past, part=done.participle, past_base=done.base, t=when)


def _transfer(draw: Draw, same: bool) -> tuple[str, str]:
    x, y = people(draw, 2)
    move, (good, other_good), when = draw.word(TRANSFERS), draw.words_of(GOODS, 2), _time(draw)
    change = "none" if same else draw.pick(("swap", "good"))
    sides = [(x, y, good), ((y, x, good) if change == "swap" else (x, y, other_good if change == "good" else good))]
    texts = []
    for who, whom, what in sides:
        frame = draw.frame(_TAKING if draw.chance(0.5) else _GIVING)
        text = frame.format(
            x=who, y=whom, o=what, t=when, give=move.giver.past, given=move.giver.participle, take=move.taker.past
        )
        texts.append(reordered(text, what))
    return texts[0], texts[1]


def _order(draw: Draw, same: bool) -> tuple[str, str]:
    x, y = people(draw, 2)
    first, second = draw.words_of(DEEDS, 2)
    a, b = f"{x} {first.past}", f"{y} {second.past}"
    frames = [draw.frame(_AFTER if draw.chance(0.5) else _BEFORE) for _ in range(2)]
    one, two = frames[0].format(a=a, b=b), frames[1].format(a=a, b=b)
    if not same:
        crossed = f"{x} {second.past}", f"{y} {first.past}"
        two = frames[1].format(a=b, b=a) if draw.chance(0.6) else frames[1].format(a=crossed[0], b=crossed[1])
    return one, two


_TELLING = frames_of(_DATA["_TELLING"])


def _relation(draw: Draw, same: bool) -> tuple[str, str]:
    x, y = people(draw, 2)
    pair = draw.word(CONVERSES)
    left, right = (pair[0], pair[1]) if draw.chance(0.5) else (pair[1], pair[0])
    names = (x, y) if same else (y, x)
    # The opening is the same on both sides: hearsay and fact are not paraphrases of each other.
    frame = draw.frame(_TELLING)
    return frame.format(c=left.format(x=x, y=y)), frame.format(c=right.format(x=names[0], y=names[1]))


def _symmetric(draw: Draw, same: bool) -> tuple[str, str]:
    x, y, z = people(draw, 3)
    relation, other = draw.words_of(SYMMETRIC, 2)
    frame = draw.frame(_TELLING)
    left = frame.format(c=relation.format(x=x, y=y))
    if same:
        return left, frame.format(c=relation.format(x=y, y=x))
    return left, frame.format(c=draw.pick((relation.format(x=y, y=z), other.format(x=y, y=x))))


_MAKERS: tuple[Callable[[Draw, bool], tuple[str, str]], ...] = (
    _voice,
    _voice,
    _voice,
    _transfer,
    _transfer,
    _order,
    _relation,
    _symmetric,
)


def paraphrase_sentence(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``sentence1`` and ``sentence2``."""
    maker = draw.pick(_MAKERS)
    while True:
        one, two = maker(draw, label == "equivalent")
        if one != two:
            return {"sentence1": sentence(one), "sentence2": sentence(two)}


class Chore(NamedTuple):
    """Something people ask how to do: two verbs and two objects with the same meaning."""

    name: str
    verbs: tuple[Verb, Verb]
    objects: tuple[str, str]


def _chore(line: str) -> Chore:
    verbs, _, objects = line.partition("|")
    one, _, two = (part.strip() for part in verbs.partition("/"))
    first, _, second = (part.strip() for part in objects.partition("/"))
    return Chore(f"{one} {first}", (verb(one), verb(two or one)), (first, second or first))


CHORES: tuple[Chore, ...] = tuple(_chore(line) for line in _DATA["CHORES"])

_ASKED: dict[str, Frames] = {name: frames_of(told) for name, told in _DATA["_ASKED"].items()}

#: Questions with a direction: (one way to ask, another way to ask the same, the things it asks about).
_DIRECTED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("how do I get from {a} to {b}?", "what is the best way to reach {b} from {a}?", CITIES),
    ("how long is the flight from {a} to {b}?", "how much time does it take to fly to {b} from {a}?", CITIES),
    ("is there a night train from {a} to {b}?", "can I take an overnight train to {b} from {a}?", CITIES),
    ("should I move from {a} to {b}?", "is it a good idea to leave {a} for {b}?", CITIES),
    ("is {a} cheaper than {b}?", "is {b} more expensive than {a}?", CITIES),
    ("is {a} larger than {b}?", "is {b} smaller than {a}?", CITIES),
    ("is {a} colder than {b} in winter?", "is {b} warmer than {a} in winter?", CITIES),
    ("why is {a} more crowded than {b}?", "why is {b} less crowded than {a}?", CITIES),
    ("is {one_a} heavier than {one_b}?", "does {one_b} weigh less than {one_a}?", GOODS),
    ("can I swap my {a} for {one_b}?", "is it possible to get {one_b} in return for my {a}?", GOODS),
    ("is {one_a} worth more than {one_b}?", "does {one_b} have less value than {one_a}?", GOODS),
    ("should I buy {one_a} before I buy {one_b}?", "is it better to get the {b} after the {a}?", GOODS),
)


def _directed(draw: Draw, same: bool) -> tuple[str, str]:
    one, two, things = draw.word(_DIRECTED)
    a, b = draw.shuffled(things)[:2]
    first, second = (one, two) if draw.chance(0.5) else (two, one)
    return _about(first, a, b), _about(second, *((a, b) if same else (b, a)))


def _about(question: str, a: str, b: str) -> str:
    return question.format(a=a, b=b, one_a=article(a), one_b=article(b))


def _chores(draw: Draw, same: bool) -> tuple[str, str]:
    chore = draw.word(CHORES)
    topics = draw.shuffled(list(_ASKED))
    about = [(chore, topics[0]), (chore, topics[0])]
    if not same:
        change = draw.pick(("topic", "topic", "object", "verb"))
        if change == "topic":
            about[1] = (chore, topics[1])
        else:
            other = draw.word(CHORES, but=(chore,))
            mixed = (other.verbs, chore.objects) if change == "verb" else (chore.verbs, other.objects)
            about[1] = (Chore(chore.name, *mixed) if change == "object" and _shared(chore, other) else other, topics[0])
    texts = []
    for index, (what, topic) in enumerate(about):
        way = index if draw.chance(0.5) else 0
        texts.append(
            draw.frame(_ASKED[topic]).format(v=what.verbs[way].base, o=what.objects[way if draw.chance(0.5) else 0])
        )
    return texts[0], texts[1]


def _shared(chore: Chore, other: Chore) -> bool:
    """Whether the two are done alike, so that one's verbs suit the other's object."""
    return chore.verbs[0] == other.verbs[0]


def paraphrase_question(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``question1`` and ``question2``."""
    while True:
        maker = _directed if draw.chance(0.25) else _chores
        one, two = maker(draw, label == "duplicate")
        if one != two:
            one, two = (one, two) if draw.chance(0.5) else (two, one)
            return {"question1": one[0].upper() + one[1:], "question2": two[0].upper() + two[1:]}
