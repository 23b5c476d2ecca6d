"""Streams of examples that a seed reproduces and that go on where they stopped.

`MixtureStream` draws (task, row) for ever; its state is a few integers. `stream_examples` reads a task too large to
hold (C4), from any row on.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.objectives import Ids, chunks, prefix_lm, span_corruption
from softprompt.tasks.rows import BadRows, RowSource
from softprompt.tasks.task import Example, Task

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone


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
        row = int(self._order(name, epoch)[position])
        self._step += 1
        self._drawn[name] += 1
        return name, row

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


def _permutation(size: int, key: bytes) -> NDArray[np.int64]:
    """A permutation of 0..size-1 from raw generator bits, whose stream NumPy keeps stable across versions."""
    bits = np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)).random_raw(size)
    return np.argsort(bits, kind="stable")


def stream_examples(task: Task, split: str = "train", *, start: int = 0) -> Iterator[tuple[int, Example]]:
    """(rows read so far, example) of a split, one after the other, from row ``start`` on, without holding it.

    The number is the ``start`` of a stream that goes on behind the example's row (a row that makes several examples is
    finished only with its last one). Rows before ``start`` are read over.
    """
    bad = BadRows(task.skip_bad)
    for row in itertools.islice(task.source.rows(split, bad), start, None):
        start += 1
        try:
            made = task.form(row)
        except DataError as error:
            bad.record(error)
            continue
        for k, formed in enumerate(made):
            last = k == len(made) - 1
            yield (start if last else start - 1), task.example(split, row.line, k, formed)


def stream_objective(
    rows: RowSource,
    backbone: Backbone,
    objective: str,
    *,
    length: int = 512,
    seed: int = 0,
    split: str = "train",
    start: int = 0,
    column: str = "text",
) -> Iterator[tuple[int, Ids, Ids]]:
    """Documents (C4) as (rows read so far, input ids, target ids), end tokens added, from row ``start`` on.

    Documents are cut into chunks so that inputs with their end token fit into ``length``; each chunk's randomness comes
    from (seed, row, chunk) alone, so any stretch of the stream can be made again.

    Args:
        objective: ``prefix_lm`` or ``span_corruption`` (needs a tokenizer with ``<extra_id_..>`` sentinels).
        length: longest inputs, tokens.

    Raises:
        UsageError: for an unknown objective, or a tokenizer without sentinels.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    marks = sentinels(backbone.tokenizer) if objective == "span_corruption" else []
    ending, opening = backbone.tokenize_targets([""], None)[0], backbone.tokenize_inputs([""], None)[0]
    room = max(2, length - len(opening))
    for row in itertools.islice(rows.rows(split, BadRows()), start, None):
        start += 1
        ids = backbone.tokenizer(row.text(column), add_special_tokens=False, verbose=False)["input_ids"]
        for k, chunk in enumerate(chunks(ids, room)):
            if len(chunk) < 2:
                continue
            key = np.frombuffer(_digest(seed, f"{objective}/{start}", k)[:16], dtype=np.uint64)
            rng = np.random.Generator(np.random.Philox(key=key))
            pair = prefix_lm(chunk, rng) if objective == "prefix_lm" else span_corruption(chunk, marks, rng)
            inputs = np.concatenate([pair[0], np.asarray(opening, np.int32)])
            yield start, inputs, np.concatenate([pair[1], np.asarray(ending, np.int32)])


OBJECTIVES = ("prefix_lm", "span_corruption")


def sentinels(tokenizer: Any) -> list[int]:
    """Ids of ``<extra_id_0>``, ``<extra_id_1>``, ... as far as the tokenizer has them; `UsageError` where it has none."""
    vocabulary = tokenizer.get_vocab()
    found = [vocabulary[name] for name in (f"<extra_id_{k}>" for k in range(1000)) if name in vocabulary]
    if not found:
        raise UsageError("span corruption needs a tokenizer with <extra_id_0>, ... sentinels; this one has none.")
    return found
