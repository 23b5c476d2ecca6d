"""Splits as token ids: tokenised once, memory-mapped from a cache keyed by what the ids depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softprompt import waits
from softprompt.errors import SoftpromptError, UsageError
from softprompt.tasks.example import Example, Split
from softprompt.tasks.splits import EncodedSplit, JoinedSplit, PrefixSplit, Ragged
from softprompt.tasks.task import Task

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone

CHUNK = 1024
"""Examples tokenised at a time."""

ANSWER_TOKENS = 64
"""Longest answer in free text where none is asked for, tokens."""

PREFIX_TOKENS = 512
"""Tokens of a chunk in prefix language modelling where inputs may be longer, as in T5's pre-training."""

_FORMAT = "softprompt-encoded-2"
_PROBES = ["A probe: 12.5% of the text, naïve or not?", "not_entailment", " 日本語 ", ""]


def check_labels(backbone: Backbone, labels: Sequence[str] | None) -> None:
    """Raises where a backbone's tokenizer cannot write a label, or makes two of them one.

    Raises:
        UsageError: names the label and what to do.
    """
    from softprompt.tasks.metrics import canonical_labels

    if not labels:
        return
    texts = backbone.decode(backbone.tokenize_targets(list(labels)))
    for label, text in zip(labels, texts, strict=True):
        if not text:  # a part of it may be unknown ("not_equivalent" without its bar), as long as labels stay apart
            raise UsageError(
                f"label {label!r} cannot be written by the tokenizer of backbone {backbone.name!r}, which knows none of "
                "its signs: choose other label words."
            )
    canonical_labels(labels, dict(zip(labels, texts, strict=True)).__getitem__)


class Lengthy(Protocol):
    """What has a prompt's length: a prompter."""

    @property
    def prompt_length(self) -> int:
        """P, of the longest prompt."""


def answer_room(backbone: Backbone, asked: int | None = None) -> int:
    """The most tokens of a free-text answer: what was asked for, else 64, or a quarter of what a small decoder holds."""
    if asked is not None:
        return asked
    if backbone.kind != "causal" or backbone.max_length is None:
        return ANSWER_TOKENS
    return max(1, min(ANSWER_TOKENS, backbone.max_length // 4))


def target_limit(backbone: Backbone, task: Task, asked: int = 0) -> int:
    """The most tokens of a target or a free answer: what was asked for; where that is 0 the task's own, or a quarter of what a
    small decoder holds."""
    if asked or backbone.kind != "causal" or backbone.max_length is None:
        return asked or task.target_room()
    return max(1, min(task.target_room(), backbone.max_length // 4))


def input_room(
    backbone: Backbone, prompter: Lengthy | int | None, labels: Sequence[str] | None, answer_tokens: int = ANSWER_TOKENS
) -> int | None:
    """The most input tokens that fit beside prompt and answer; None where the backbone has no limit.

    Args:
        backbone: its ``max_length`` binds.
        prompter: gives the prompt, or the prompt's length; None for no prompt.
        labels: the answers; a decoder-only backbone writes them into the same positions.
        answer_tokens: of an answer where there are no labels.

    Raises:
        UsageError: nothing is left for the input.
    """
    if backbone.max_length is None:
        return None
    prompt = 0 if prompter is None else prompter if isinstance(prompter, int) else prompter.prompt_length
    answer = 0
    if backbone.kind == "causal":
        answer = max(map(len, backbone.tokenize_targets(list(labels)))) if labels else answer_tokens
    room = backbone.max_length - prompt - answer
    if room < 1:
        raise UsageError(
            f"a prompt of {prompt} tokens and answers of up to {answer} leave no room for the text: backbone "
            f"{backbone.name!r} holds {backbone.max_length} positions; take a shorter prompt (--prompt-length)."
        )
    return room


def encode_split(
    split: Split,
    backbone: Backbone,
    *,
    max_input_tokens: int | None,
    max_target_tokens: int | None,
    cache: Path | None = None,
) -> EncodedSplit:
    """Tokenise a split, or map it from the cache where it was tokenised before.

    Args:
        split: the examples.
        backbone: whose tokenizer is used.
        max_input_tokens: inputs are cut to this many ids, special tokens included; None for no limit.
        max_target_tokens: likewise for targets.
        cache: a folder for the ids; None keeps them in memory.

    Raises:
        UsageError: where a limit is below 1.
    """
    for name, limit in (("max_input_tokens", max_input_tokens), ("max_target_tokens", max_target_tokens)):
        if limit is not None and limit < 1:
            raise UsageError(f"{name} is {limit}; it must be at least 1.")
    if split.parts:
        limits = {"max_input_tokens": max_input_tokens, "max_target_tokens": max_target_tokens}
        encoded = [encode_split(part, backbone, **limits, cache=cache) for part in split.parts]
        return JoinedSplit.of(split, encoded)
    if split.drawn_prefix:
        return _encode_texts(split, backbone, max_input_tokens, max_target_tokens, cache)
    total, title = 2 * len(split.examples), f"tokenising {split.name} rows"
    inputs = _Side(split.examples, lambda e: e.inputs, backbone.tokenize_inputs, max_input_tokens)
    targets = _Side(split.examples, lambda e: e.targets, backbone.tokenize_targets, max_target_tokens)
    inputs.told = lambda done: waits.tell(title, done, total)
    targets.told = lambda done: waits.tell(title, total // 2 + done, total)
    key = _key(split, backbone, max_input_tokens, max_target_tokens) if cache is not None else ""
    sides, cut = _sides(cache, key, {"inputs": inputs, "targets": targets})
    return EncodedSplit(
        examples=split.examples,
        fingerprint=split.fingerprint,
        name=split.name,
        cut_inputs=cut["inputs"],
        cut_targets=cut["targets"],
        skipped=split.skipped,
        input_ids=sides["inputs"],
        target_ids=sides["targets"],
        unlabelled=split.unlabelled,
    )


def _encode_texts(
    split: Split, backbone: Backbone, max_input_tokens: int | None, max_target_tokens: int | None, cache: Path | None
) -> PrefixSplit:  # fmt: skip
    """A split of texts that are cut anew each time, whole."""
    around = backbone.framing()
    before, behind, _ = around

    def tokenize(texts: Sequence[str], limit: int | None) -> list[list[int]]:
        return [row[len(before) : len(row) - len(behind)] for row in backbone.tokenize_inputs(texts, limit)]

    texts = _Side(split.examples, lambda e: f"{e.inputs} {e.targets}", tokenize, None)
    texts.told = lambda done: waits.tell(f"tokenising {split.name} rows", done, len(split))
    key = _key(split, backbone, None, None, "texts") if cache is not None else ""
    sides, _ = _sides(cache, key, {"texts": texts})
    room = (max_input_tokens or PREFIX_TOKENS) - len(before) - len(behind)
    empty = np.zeros(0, np.int32)
    return PrefixSplit(
        examples=split.examples, fingerprint=split.fingerprint, name=split.name, cut_inputs=0, cut_targets=0,
        skipped=split.skipped, unlabelled=split.unlabelled, input_ids=sides["texts"],
        target_ids=Ragged(flat=empty, offsets=np.zeros(len(split) + 1, np.int64)),
        around=around, chunk=max(2, min(room, PREFIX_TOKENS)), most_targets=max_target_tokens,
    )  # fmt: skip


def _sides(cache: Path | None, key: str, sides: Mapping[str, _Side]) -> tuple[Mapping[str, Ragged], Mapping[str, int]]:
    if cache is not None:
        return _cached(Path(cache) / key, sides)
    return {name: side.in_memory() for name, side in sides.items()}, {name: side.cut for name, side in sides.items()}


class _Side:
    """The inputs or the targets of a split, on their way to ids."""

    def __init__(
        self,
        examples: Sequence[Example],
        text: Callable[[Example], str],
        tokenize: Callable[[Sequence[str], int | None], list[list[int]]],
        limit: int | None,
    ) -> None:
        self.examples = examples
        self.text = text
        self.tokenize = tokenize
        self.limit = limit
        self.cut = 0
        self.told: Callable[[int], None] = lambda done: None

    def chunks(self) -> Iterator[tuple[NDArray[np.int32], list[int]]]:
        """(ids of a chunk in one array, length of each row)."""
        for start in range(0, len(self.examples), CHUNK):
            rows = self._rows([self.text(example) for example in self.examples[start : start + CHUNK]])
            flat = np.fromiter((i for row in rows for i in row), dtype=np.int32)
            yield flat, [len(row) for row in rows]
            self.told(min(start + CHUNK, len(self.examples)))

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        if self.limit is None:
            return self.tokenize(texts, None)
        rows = self.tokenize(texts, self.limit + 1)  # one more than allowed tells which rows are cut
        long = [i for i, row in enumerate(rows) if len(row) > self.limit]
        for i, row in zip(long, self.tokenize([texts[i] for i in long], self.limit) if long else [], strict=True):
            rows[i] = row
        self.cut += len(long)
        return rows

    def in_memory(self) -> Ragged:
        flats, lengths = [np.zeros(0, np.int32)], [0]
        for flat, sizes in self.chunks():
            flats.append(flat)
            lengths += sizes
        return Ragged(flat=np.concatenate(flats), offsets=np.cumsum(lengths, dtype=np.int64))

    def to_disk(self, folder: Path, name: str) -> dict[str, Any]:
        """Write ids chunk by chunk; gives what the reader checks."""
        lengths = [0]
        with (folder / f"{name}.ids").open("wb") as file:
            for flat, sizes in self.chunks():
                file.write(flat.astype("<i4", copy=False).tobytes())
                lengths += sizes
        offsets = np.cumsum(lengths, dtype=np.int64).astype("<i8")
        (folder / f"{name}.offsets").write_bytes(offsets.tobytes())
        return {"cut": self.cut, "rows": len(self.examples), "ids": int(offsets[-1])}


def _key(
    split: Split, backbone: Backbone, max_input: int | None, max_target: int | None, what: str | None = None
) -> str:
    """Everything the ids depend on: texts, tokenizer, how the backbone frames a text, and the limits."""
    from softprompt.backbones.fingerprint import digest_tokenizer

    framing = [backbone.tokenize_inputs(_PROBES, None), backbone.tokenize_targets(_PROBES, None)]
    parts = [_FORMAT, split.fingerprint, digest_tokenizer(backbone.tokenizer), framing, max_input, max_target]
    parts += [what] if what else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _cached(folder: Path, sides: Mapping[str, _Side]) -> tuple[dict[str, Ragged], dict[str, int]]:
    """Ids from the cache; the first process that wants them makes them, others that want them at that time wait."""
    from filelock import FileLock

    from softprompt.artifacts import new_folder, sha256_file, write_json

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if not (folder / "meta.json").is_file() or not _whole(folder):
            with new_folder(folder, replace=True, durable=False) as fresh:
                meta: dict[str, Any] = {name: side.to_disk(fresh, name) for name, side in sides.items()}
                meta["sha256"] = {p.name: sha256_file(p) for p in sorted(fresh.iterdir())}
                write_json(fresh / "meta.json", meta, durable=False)
    meta = json.loads((folder / "meta.json").read_text())
    ragged = {name: _mapped(folder, name, meta[name]) for name in sides}
    return ragged, {name: int(meta[name]["cut"]) for name in sides}


def _whole(folder: Path) -> bool:
    """Whether a cache entry is what was written; one that is not is made anew, since it can be."""
    from softprompt.artifacts import read_json, sha256_file

    try:
        hashes = read_json(folder / "meta.json")["sha256"]
        return all(sha256_file(folder / name) == digest for name, digest in hashes.items())
    except (SoftpromptError, OSError, KeyError, TypeError, AttributeError):
        return False


def _mapped(folder: Path, name: str, meta: dict[str, Any]) -> Ragged:
    offsets = np.fromfile(folder / f"{name}.offsets", dtype="<i8").astype(np.int64)
    if not meta["ids"]:
        return Ragged(flat=np.zeros(0, np.int32), offsets=offsets)
    flat = np.memmap(folder / f"{name}.ids", dtype="<i4", mode="r", shape=(meta["ids"],))
    return Ragged(flat=flat, offsets=offsets)
