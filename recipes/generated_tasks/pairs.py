"""Minimal pairs: every row of an acceptability task is one half of a good and a bad sentence made alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from generated_tasks.data import data_of, frozen
from generated_tasks.draw import Draw, RowMaker
from generated_tasks.english import sentence
from generated_tasks.nouns import FEMALE_NAMES, MALE_NAMES, PEOPLE, of_kind

_DATA = data_of("pairs")

LABELS = ("unacceptable", "acceptable")
#: A construction: (good sentence, bad sentence).
Pair = tuple[str, str]

THINGS: tuple[str, ...] = tuple(
    noun.name
    for noun in of_kind("vehicle", "piece of furniture", "tool", "toy", "container", "device", "flower", "instrument")
)
PEOPLE_NAMES: tuple[str, ...] = tuple(noun.name for noun in PEOPLE)
STATES: tuple[str, ...] = frozen(_DATA["STATES"])


def who(draw: Draw) -> str:
    """Somebody: a name, or a person by trade."""
    return draw.pick((draw.pick(FEMALE_NAMES), draw.pick(MALE_NAMES), f"the {draw.pick(PEOPLE_NAMES)}"))


# Each frame holds the good and the bad order, with the same words.
def minimal_pair(constructions: tuple[Callable[[Draw], Pair], ...]) -> RowMaker:
    """Rows with field ``sentence``: the good or the bad half of a pair from one of the constructions."""

    def make(draw: Draw, label: str) -> Mapping[str, str]:
        good, bad = draw.pick(constructions)(draw)
        return {"sentence": sentence(good if label == "acceptable" else bad)}

    return make


#: Words that cannot change places with the word after them.
