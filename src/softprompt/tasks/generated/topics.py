"""Topic of a sentence: one of eight, or whether a sentence deals with a given one."""

from __future__ import annotations

from collections.abc import Mapping

from softprompt.tasks.generated.data import data_of, frames_of, frozen
from softprompt.tasks.generated.draw import Draw
from softprompt.tasks.generated.english import sentence
from softprompt.tasks.generated.nouns import FEMALE_NAMES, MALE_NAMES, WEEKDAYS

_DATA = data_of("topics")

TOPICS: dict[str, tuple[str, ...]] = frozen(_DATA["TOPICS"])
LABELS = tuple(sorted(TOPICS))
QUESTION_LABELS = ("False", "True")

_SAID = frames_of(_DATA["_SAID"])
_ABOUT = frames_of(_DATA["_ABOUT"])


def _say(draw: Draw, topic: str) -> str:
    first = draw.word(TOPICS[topic])
    # Two things of a topic at times, so that no single phrase decides.
    what = f"{first} and {draw.word(TOPICS[topic], but=(first,))}" if draw.chance(0.4) else first
    frame = draw.frame(_SAID)
    return sentence(frame.format(n=draw.pick(FEMALE_NAMES + MALE_NAMES), x=what, day=draw.pick(WEEKDAYS)))


def topic_sentence(draw: Draw, label: str) -> Mapping[str, str]:
    """Field ``sentence``; the label is its topic."""
    return {"sentence": _say(draw, label)}


def topic_question(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``question`` and ``text``: whether the text deals with the topic asked for."""
    topics = draw.shuffled(LABELS)
    asked = topics[0] if label == "True" else topics[1]
    return {"question": draw.frame(_ABOUT).format(t=asked), "text": _say(draw, topics[0])}
