"""Tokenised splits: of one task, of texts that are cut anew each time, and of several tasks joined."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from softprompt.tasks.example import Example, Split, places


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Rows of different length in one array: row i is ``flat[offsets[i] : offsets[i + 1]]``."""

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def row(self, i: int) -> NDArray[np.int32]:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def select(self, rows: NDArray[np.int64]) -> Ragged:
        parts = [self.row(int(i)) for i in rows]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        flat = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return Ragged(flat=flat.astype(np.int32, copy=False), offsets=offsets)


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """A split as token ids.

    Attributes:
        examples: the N examples.
        fingerprint: of the split's content, see `Split`.
        name: of the split.
        cut_inputs: examples whose inputs were longer than the limit.
        cut_targets: likewise for targets.
        skipped: bad rows left out of the split on request.
        unlabelled: training rows left out because they have no answer to learn.
    """

    examples: Sequence[Example]
    fingerprint: str
    name: str
    cut_inputs: int
    cut_targets: int
    skipped: int
    input_ids: Ragged
    target_ids: Ragged
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    def inputs(self, i: int) -> NDArray[np.int32]:
        """int32 [T_i], the input ids of example i as the backbone wants them (end token included where it has one)."""
        return self.input_ids.row(i)

    def targets(self, i: int) -> NDArray[np.int32]:
        """int32 [D_i], the target ids of example i, ending with the end-of-sequence id."""
        return self.target_ids.row(i)

    @property
    def input_lengths(self) -> NDArray[np.int64]:
        """int64 [N], T_i of every example."""
        return self.input_ids.lengths()

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """int64 [N], D_i of every example."""
        return self.target_ids.lengths()

    def pair(self, i: int, key: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Input and target ids of example i in the training step that ``key`` stands for (`row_key`)."""
        return self.inputs(i), self.targets(i)

    def select(self, rows: Sequence[int]) -> EncodedSplit:
        """A part of the examples, in the given order, with the fingerprint of the part."""
        part = Split.of(self.name, [self.examples[i] for i in rows])
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            examples=part.examples,
            fingerprint=part.fingerprint,
            input_ids=self.input_ids.select(index),
            target_ids=self.target_ids.select(index),
        )


@dataclass(frozen=True, kw_only=True)
class PrefixSplit(EncodedSplit):
    """Texts for prefix language modelling (Raffel et al. 2020; SPoT section 2.1.3, C4).

    Each time a text is trained on, one of its chunks is drawn, and a cut in it, uniformly: what stands before the cut is
    the input, the rest the target. Where no training step says otherwise (validation, `inputs`, `targets`) the draw is the
    text's own. T5's code visits every chunk of a text in an epoch; here an epoch visits one.

    Attributes:
        input_ids: the whole texts, without special tokens; ``target_ids`` are not used.
        around: ids before inputs, behind inputs, and behind targets.
        chunk: most tokens of a chunk.
        most_targets: targets are cut to this many ids; None for no limit.
    """

    around: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    chunk: int
    most_targets: int | None

    def inputs(self, i: int) -> NDArray[np.int32]:
        """int32 [T_i] of the text's own draw."""
        return self.pair(i, self._own_key(i))[0]

    def targets(self, i: int) -> NDArray[np.int32]:
        """int32 [D_i] of the text's own draw."""
        return self.pair(i, self._own_key(i))[1]

    @property
    def input_lengths(self) -> NDArray[np.int64]:
        """int64 [N], the most tokens that each text's input can have."""
        before, behind, _ = self.around
        most = np.maximum(np.minimum(self.input_ids.lengths(), self.chunk) - 1, 1)
        return np.asarray(most + len(before) + len(behind), dtype=np.int64)

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """int64 [N], the most tokens that each text's target can have."""
        most = np.maximum(np.minimum(self.input_ids.lengths(), self.chunk) - 1, 0) + len(self.around[2])
        return np.asarray(most if self.most_targets is None else np.minimum(most, self.most_targets), dtype=np.int64)

    def pair(self, i: int, key: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Input and target ids of text i, its chunk and cut drawn by ``key``."""
        text = self.input_ids.row(i)
        draw = hashlib.sha256(f"prefix/{key}".encode()).digest()
        chunks = max(1, -(-(len(text) - 1) // self.chunk))  # a last token alone could not be cut
        start = self.chunk * _below(draw[:8], chunks)
        chunk = text[start : start + self.chunk]
        cut = 1 + _below(draw[8:16], max(len(chunk) - 1, 1))
        before, behind, end = self.around
        targets = chunk[cut:]
        if self.most_targets is not None:
            targets = targets[: max(self.most_targets - len(end), 0)]
        return _ids(before, chunk[:cut], behind), _ids((), targets, end)

    def _own_key(self, i: int) -> int:
        return int.from_bytes(hashlib.sha256(self.examples[i].key.encode("utf-8", "surrogatepass")).digest()[:8], "big")


@dataclass(frozen=True, kw_only=True)
class JoinedSplit(EncodedSplit):
    """Splits of several tasks as one, without a copy of their ids.

    Attributes:
        parts: the splits; ``input_ids`` and ``target_ids`` are not used.
        part_N: int64 [N], which of them each example is of.
        row_N: int64 [N], its row there.
    """

    parts: tuple[EncodedSplit, ...]
    part_N: NDArray[np.int64]
    row_N: NDArray[np.int64]

    @classmethod
    def of(cls, split: Split, parts: Sequence[EncodedSplit]) -> JoinedSplit:
        """The tokenised parts of a mixture's split."""
        part_N, row_N = places([len(part) for part in parts])
        blank = Ragged(flat=np.zeros(0, np.int32), offsets=np.zeros(1, np.int64))
        return cls(
            examples=split.examples, fingerprint=split.fingerprint, name=split.name, skipped=split.skipped,
            unlabelled=split.unlabelled, cut_inputs=sum(p.cut_inputs for p in parts),
            cut_targets=sum(p.cut_targets for p in parts), input_ids=blank, target_ids=blank, parts=tuple(parts),
            part_N=part_N, row_N=row_N,
        )  # fmt: skip

    def _of(self, i: int) -> tuple[EncodedSplit, int]:
        return self.parts[int(self.part_N[i])], int(self.row_N[i])

    def inputs(self, i: int) -> NDArray[np.int32]:
        """See `EncodedSplit.inputs`."""
        part, row = self._of(i)
        return part.inputs(row)

    def targets(self, i: int) -> NDArray[np.int32]:
        """See `EncodedSplit.targets`."""
        part, row = self._of(i)
        return part.targets(row)

    def pair(self, i: int, key: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """See `EncodedSplit.pair`."""
        part, row = self._of(i)
        return part.pair(row, key)

    @property
    def input_lengths(self) -> NDArray[np.int64]:
        """See `EncodedSplit.input_lengths`."""
        return self._lengths([part.input_lengths for part in self.parts])

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """See `EncodedSplit.target_lengths`."""
        return self._lengths([part.target_lengths for part in self.parts])

    def _lengths(self, own: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        found = np.zeros(len(self), np.int64)
        for number, lengths in enumerate(own):
            mine = self.part_N == number
            found[mine] = lengths[self.row_N[mine]]
        return found

    def select(self, rows: Sequence[int]) -> EncodedSplit:
        """See `EncodedSplit.select`."""
        index = np.asarray(rows, dtype=np.int64)
        part = Split.of(self.name, [self.examples[int(i)] for i in index])
        return replace(
            self,
            examples=part.examples,
            fingerprint=part.fingerprint,
            part_N=self.part_N[index],
            row_N=self.row_N[index],
        )


def _ids(before: Sequence[int], ids: NDArray[np.int32], behind: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([np.asarray(before, np.int32), ids, np.asarray(behind, np.int32)])


def _below(draw: bytes, count: int) -> int:
    """A number in 0..count-1 from 8 random bytes."""
    return int.from_bytes(draw, "little") * count >> 64
