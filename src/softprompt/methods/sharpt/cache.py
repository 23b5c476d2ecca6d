"""Instance encodings computed once: in memory by text, on disk by data and encoder fingerprint.

The encoder is frozen, so a text's encoding never changes. Letters: n rows of a split, B texts, m encoder width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError
from softprompt.prompts.latent import InstanceEncoder, check_finite
from softprompt.tasks.task import Example

LATEST = 4096  # texts remembered beside the precomputed splits, e.g. requests to a server


class TextSplit(Protocol):
    """A ``Split`` or an ``EncodedSplit``: examples, and the fingerprint of their content."""

    @property
    def examples(self) -> Sequence[Example]: ...

    @property
    def fingerprint(self) -> str: ...


class CachedEncoder:
    """An instance encoder that remembers.

    Args:
        encoder: what computes.
        folder: where encodings of whole splits are kept; None for memory alone.
    """

    def __init__(self, encoder: InstanceEncoder, folder: Path | None = None) -> None:
        self.inner = encoder
        self.name, self.width, self.fingerprint = encoder.name, encoder.width, encoder.fingerprint
        self.folder = folder
        self.computed = 0
        self._splits: dict[str, Tensor] = {}
        self._known: dict[str, tuple[str, int]] = {}
        self._latest: OrderedDict[str, Tensor] = OrderedDict()

    def precompute(self, split: TextSplit) -> Tensor:
        """Encodings of all rows of a split, float32 [n, m] on the CPU; from memory or the disk if computed before.

        Raises:
            DataError: a row whose encoding is not finite, by its key.
        """
        if split.fingerprint in self._splits:
            return self._splits[split.fingerprint]
        texts = [example.inputs for example in split.examples]
        block_nm = self._read(split, len(texts))
        if block_nm is None:
            block_nm = self._compute(texts)
            check_finite(block_nm, texts, [example.key for example in split.examples], self.name)
            path = self._path(split)
            if path is not None:
                artifacts.write_tensors(
                    path,
                    {"encodings": block_nm},
                    {"encoder": self.fingerprint, "data": split.fingerprint},
                    durable=False,
                )
        self._splits[split.fingerprint] = block_nm
        self._known.update({text: (split.fingerprint, row) for row, text in enumerate(texts)})
        return block_nm

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, m] on the CPU."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known and text not in self._latest]
        fresh = dict(zip(missing, self._compute(missing), strict=True)) if missing else {}
        found = torch.stack([self._lookup(text, fresh) for text in texts]) if texts else torch.zeros(0, self.width)
        self._latest.update(fresh)
        while len(self._latest) > LATEST:
            self._latest.popitem(last=False)
        return found

    def _lookup(self, text: str, fresh: dict[str, Tensor]) -> Tensor:
        if text in self._known:
            split, row = self._known[text]
            return self._splits[split][row]
        return fresh[text] if text in fresh else self._latest[text]

    def _compute(self, texts: Sequence[str]) -> Tensor:
        self.computed += len(texts)
        if not texts:
            return torch.zeros(0, self.width)
        return self.inner.encode(texts).detach().to("cpu", torch.float32)

    def _path(self, split: TextSplit) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / self.fingerprint[:16] / f"{split.fingerprint[:32]}.safetensors"

    def _read(self, split: TextSplit, count: int) -> Tensor | None:
        path = self._path(split)
        if path is None or not path.is_file():
            return None
        try:
            block_nm = artifacts.read_tensors(path)["encodings"]
        except (CorruptArtifactError, DataError, KeyError):
            return None  # it can be computed again
        usable = tuple(block_nm.shape) == (count, self.width) and bool(torch.isfinite(block_nm).all())
        return block_nm.to(torch.float32) if usable else None
