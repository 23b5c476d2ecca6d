"""Unsupervised objectives over token ids: prefix language modelling and span corruption (Raffel et al. 2020, section 3).

Letters: T tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import UsageError

Ids = NDArray[np.int32]


def chunks(ids: Sequence[int], length: int) -> Iterator[Ids]:
    """A document's ids in chunks of ``length``, the last one shorter."""
    if length < 1:
        raise UsageError(f"chunk length is {length}; it must be at least 1.")
    array = np.asarray(ids, dtype=np.int32)
    for start in range(0, len(array), length):
        yield array[start : start + length]


def prefix_lm(ids: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Cut a chunk [T], T >= 2, at a uniformly drawn point: (inputs, targets), neither empty, end tokens not added."""
    if len(ids) < 2:
        raise UsageError(f"a prefix-LM chunk needs at least 2 tokens, found {len(ids)}.")
    cut = int(rng.integers(1, len(ids)))
    return ids[:cut], ids[cut:]


def noise_mask(
    length: int, rng: np.random.Generator, *, density: float = 0.15, mean_span: float = 3.0
) -> NDArray[np.bool_]:
    """bool [T], True where tokens are dropped: spans and gaps alternate, a gap first; all such masks are equally likely."""
    if length < 2:
        raise UsageError(f"span corruption needs at least 2 tokens, found {length}.")
    noise = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(noise / mean_span), 1), length - noise)
    gaps, holes = _parts(length - noise, spans, rng), _parts(noise, spans, rng)
    lengths = np.stack([gaps, holes], axis=1).reshape(-1)
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def _parts(count: int, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` items cut into non-empty parts, uniformly: int64 [parts]."""
    starts = np.sort(rng.choice(count - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.zeros(0, np.int64)
    return np.diff(np.concatenate([[0], starts, [count]])).astype(np.int64)


def span_corruption(
    ids: Ids,
    sentinels: Sequence[int],
    rng: np.random.Generator,
    *,
    density: float = 0.15,
    mean_span: float = 3.0,
) -> tuple[Ids, Ids]:
    """T5's objective: (inputs with every noise span replaced by a sentinel, the spans behind their sentinels).

    Args:
        ids: int32 [T], T >= 2.
        sentinels: ids of ``<extra_id_0>``, ``<extra_id_1>``, ... in that order.
        density: share of tokens dropped.
        mean_span: mean length of a span, tokens.

    Returns:
        inputs and targets, end tokens not added. As in T5, targets open with a sentinel and the last one closes nothing.
    """
    mask = noise_mask(len(ids), rng, density=density, mean_span=mean_span)
    spans = int(np.sum(mask & ~np.concatenate([[False], mask[:-1]])))
    if spans + 1 > len(sentinels):
        raise UsageError(
            f"{len(ids)} tokens make {spans} spans, the tokenizer has {len(sentinels)} sentinels; cut shorter."
        )
    return _marked(ids, mask, sentinels), _marked(ids, ~mask, sentinels)


def _marked(ids: Ids, dropped: NDArray[np.bool_], sentinels: Sequence[int]) -> Ids:
    """Every run of dropped ids replaced by the next sentinel."""
    first = dropped & ~np.concatenate([[False], dropped[:-1]])
    marks = np.asarray(sentinels, dtype=np.int32)[np.maximum(np.cumsum(first) - 1, 0)]
    kept: Ids = np.where(first, marks, ids)[~dropped | first].astype(np.int32)
    return kept
