"""Word sense: the same sense of a word in two sentences, or a sentence and a gloss. Validation has words never seen."""

from __future__ import annotations

from collections.abc import Mapping

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw, Frames
from generated_tasks.english import sentence
from generated_tasks.nouns import FEMALE_NAMES, MALE_NAMES
from generated_tasks.sense_words import AMBIGUOUS, Sense

_DATA = data_of("senses")

LABELS = ("False", "True")

_AROUND = frames_of(_DATA["_AROUND"])
_MEANINGS = Frames(train=("{g}", "here it means {g}"), held_out=("it stands for {g}", "that is, {g}"))


def say_use(draw: Draw, use: str) -> str:
    """A use as a sentence, with a name and an opening."""
    told = use.format(n=draw.pick(_names(use)))
    return sentence(draw.frame(_AROUND).format(c=told))


def _names(use: str) -> tuple[str, ...]:
    """Names that go with the pronouns of the sentence."""
    words = set(use.replace(",", " ").split())
    if words & {"she", "her", "herself"}:
        return FEMALE_NAMES
    return MALE_NAMES if words & {"he", "his", "him"} else FEMALE_NAMES + MALE_NAMES


def _two(draw: Draw) -> tuple[str, Sense, Sense]:
    entry = draw.word(AMBIGUOUS)
    first, second = draw.shuffled(entry.senses)
    return entry.word, first, second


def sense_pair(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``sentence1``, ``sentence2`` and ``word``: True where the word has one sense in both."""
    word, first, second = _two(draw)
    one, another = draw.shuffled(first.uses)[:2]
    if label == "False":
        another = draw.pick(second.uses)
    return {"sentence1": say_use(draw, one), "sentence2": say_use(draw, another), "word": word}


def sense_gloss(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``meaning``, ``sentence`` and ``word``: True where the meaning is that of the word in the sentence."""
    word, first, second = _two(draw)
    gloss = first.gloss if label == "True" else second.gloss
    return {
        "meaning": draw.frame(_MEANINGS).format(g=gloss),
        "sentence": say_use(draw, draw.pick(first.uses)),
        "word": word,
    }
