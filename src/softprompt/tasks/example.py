"""Examples and splits: text-to-text pairs, and how their content is fingerprinted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import one_line


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One text-to-text pair.

    Attributes:
        key: stable identity ``task/split/row`` (``.k`` is added to the k-th pair of a row that makes several).
        inputs: what the backbone reads, trimmed.
        targets: what it should write, trimmed; ``<unk>`` where the gold label is missing.
        extra: what metrics and submissions need: ``label`` (index or None), ``answers``, ``group``, ``idx``, ...
    """

    key: str
    inputs: str
    targets: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return one_line(f"<Example {self.key}: {self.inputs[:80]!r} -> {self.targets!r}>")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The examples of a split.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        examples: in the source's order.
        fingerprint: sha256 (hex) of the examples' content; the same texts give the same fingerprint wherever they lie.
        skipped: bad rows left out on request.
        unlabelled: training rows left out because they have no answer to learn.
        drawn_prefix: the examples are texts, each cut in two anew whenever it is trained on (`Task.drawn_prefix`).
        parts: of a mixture, its tasks' splits in the order of the examples; empty for one task.
    """

    name: str
    examples: Sequence[Example]
    fingerprint: str
    skipped: int = 0
    unlabelled: int = 0
    drawn_prefix: bool = False
    parts: tuple[Split, ...] = ()

    def __repr__(self) -> str:
        return one_line(f"<Split {self.name}: {len(self)} examples, fingerprint {self.fingerprint[:12]}>")

    def __len__(self) -> int:
        return len(self.examples)

    @classmethod
    def of(cls, name: str, examples: Sequence[Example], *, skipped: int = 0, unlabelled: int = 0) -> Split:
        """A split with the fingerprint computed."""
        made = fingerprint(examples)
        return cls(name=name, examples=tuple(examples), fingerprint=made, skipped=skipped, unlabelled=unlabelled)


def fingerprint(examples: Iterable[Example]) -> str:
    """sha256 (hex) over inputs, targets and extra of the examples, in order."""
    digest = Digest()
    for example in examples:
        digest.add(example)
    return digest.fingerprint()


class Digest:
    """The fingerprint of examples in order, one after the other: sha256 over inputs, targets and extra."""

    def __init__(self) -> None:
        self._content, self._keys = hashlib.sha256(), hashlib.sha256()

    def add(self, example: Example) -> None:
        """The next example."""
        content = [example.inputs, example.targets, dict(example.extra)]
        encoded = json.dumps(content, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        self._content.update(len(encoded).to_bytes(8, "little"))
        self._content.update(encoded)
        self._keys.update(example.key.encode("utf-8", "surrogatepass") + b"\0")

    def fingerprint(self) -> str:
        """Of the content, hex."""
        return self._content.hexdigest()

    def file_name(self) -> str:
        """Of the content and the examples' keys."""
        return hashlib.sha256(
            f"softprompt-examples-1 {self.fingerprint()} {self._keys.hexdigest()}".encode()
        ).hexdigest()


class Picked(Sequence[Example]):
    """Examples of several sequences by place, without a copy.

    Args:
        parts: the sequences.
        part_N: which of them each example is of.
        row_N: and its place there.
    """

    def __init__(self, parts: Sequence[Sequence[Example]], part_N: NDArray[np.int64], row_N: NDArray[np.int64]) -> None:
        self.parts, self.part_N, self.row_N = parts, part_N, row_N

    def __len__(self) -> int:
        return len(self.part_N)

    @overload
    def __getitem__(self, i: int) -> Example: ...
    @overload
    def __getitem__(self, i: slice) -> list[Example]: ...
    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return self.parts[int(self.part_N[i])][int(self.row_N[i])]


def places(sizes: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(part, row in it) of every row of parts that stand one behind the other."""
    part_N = np.repeat(np.arange(len(sizes)), sizes)
    row_N = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, np.int64)
    return part_N, row_N
