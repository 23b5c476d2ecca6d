"""Seeded draws of words and structures, with a part of both kept for validation.

A word belongs to the training or to the validation side by a hash of the word alone, so a word held out in one task is
held out in every task, and a prompt moved from one task to another never brings a held-out word along. Structures
(sentence frames) are split by hand, in two lists.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

#: Share of the words that only validation sees.
HELD_OUT_SHARE = 0.3
#: Of all numbers tried, the one whose hashes split the word lists most evenly; another one makes other tasks.
_SALT = 23896
#: Held out besides, where the hash alone leaves a list with a single held-out entry.
_ALSO_HELD_OUT = frozenset(
    ("piano", "made", "heard", "I licked the spoon", "I left a large tip", "the chef deserves a medal", "put")
)


def is_held_out(word: str) -> bool:
    """Whether only validation rows may use ``word`` where it decides the label. The same in every task and process."""
    digest = hashlib.sha256(f"held-out word {_SALT} {word}".encode()).digest()
    return word in _ALSO_HELD_OUT or int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def identity(entry: Any) -> str:
    """The word an entry is known by: itself, or the first field of a tuple (recursively)."""
    return entry if isinstance(entry, str) else identity(entry[0])


@lru_cache(maxsize=4096)
def side(entries: tuple[T, ...], held_out: bool) -> tuple[T, ...]:
    """The entries of one side, in order."""
    return tuple(entry for entry in entries if is_held_out(identity(entry)) == held_out)


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Sentence structures by side; no structure is in both."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.train or not self.held_out or set(self.train) & set(self.held_out):
            raise ValueError("frames need two lists that share nothing")


@dataclass(frozen=True, kw_only=True)
class GeneratedRow:
    """One generated row.

    Attributes:
        fields: the texts by field name.
        target: the gold target text.
        words: the words drawn with ``Draw.word`` (all from one side).
        structures: the frames drawn with ``Draw.frame``, each prefixed by nothing else; all from one side.
    """

    fields: Mapping[str, str]
    target: str
    words: tuple[str, ...]
    structures: tuple[str, ...]


class Draw:
    """Random choices for one split of one task.

    Args:
        seed: names the stream; equal seeds give equal draws in every process.
        held_out: draw from the validation side (True) or from the training side.
    """

    def __init__(self, seed: str, held_out: bool) -> None:
        # A str seeds through sha512, independent of PYTHONHASHSEED.
        self.random = random.Random(seed)
        self.held_out = held_out
        self.words: list[str] = []
        self.structures: list[str] = []

    def start_row(self) -> None:
        """Forget what the last row used."""
        self.words.clear()
        self.structures.clear()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random.random() < probability

    def pick(self, entries: Sequence[T]) -> T:
        """Any of the entries, whichever side: for words that do not decide the label."""
        return entries[int(self.random.random() * len(entries))]

    def word(self, entries: tuple[T, ...], *, but: Sequence[T] = ()) -> T:
        """An entry of this split's side, recorded as used.

        Args:
            but: entries not to draw.
        """
        pool = side(entries, self.held_out)
        if but:
            pool = tuple(e for e in pool if e not in but)
        if not pool:
            raise ValueError(f"no word left on this side of {[identity(e) for e in entries[:5]]}")
        entry: T = pool[int(self.random.random() * len(pool))]
        self.words.append(identity(entry))
        return entry

    def left(self, entries: tuple[T, ...], *, but: Sequence[T] = ()) -> bool:
        """Whether ``word`` has an entry to draw."""
        return any(entry not in but for entry in side(entries, self.held_out))

    def words_of(self, entries: tuple[T, ...], count: int) -> list[T]:
        """``count`` different entries of this split's side."""
        chosen: list[T] = []
        for _ in range(count):
            chosen.append(self.word(entries, but=chosen))
        return chosen

    def frame(self, frames: Frames) -> str:
        """A structure of this split's side, recorded as used."""
        chosen = self.pick(frames.held_out if self.held_out else frames.train)
        self.structures.append(chosen)
        return chosen

    def shuffled(self, entries: Sequence[T]) -> list[T]:
        """The entries in a random order."""
        out = list(entries)
        for i in range(len(out) - 1, 0, -1):
            j = int(self.random.random() * (i + 1))
            out[i], out[j] = out[j], out[i]
        return out


#: Makes the fields of one row whose gold target is the given label.
RowMaker = Callable[[Draw, str], Mapping[str, str]]
#: Makes the fields and the target of one row, where targets are free text.
FreeRowMaker = Callable[[Draw], tuple[Mapping[str, str], str]]


def rows(
    name: str, held_out: bool, count: int, labels: tuple[str, ...] | None, make: RowMaker | FreeRowMaker
) -> Iterator[GeneratedRow]:
    """``count`` different rows of one split, labels in equal numbers (to one row) and in random order.

    Raises:
        RuntimeError: the grammar is too small to give that many different rows.
    """
    draw = Draw(f"softprompt generated task {name} {'held-out' if held_out else 'train'}", held_out)
    order: list[str] = []
    seen: set[tuple[str, ...]] = set()
    for index in range(count):
        if labels and not order:
            order = draw.shuffled(labels)
        label = order.pop() if labels else ""
        for _ in range(200):
            draw.start_row()
            made: Any = make(draw, label) if labels else make(draw)  # type: ignore[call-arg]
            fields, target = (made, label) if labels else made
            # Labels differ only by what the texts say, so the texts alone must be new.
            key = tuple(fields[k].lower() for k in sorted(fields))
            if key not in seen:
                break
        else:
            raise RuntimeError(f"the grammar of {name} gave only {index} different rows of {count}")
        seen.add(key)
        yield GeneratedRow(fields=fields, target=target, words=tuple(draw.words), structures=tuple(draw.structures))
