"""What prompts and backbones share: tokenised rows, what a prompter may know of them, and the prompts they get.

Letters: B rows, T input tokens, P prompt tokens, D target tokens, H backbone width, N runs, U unique prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Token ids of one row: a list, or an int array [T] as tokenised splits give it.
TokenRow = Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """B tokenised rows, padded on the right.

    Attributes:
        input_BT: int64 [B, T]; what stands from ``input_length_B`` on is ignored.
        input_length_B: int64 [B], 0..T.
        target_BD: int64 [B, D]; what stands from ``target_length_B`` on is ignored. Ends with the end-of-sequence id.
        target_length_B: int64 [B], 0..D.
    """

    input_BT: Tensor
    input_length_B: Tensor
    target_BD: Tensor
    target_length_B: Tensor

    @classmethod
    def of(
        cls, inputs: Sequence[TokenRow], targets: Sequence[TokenRow] | None = None, device: torch.device | str = "cpu"
    ) -> TokenBatch:
        """A batch from lists of token ids (targets may be left out for generation)."""
        targets = targets if targets is not None else [[] for _ in inputs]
        batch = cls(
            input_BT=_padded(inputs, device),
            input_length_B=on_device(torch.tensor([len(r) for r in inputs], dtype=torch.int64), device),
            target_BD=_padded(targets, device),
            target_length_B=on_device(torch.tensor([len(r) for r in targets], dtype=torch.int64), device),
        )
        # Known here already: asking a device for them later would wait for all it has to do.
        batch.__dict__["input_lengths"] = tuple(len(r) for r in inputs)
        batch.__dict__["target_lengths"] = tuple(len(r) for r in targets)
        return batch

    @cached_property
    def input_lengths(self) -> tuple[int, ...]:
        """``input_length_B`` on the host."""
        return tuple(self.input_length_B.tolist())

    @cached_property
    def target_lengths(self) -> tuple[int, ...]:
        """``target_length_B`` on the host."""
        return tuple(self.target_length_B.tolist())

    @property
    def size(self) -> int:
        """B."""
        return int(self.input_BT.shape[0])

    def select(self, rows: Tensor) -> TokenBatch:
        """A part of the rows (int64 [B'], places in the batch), cut to their longest input and target."""
        in_len, out_len = self.input_length_B[rows], self.target_length_B[rows]
        width = int(in_len.max()) if len(rows) else 0
        depth = int(out_len.max()) if len(rows) else 0
        return TokenBatch(
            input_BT=self.input_BT[rows, :width],
            input_length_B=in_len,
            target_BD=self.target_BD[rows, :depth],
            target_length_B=out_len,
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a prompter may know of the rows of a batch.

    Attributes:
        run_B: int64 [B], which run (0..N-1) each row belongs to.
        inputs: the B input texts as the backbone sees them; empty where no prompter needs them.
        keys: the B example identities (stable across epochs, used for caches); empty likewise.
    """

    run_B: Tensor
    inputs: Sequence[str] = ()
    keys: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """Prompts for a batch of B rows.

    Attributes:
        unique_UPH: float32 [U, P, H]; rows from ``length_U[u]`` on are ignored.
        which_B: int64 [B], the unique prompt each row uses.
        length_U: the number of prompt tokens of each unique prompt, ints in 0..P.
        key_U: identity of each unique prompt, for caches and answers; None where it has none.
        aux_loss_B: float32 [B], added to a row's loss (SharPT's codebook loss); None for zero.
        info: small values to log.
    """

    unique_UPH: Tensor
    which_B: Tensor
    length_U: tuple[int, ...]
    key_U: tuple[str | None, ...]
    aux_loss_B: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.unique_UPH.dim() != 3 or len(self.length_U) != self.unique_UPH.shape[0]:
            raise ValueError("a PromptBatch needs unique_UPH [U, P, H] and one length per unique prompt")

    def select(self, rows: Tensor) -> PromptBatch:
        """The same prompts for a part of the rows.

        Args:
            rows: int64 [b], indices into the batch.
        """
        return PromptBatch(
            unique_UPH=self.unique_UPH,
            which_B=self.which_B[rows],
            length_U=self.length_U,
            key_U=self.key_U,
            aux_loss_B=None if self.aux_loss_B is None else self.aux_loss_B[rows],
            info=self.info,
        )

    def lengths(self) -> list[int]:
        """The same on the host, as ints; the device is asked only where the prompts differ in length."""
        if len(set(self.length_U)) == 1:
            return [self.length_U[0]] * self.which_B.shape[0]
        return [self.length_U[u] for u in self.which_B.tolist()]

    def length_B(self) -> Tensor:
        """int64 [B], prompt tokens in front of each row."""
        return torch.tensor(self.length_U, device=self.which_B.device)[self.which_B]


def on_device(x: Tensor, device: torch.device | str) -> Tensor:
    """A host tensor of any shape on a device, without waiting for what the device has still to do.

    A plain copy to a CUDA device waits for all queued work, and the device then idles while the host goes on.
    """
    if torch.device(device).type != "cuda":
        return x.to(device)
    return _pinned(x).to(device, non_blocking=True)


def _pinned(x: Tensor) -> Tensor:
    return x.pin_memory()


def _padded(rows: Sequence[TokenRow], device: torch.device | str) -> Tensor:
    # Filled in NumPy: rows of a tokenised split are read-only maps of a file, which PyTorch does not take.
    out = np.zeros((len(rows), max((len(r) for r in rows), default=0)), dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return on_device(torch.from_numpy(out), device)
