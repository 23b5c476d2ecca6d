"""Contamination: validation rows of a target that stand, exactly or nearly, in the training rows of a source."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softprompt import waits
from softprompt.errors import UsageError
from softprompt.tasks.example import Split

SHINGLE = 3
"""Words in a shingle."""

BANDS, ROWS = 24, 4
"""MinHash bands and rows of a band: pairs of Jaccard similarity 0.8 are missed with probability under 1e-5."""

_MARKER = re.compile(r"(?:^|\s)[A-Za-z_]\w*:\s")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What was found.

    Attributes:
        exact: target rows whose texts, field names and case aside, are those of a source row.
        near: further target rows with a source row of Jaccard similarity of at least ``threshold``.
        rows: target rows compared.
        source_rows: source rows compared with.
        threshold: on word-shingle similarity, 0..1.
        pairs: (target key, source key, similarity), one source row for each target row found, the nearest first.
    """

    exact: int
    near: int
    rows: int
    source_rows: int
    threshold: float
    pairs: tuple[tuple[str, str, float], ...]

    @property
    def share(self) -> float:
        """Exact and near rows, percent of the target rows."""
        return 100.0 * (self.exact + self.near) / self.rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values for reports."""
        return {
            "exact": self.exact,
            "near": self.near,
            "rows": self.rows,
            "source_rows": self.source_rows,
            "threshold": self.threshold,
            "share": self.share,
            "pairs": [list(pair) for pair in self.pairs],
        }


def contamination(target: Split, source: Split, *, threshold: float = 0.8, most_pairs: int = 100) -> Contamination:
    """Compare a target's rows (its validation split) with a source's (its training split).

    Near duplicates are found by MinHash over 3-word shingles and verified by their true Jaccard similarity.

    Args:
        threshold: least similarity of a near duplicate, above 0.5 and at most 1.
        most_pairs: how many pairs to keep in the result.
    """
    if not 0.5 < threshold <= 1:
        raise UsageError(f"contamination threshold is {threshold}; give one above 0.5 and at most 1.")
    source_texts = [content(e.inputs) for e in source.examples]
    exactly: dict[tuple[str, ...], int] = {}
    for i, pieces in enumerate(source_texts):
        exactly.setdefault(_key(pieces), i)
    target_texts = [content(e.inputs) for e in target.examples]
    best: dict[int, tuple[float, int]] = {}
    for i, pieces in enumerate(target_texts):
        found = exactly.get(_key(pieces))
        if found is not None and pieces:
            best[i] = (1.0, found)
    exact = len(best)
    done = {i for i, pieces in enumerate(target_texts) if not pieces or i in best}
    for i, j, similarity in _near(target_texts, source_texts, threshold, done):
        if similarity > best.get(i, (0.0, 0))[0]:
            best[i] = (similarity, j)
    ranked = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))[:most_pairs]
    pairs = tuple((target.examples[i].key, source.examples[j].key, round(s, 4)) for i, (s, j) in ranked)
    return Contamination(
        exact=exact,
        near=len(best) - exact,
        rows=len(target),
        source_rows=len(source),
        threshold=threshold,
        pairs=pairs,
    )


def text_key(inputs: str) -> tuple[str, ...]:
    """What exact duplicates have in common, whatever their task's form: their texts in sorted order; () without text."""
    return _key(content(inputs))


def exact_rows(targets: Sequence[tuple[str, ...]], sources: Collection[tuple[str, ...]]) -> int:
    """How many of the targets' keys stand among the sources' keys (`text_key`); rows without text are like no other."""
    return sum(bool(key) and key in sources for key in targets)


def _key(pieces: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(pieces))


def content(inputs: str) -> list[str]:
    """The texts of an example's inputs, without the task's name and the fields' names, case and punctuation aside."""
    text = unicodedata.normalize("NFKC", inputs).casefold()
    pieces = _MARKER.split(" " + text)
    if len(pieces) > 1 and len(pieces[0].split()) <= 1:
        pieces = pieces[1:]
    cleaned = (" ".join(_WORD.findall(piece)) for piece in pieces)
    return [piece for piece in cleaned if piece]


def _shingles(pieces: Sequence[str]) -> set[int]:
    words = " ".join(pieces).split()
    grams = [" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]
    return {zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams}


def _signatures(sets: Sequence[set[int]]) -> NDArray[np.uint64]:
    """MinHash signatures [N, BANDS * ROWS]."""
    count = BANDS * ROWS
    seeds = np.random.PCG64(20260101).random_raw(count)
    signatures = np.full((len(sets), count), np.iinfo(np.uint64).max, dtype=np.uint64)
    for i, shingles in enumerate(waits.each("comparing rows", sets)):
        values = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
        signatures[i] = _mixed(values[:, None] ^ seeds).min(axis=0)
    return signatures


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit of the value moves every bit of the hash. Overflow wraps, as it should."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _near(
    targets: Sequence[Sequence[str]], sources: Sequence[Sequence[str]], threshold: float, skip: set[int]
) -> Iterator[tuple[int, int, float]]:
    """(target row, source row, similarity) of pairs that reach the threshold."""
    target_sets, source_sets = [_shingles(t) for t in targets], [_shingles(s) for s in sources]
    target_signs, source_signs = _signatures(target_sets), _signatures(source_sets)
    seen: set[tuple[int, int]] = set()
    for band in range(BANDS):
        columns = slice(band * ROWS, (band + 1) * ROWS)
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for i, signature in enumerate(target_signs[:, columns]):
            if i not in skip:
                buckets[signature.tobytes()].append(i)
        for j, signature in enumerate(source_signs[:, columns]):
            for i in buckets.get(signature.tobytes(), ()):
                if (i, j) not in seen:
                    seen.add((i, j))
                    common = len(target_sets[i] & source_sets[j])
                    similarity = common / len(target_sets[i] | source_sets[j])
                    if similarity >= threshold:
                        yield i, j, similarity
