"""The one interface between everything that makes prompts and everything that uses them.

Letters: B rows, P prompt tokens, H backbone width, N runs, U unique prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


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


class Prompter(ABC):
    """Makes prompts for rows. N runs live in one prompter; their tensors have a leading axis N."""

    @property
    @abstractmethod
    def run_count(self) -> int:
        """N."""

    @property
    @abstractmethod
    def prompt_length(self) -> int:
        """P, the largest number of prompt tokens it makes."""

    @abstractmethod
    def trained(self) -> dict[str, Tensor]:
        """The trained tensors by name, each float32 [N, ...] and requiring gradient where it is tuned."""

    @abstractmethod
    def prepare(self, rows: Rows) -> Any:
        """The part that needs no gradient and may be cached."""

    @abstractmethod
    def __call__(self, prepared: Any) -> PromptBatch:
        """Prompts for the prepared rows; differentiable with respect to ``trained()``."""

    def buffers(self) -> dict[str, Tensor]:
        """Tensors [N, ...] that are part of the state but not tuned by gradient; saved in checkpoints."""
        return {}

    def after_step(self, step: int) -> None:  # noqa: B027 (most prompters need no upkeep)
        """Called once after every optimiser step; a place for upkeep that needs no gradient."""

    @abstractmethod
    def keep(self, runs: Sequence[int]) -> Prompter:
        """A prompter with only these runs, sharing no storage with this one."""

    def prompts(self, rows: Rows) -> PromptBatch:
        """``prepare`` and call in one."""
        with torch.no_grad():
            prepared = self.prepare(rows)
        return self(prepared)
