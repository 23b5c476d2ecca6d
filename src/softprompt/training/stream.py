"""The order in which a run sees its rows: keyed by its seed, exactly resumable, for one task or a mixture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from softprompt.tasks.streaming import MixtureStream


def keyed_rng(*key: int | str) -> np.random.Generator:
    """A generator whose stream depends on the key alone."""
    words: list[int] = []
    for part in key:
        words.extend([len(part), *part.encode()] if isinstance(part, str) else [int(part)])
    return np.random.default_rng(np.random.SeedSequence(words))


class RowStream:
    """An endless stream of (part, row) over the parts of a run, by number; see `MixtureStream`.

    Args:
        sizes: rows of each part, at least 1 each.
        rates: probability of each part; they are normalised.
        seed: of the run.
    """

    def __init__(self, sizes: Sequence[int], rates: Sequence[float], seed: int) -> None:
        names = [f"{i:06d}" for i in range(len(sizes))]
        self._stream = MixtureStream(
            dict(zip(names, sizes, strict=True)), dict(zip(names, rates, strict=True)), seed=seed
        )

    def take(self, count: int) -> list[tuple[int, int]]:
        """The next ``count`` (part, row) pairs."""
        return [(int(part), row) for part, row in itertools.islice(self._stream, count)]

    def state(self) -> dict[str, Any]:
        """What ``load`` needs; plain JSON."""
        return self._stream.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        self._stream.load(state)
