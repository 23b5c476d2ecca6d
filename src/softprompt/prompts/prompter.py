"""The one interface between everything that makes prompts and everything that uses them.

Letters: B rows, P prompt tokens, H backbone width, N runs, U unique prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softprompt.batch import PromptBatch, Rows


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
