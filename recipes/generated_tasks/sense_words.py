"""Words with two senses: for each sense a gloss and sentences in which only that sense fits. "{n}" is a person's name."""

from __future__ import annotations

from typing import NamedTuple

from generated_tasks.data import data_of, frozen

_DATA = data_of("sense_words")


class Sense(NamedTuple):
    """A sense of a word: its gloss and sentences that show it."""

    gloss: str
    uses: tuple[str, ...]


class Ambiguous(NamedTuple):
    """A word and its two senses."""

    word: str
    senses: tuple[Sense, Sense]


AMBIGUOUS: tuple[Ambiguous, ...] = tuple(
    Ambiguous(word, (Sense(*frozen(first)), Sense(*frozen(second)))) for word, (first, second) in _DATA["AMBIGUOUS"]
)
