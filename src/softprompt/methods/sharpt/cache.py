"""Instance encodings computed once: in memory by text, on disk by the texts' and the encoder's fingerprint.

The encoder is frozen, so a text's encoding never changes. Letters: n texts, B texts, m encoder width.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError
from softprompt.prompts.latent import InstanceEncoder, check_finite, without_name
from softprompt.tasks.example import Example

LATEST = 4096  # texts remembered beside the precomputed ones, e.g. requests to a server


class CachedEncoder:
    """An instance encoder that remembers.

    Args:
        encoder: what computes.
        folder: where precomputed encodings are kept; None for memory alone.
    """

    def __init__(self, encoder: InstanceEncoder, folder: Path | None = None) -> None:
        self.inner = encoder
        self.name, self.width, self.fingerprint = encoder.name, encoder.width, encoder.fingerprint
        self.folder = folder
        self.computed = 0
        self._known: dict[str, Tensor] = {}
        self._latest: OrderedDict[str, Tensor] = OrderedDict()

    def precompute(self, examples: Iterable[Example], task_names: Sequence[str] = ()) -> Tensor:
        """Encodings of rows, float32 [n, m] on the CPU; from memory or the disk if computed before.

        Args:
            examples: the n rows, e.g. ``split.examples``.
            task_names: left out of the encoded texts, see `softprompt.prompts.latent.without_name`.

        Raises:
            DataError: a row whose encoding is not finite, by its key.
        """
        rows = list(examples)
        texts = [without_name(row.inputs, task_names) for row in rows]
        if not texts:
            return torch.zeros(0, self.width)
        if not all(text in self._known for text in texts):
            block_nm = self._read(texts)
            if block_nm is None:
                block_nm = self._compute_missing(texts)
                check_finite(block_nm, texts, [row.key for row in rows], self.name)
                self._write(texts, block_nm)
            self._known.update(zip(texts, block_nm, strict=True))
        return torch.stack([self._known[text] for text in texts])

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens the encoder reads of each text."""
        return self.inner.lengths(texts)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, m] on the CPU."""
        if not texts:
            return torch.zeros(0, self.width)
        missing = [text for text in dict.fromkeys(texts) if text not in self._known and text not in self._latest]
        fresh = dict(zip(missing, self._compute(missing), strict=True)) if missing else {}
        found = torch.stack([self._lookup(text, fresh) for text in texts])
        self._latest.update(fresh)
        while len(self._latest) > LATEST:
            self._latest.popitem(last=False)
        return found

    def _lookup(self, text: str, fresh: dict[str, Tensor]) -> Tensor:
        if text in self._known:
            return self._known[text]
        return fresh[text] if text in fresh else self._latest[text]

    def _compute(self, texts: Sequence[str]) -> Tensor:
        self.computed += len(texts)
        return self.inner.encode(texts).detach().to("cpu", torch.float32)

    def _compute_missing(self, texts: Sequence[str]) -> Tensor:
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        fresh = dict(zip(missing, self._compute(missing), strict=True))
        return torch.stack([self._known[text] if text in self._known else fresh[text] for text in texts])

    def _path(self, texts: Sequence[str]) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256()
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return self.folder / self.fingerprint[:16] / f"{digest.hexdigest()[:32]}.safetensors"

    def _write(self, texts: Sequence[str], block_nm: Tensor) -> None:
        path = self._path(texts)
        if path is not None:
            artifacts.write_tensors(path, {"encodings": block_nm}, {"encoder": self.fingerprint}, durable=False)

    def _read(self, texts: Sequence[str]) -> Tensor | None:
        path = self._path(texts)
        if path is None or not path.is_file():
            return None
        try:
            block_nm = artifacts.read_tensors(path)["encodings"]
        except (CorruptArtifactError, DataError, KeyError):
            return None  # it can be computed again
        usable = tuple(block_nm.shape) == (len(texts), self.width) and bool(torch.isfinite(block_nm).all())
        return block_nm.to(torch.float32) if usable else None
