"""The order in which a run sees its rows: keyed by its seed, exactly resumable, for one task or a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def keyed_rng(*key: int | str) -> np.random.Generator:
    """A generator whose stream depends on the key alone."""
    words: list[int] = []
    for part in key:
        words.extend([len(part), *part.encode()] if isinstance(part, str) else [int(part)])
    return np.random.default_rng(np.random.SeedSequence(words))


class RowStream:
    """An endless stream of (part, row): parts are drawn by rate, rows within a part without replacement per epoch.

    Args:
        sizes: rows of each part, at least 1 each.
        rates: probability of each part; they are normalised.
        seed: of the run.
    """

    def __init__(self, sizes: Sequence[int], rates: Sequence[float], seed: int) -> None:
        if len(sizes) != len(rates) or not sizes or min(sizes) < 1:
            raise ValueError("a stream needs parts with at least one row each, and a rate for each")
        self.sizes = tuple(sizes)
        total = float(sum(rates))
        self.rates = np.asarray(rates, dtype=np.float64) / total
        self.seed = seed
        self.drawn = 0
        self.taken = [0] * len(sizes)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def take(self, count: int) -> list[tuple[int, int]]:
        """The next ``count`` (part, row) pairs."""
        if len(self.sizes) == 1:
            parts = np.zeros(count, dtype=np.int64)
        else:
            rng = keyed_rng(self.seed, "parts", self.drawn)
            parts = rng.choice(len(self.sizes), size=count, p=self.rates)
        self.drawn += count
        return [(int(part), self._next_row(int(part))) for part in parts]

    def _next_row(self, part: int) -> int:
        epoch, place = divmod(self.taken[part], self.sizes[part])
        self.taken[part] += 1
        cached = self._orders.get(part)
        if cached is None or cached[0] != epoch:
            order = keyed_rng(self.seed, "rows", part, epoch).permutation(self.sizes[part])
            cached = self._orders[part] = (epoch, order)
        return int(cached[1][place])

    def state(self) -> dict[str, Any]:
        """What ``load`` needs; plain JSON."""
        return {"drawn": self.drawn, "taken": list(self.taken)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        self.drawn = int(state["drawn"])
        self.taken = [int(n) for n in state["taken"]]
