"""Examples and splits: text-to-text pairs, and how their content is fingerprinted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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


@dataclass(frozen=True, kw_only=True)
class Split:
    """The examples of a split.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        examples: in the source's order.
        fingerprint: sha256 (hex) of the examples' content; the same texts give the same fingerprint wherever they lie.
        skipped: bad rows left out on request.
        unlabelled: training rows left out because they have no answer to learn.
    """

    name: str
    examples: Sequence[Example]
    fingerprint: str
    skipped: int = 0
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    @classmethod
    def of(cls, name: str, examples: Sequence[Example], *, skipped: int = 0, unlabelled: int = 0) -> Split:
        """A split with the fingerprint computed."""
        made = fingerprint(examples)
        return cls(name=name, examples=tuple(examples), fingerprint=made, skipped=skipped, unlabelled=unlabelled)


def fingerprint(examples: Iterable[Example]) -> str:
    """sha256 (hex) over inputs, targets and extra of the examples, in order."""
    digest = hashlib.sha256()
    for example in examples:
        content = [example.inputs, example.targets, dict(example.extra)]
        encoded = json.dumps(content, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
