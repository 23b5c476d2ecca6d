"""Tokenised text in shards, and T5's objectives drawn from it in whole arrays: what a fast device is fed with.

A folder of shards holds ``shards.json``, ``spiece.model`` and files of little-endian int16 ids, documents ended by the
end-of-sequence id. It stands where a text folder may stand (``PretrainSettings.text``). Every batch is a pure function
of the generator's seed, and all rows of a micro-batch have one length, so nothing is padded.

Letters: B rows, n tokens of a chunk, S spans.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedded_backbone.corpus import HELD_OUT_EVERY, TextFile
from embedded_backbone.model import TokenBatch
from embedded_backbone.objectives import NO_SLOT
from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError, UsageError

MANIFEST = "shards.json"
VOCABULARY = "spiece.model"
FORMAT = "softprompt-shards-1"
MEAN_SPAN = 3.0
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TokenShards:
    """The shards of one part, training or held out, mapped from the disk.

    Attributes:
        folder: of ``shards.json``.
        files: the text files the shards were made from.
        vocabulary: pieces of the vocabulary, sentinels not counted.
        end_id: of the end of a document.
        parts: int16 arrays.
    """

    folder: Path
    files: list[TextFile]
    vocabulary: int
    end_id: int
    parts: tuple[NDArray[np.int16], ...]

    @classmethod
    def load(cls, folder: Path, *, held_out: bool = False) -> TokenShards:
        """Map the shards of a part, each checked against its sha256.

        Raises:
            CorruptArtifactError: a shard is not what was written.
            DataError: the part is empty, or the folder is of another format.
        """
        manifest = artifacts.read_json(folder / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise DataError(f"{folder} holds shards of format {manifest.get('format')}, known is {FORMAT}.")
        parts = []
        for entry in manifest["shards"]:
            if entry["held_out"] != held_out:
                continue
            path = artifacts.inside(folder, entry["name"])
            if not path.is_file() or artifacts.sha256_file(path) != entry["sha256"]:
                raise CorruptArtifactError(f"{path} is not the shard that was written: make it, or send it, again.")
            parts.append(np.memmap(path, dtype="<i2", mode="r"))
        if not parts:
            raise DataError(f"{folder} holds no {'held-out' if held_out else 'training'} shard: make it again.")
        texts = [TextFile(path=Path(text["name"]), sha256=text["sha256"]) for text in manifest["text"]]
        return cls(
            folder=folder,
            files=texts,
            vocabulary=int(manifest["vocabulary"]),
            end_id=int(manifest["end_id"]),
            parts=tuple(parts),
        )

    @property
    def tokens(self) -> int:
        """Tokens of all shards."""
        return sum(len(part) for part in self.parts)

    def chunks(self, rng: np.random.Generator, count: int, length: int) -> Ids:
        """int64 [count, length]: consecutive tokens from random places; a shard is chosen by its size.

        Raises:
            DataError: no shard is as long as a chunk.
        """
        room = np.asarray([max(0, len(part) - length + 1) for part in self.parts], dtype=np.int64)
        if not room.sum():
            raise DataError(f"no shard in {self.folder} holds {length} tokens: use shorter inputs or more text.")
        ends = np.cumsum(room)
        place = rng.integers(0, ends[-1], count)
        which = np.searchsorted(ends, place, side="right")
        first = place - (ends[which] - room[which])
        rows = [self.parts[w][f : f + length] for w, f in zip(which.tolist(), first.tolist(), strict=True)]
        return np.stack(rows).astype(np.int64)

    def batches(
        self,
        rng: random.Random,
        tokenizer: Any,
        count: int,
        *,
        length: int,
        micro: int,
        prefix: bool,
        noise: float,
    ) -> list[tuple[TokenBatch, list[str]]]:
        """Micro-batches of span corruption, or of its prefix-LM adaptation (T5; Lester et al. 2021, section 3.2).

        Args:
            rng: its next number seeds everything here.
            tokenizer: names the sentinels and the end id.
            count: examples.
            length: tokens of a chunk.
            micro: examples of a micro-batch.
            prefix: the adaptation.
            noise: share of tokens that span corruption hides.
        """
        draw = np.random.default_rng(rng.getrandbits(64))
        sentinels = np.asarray(tokenizer.convert_tokens_to_ids([f"<extra_id_{at}>" for at in range(100)]))
        found = []
        for start in range(0, count, micro):
            chunk = self.chunks(draw, min(micro, count - start), length)
            if prefix:
                cut = 8 * int(draw.integers(1, max(2, length // 8)))  # one for all rows: nothing is padded
                inputs, targets = chunk[:, :cut], chunk[:, cut:]
            else:
                inputs, targets = corrupt_spans(draw, chunk, sentinels=sentinels, noise=noise)
            ends = np.full((len(chunk), 1), self.end_id, dtype=np.int64)
            ids = torch.from_numpy(np.concatenate([inputs, ends], 1))
            batch = TokenBatch(
                ids_BT=ids,
                mask_BT=torch.ones_like(ids),
                labels_BD=torch.from_numpy(np.concatenate([targets, ends], 1)),
                slot_B=torch.full((len(chunk),), NO_SLOT),
                prompt_rows=0,
                seed=0,
            )
            found.append((batch, ["prefix" if prefix else "span"] * len(chunk)))
        return found


def is_shards(folder: Path) -> bool:
    """Whether a folder holds shards rather than text."""
    return (folder / MANIFEST).is_file()


def corrupt_spans(
    rng: np.random.Generator, chunk_Bn: Ids, *, sentinels: Sequence[int] | Ids, noise: float
) -> tuple[Ids, Ids]:
    """`objectives.span_corruption` for many rows of one length at once; every row has the same number of spans.

    Returns:
        Inputs [B, n - hidden + S] and targets [B, hidden + S + 1], without end ids.
    """
    rows, length = chunk_Bn.shape
    if length < 2:
        raise UsageError(f"span corruption needs chunks of at least 2 tokens, got {length}.")
    marks = np.asarray(sentinels, dtype=np.int64)
    hidden = max(1, min(round(length * noise), length - 1))
    spans = max(1, min(round(hidden / MEAN_SPAN), length - hidden, len(marks) - 1))
    gap_BS, span_BS = _partitions(rng, rows, length - hidden, spans), _partitions(rng, rows, hidden, spans)
    # Each row is gap, span, gap, span, ...: the number of the part a token lies in tells what becomes of it.
    lengths = np.stack([gap_BS, span_BS], 2).reshape(rows, 2 * spans)
    part_Bn = np.repeat(np.tile(np.arange(2 * spans), rows), lengths.ravel()).reshape(rows, length)
    covered = part_Bn % 2 == 1
    first = covered & np.concatenate([np.ones((rows, 1), bool), np.diff(part_Bn, axis=1) != 0], 1)
    marked = np.where(first, marks[part_Bn // 2], chunk_Bn)
    inputs = marked[~covered | first].reshape(rows, length - hidden + spans)
    targets = np.empty((rows, hidden + spans + 1), dtype=np.int64)
    row_B1 = np.arange(rows)[:, None]
    place = np.cumsum(span_BS, 1) - span_BS + np.arange(spans)
    targets[row_B1, place] = marks[:spans]
    span_of = part_Bn[covered].reshape(rows, hidden) // 2
    targets[row_B1, np.arange(hidden) + span_of + 1] = chunk_Bn[covered].reshape(rows, hidden)
    targets[:, -1] = marks[spans]
    return inputs, targets


def _partitions(rng: np.random.Generator, rows: int, total: int, parts: int) -> Ids:
    """int64 [rows, parts], positive, each row summing to ``total``, uniform over all such."""
    cuts = np.argpartition(rng.random((rows, total - 1)), parts - 2, axis=1)[:, : parts - 1] if parts > 1 else None
    edges = np.zeros((rows, parts + 1), dtype=np.int64)
    edges[:, -1] = total
    if cuts is not None:
        edges[:, 1:-1] = np.sort(cuts, axis=1) + 1
    return np.diff(edges, axis=1)


def write_shards(
    folder: Path,
    documents: Iterable[tuple[bool, Sequence[int]]],
    *,
    vocabulary: bytes,
    pieces: int,
    end_id: int,
    text: Sequence[TextFile],
    shard_bytes: int,
    note: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write shards of at most ``shard_bytes`` and their manifest, and return it.

    Args:
        folder: made where it is missing; the manifest is written last, so that half a folder is no folder of shards.
        documents: (held out, ids without end id) of each document, in order.
        vocabulary: the bytes of ``spiece.model``.
        pieces: of that vocabulary, sentinels not counted.
        end_id: written after each document.
        text: what the documents came from.
        shard_bytes: of a shard.
        note: kept in the manifest: command, seed.

    Raises:
        UsageError: an id does not fit int16.
    """
    if pieces + 100 > np.iinfo(np.int16).max:
        raise UsageError(f"a vocabulary of {pieces} pieces does not fit int16 shards: use at most 32,000.")
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_bytes(folder / VOCABULARY, vocabulary)
    shards: list[dict[str, Any]] = []
    waiting: dict[bool, list[NDArray[np.int16]]] = {False: [], True: []}
    sizes = {False: 0, True: 0}

    def flush(held_out: bool) -> None:
        if sizes[held_out]:
            ids = np.concatenate(waiting[held_out])
            name = f"{'held-out' if held_out else 'train'}-{sum(s['held_out'] == held_out for s in shards):03d}.ids"
            sha256 = artifacts.write_bytes(folder / name, ids.astype("<i2").tobytes())
            shards.append({"name": name, "sha256": sha256, "tokens": len(ids), "held_out": held_out})
            waiting[held_out].clear()
            sizes[held_out] = 0

    for held_out, ids in _with_ends(documents, end_id):
        if sizes[held_out] and 2 * (sizes[held_out] + len(ids)) > shard_bytes:
            flush(held_out)
        waiting[held_out].append(ids)
        sizes[held_out] += len(ids)
    for part in (False, True):
        flush(part)
    manifest = {
        "format": FORMAT, "vocabulary": pieces, "end_id": end_id, "held_out_every": HELD_OUT_EVERY, "shards": shards,
        "tokens": sum(s["tokens"] for s in shards if not s["held_out"]),
        "text": [{"name": file.name, "sha256": file.sha256} for file in text], **(note or {}),
    }  # fmt: skip
    artifacts.write_json(folder / MANIFEST, manifest)
    return manifest


def _with_ends(
    documents: Iterable[tuple[bool, Sequence[int]]], end_id: int
) -> Iterator[tuple[bool, NDArray[np.int16]]]:
    for held_out, ids in documents:
        if len(ids):
            yield held_out, np.asarray([*ids, end_id], dtype=np.int16)
