"""A stream of rows of several tasks that a seed reproduces and that goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import UsageError

WRITTEN = 2**20
"""Rows of a task up to which an epoch's order is held in memory."""


class MixtureStream:
    """Draws of (task, row) at given rates: every task goes through its rows in an order of its own, epoch by epoch.

    Draw ``s`` depends on the seed, ``s`` and the draws before it alone, so a stream loaded from `state` continues
    exactly as the one it was taken from.

    Args:
        sizes: rows of each task, at least 1; their order does not matter.
        rates: probability of each task; normalised here.
        seed: of the stream.
    """

    def __init__(self, sizes: Mapping[str, int], rates: Mapping[str, float], *, seed: int) -> None:
        if set(sizes) != set(rates) or not sizes:
            raise UsageError("a mixture stream needs a size and a rate for each of its tasks, and at least one task.")
        if min(sizes.values()) < 1 or min(rates.values()) < 0 or sum(rates.values()) <= 0:
            raise UsageError("a mixture stream needs sizes of at least 1 and rates of at least 0, not all 0.")
        self.seed = seed
        self.names = sorted(sizes)
        self.sizes = {name: int(sizes[name]) for name in self.names}
        weights = np.array([float(rates[name]) for name in self.names])
        self._edges: NDArray[np.float64] = np.cumsum(weights / weights.sum())
        self._step = 0
        self._drawn = dict.fromkeys(self.names, 0)
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return self

    def __next__(self) -> tuple[str, int]:
        """The next (task, row number in 0..size-1)."""
        # 53 of 64 bits fill a float64; hashing the step makes the draw independent of any generator's version.
        uniform = (int.from_bytes(_digest(self.seed, "task", self._step)[:8], "little") >> 11) / 2**53
        place = min(int(np.searchsorted(self._edges, uniform, side="right")), len(self.names) - 1)
        name = self.names[place]
        epoch, position = divmod(self._drawn[name], self.sizes[name])
        row = self._row(name, epoch, position)
        self._step += 1
        self._drawn[name] += 1
        return name, row

    def _row(self, name: str, epoch: int, position: int) -> int:
        """The row at a position of a task's order in an epoch; the order of a large task is never written down."""
        if self.sizes[name] > WRITTEN:
            return scrambled(position, self.sizes[name], _digest(self.seed, name, epoch))
        return int(self._order(name, epoch)[position])

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        held = self._orders.get(name)
        if held is None or held[0] != epoch:
            held = (epoch, _permutation(self.sizes[name], _digest(self.seed, name, epoch)))
            self._orders[name] = held
        return held[1]

    def state(self) -> dict[str, Any]:
        """Where the stream stands, in plain values."""
        return {"seed": self.seed, "sizes": dict(self.sizes), "step": self._step, "drawn": dict(self._drawn)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`.

        Raises:
            UsageError: where it is of another seed or of other tasks.
        """
        if state["seed"] != self.seed or dict(state["sizes"]) != self.sizes:
            raise UsageError("this mixture's state was saved with another seed or other tasks; use the same ones.")
        self._step = int(state["step"])
        self._drawn = {name: int(state["drawn"][name]) for name in self.names}


def _digest(seed: int, what: str, number: int) -> bytes:
    return hashlib.sha256(f"{seed}/{what}/{number}".encode()).digest()


def scrambled(position: int, size: int, key: bytes) -> int:
    """Where a position goes in a permutation of 0..size-1 that takes no memory: a Feistel network of four rounds over the
    next even power of two, walked on until it stays below ``size`` (format-preserving encryption)."""
    half = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for number in range(4):
            word = hashlib.sha256(key + bytes([number]) + right.to_bytes(8, "little")).digest()
            left, right = right, left ^ (int.from_bytes(word[:8], "little") & mask)
        position = left << half | right
        if position < size:
            return position


def _permutation(size: int, key: bytes) -> NDArray[np.int64]:
    """A permutation of 0..size-1 from raw generator bits, whose stream NumPy keeps stable across versions."""
    bits = np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)).random_raw(size)
    return np.argsort(bits, kind="stable")
