"""A stack of plain soft prompts: row b of run n gets prompt n (Lester et al. 2021; SPoT section 2.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softprompt.batch import PromptBatch, Rows
from softprompt.prompts.prompter import Prompter


class PromptStack(Prompter):
    """N soft prompts [N, P, H], gathered by run.

    Args:
        prompts_NPH: float32 or float64 [N, P, H]; other dtypes become float32. Copied.
        lengths: tokens of each prompt, ints in 1..P; all P where not given.
        keys: identity of each prompt; None where it has none.
        tuned: whether the prompts require gradients.
    """

    def __init__(
        self,
        prompts_NPH: Tensor,
        *,
        lengths: Sequence[int] | None = None,
        keys: Sequence[str | None] | None = None,
        tuned: bool = False,
    ) -> None:
        if prompts_NPH.dim() != 3:
            raise ValueError(f"a prompt stack needs [N, P, H], got {tuple(prompts_NPH.shape)}")
        count, length, _ = prompts_NPH.shape
        dtype = torch.float64 if prompts_NPH.dtype == torch.float64 else torch.float32
        self.prompts_NPH = prompts_NPH.detach().to(dtype, copy=True)
        self.prompts_NPH.requires_grad_(tuned)
        self.lengths = tuple(lengths) if lengths is not None else (length,) * count
        self.keys = tuple(keys) if keys is not None else (None,) * count

    @classmethod
    def of(
        cls, prompts: Sequence[Tensor], *, keys: Sequence[str | None] | None = None, tuned: bool = False
    ) -> PromptStack:
        """A stack of prompts [P_i, H] of possibly different lengths; shorter ones are padded with zeros."""
        length = max(p.shape[0] for p in prompts)
        stack = torch.zeros(len(prompts), length, prompts[0].shape[1])
        for i, prompt in enumerate(prompts):
            stack[i, : prompt.shape[0]] = prompt.detach().to("cpu", torch.float32)
        stack = stack.to(prompts[0].device)
        return cls(stack, lengths=[p.shape[0] for p in prompts], keys=keys, tuned=tuned)

    @property
    def run_count(self) -> int:
        return int(self.prompts_NPH.shape[0])

    @property
    def prompt_length(self) -> int:
        return int(self.prompts_NPH.shape[1])

    def trained(self) -> dict[str, Tensor]:
        return {"prompt": self.prompts_NPH}

    def prepare(self, rows: Rows) -> Tensor:
        """The run of each row, int64 [B]."""
        return rows.run_B

    def __call__(self, prepared: Tensor) -> PromptBatch:
        return PromptBatch(unique_UPH=self.prompts_NPH, which_B=prepared, length_U=self.lengths, key_U=self.keys)

    def keep(self, runs: Sequence[int]) -> PromptStack:
        index = torch.tensor(list(runs), device=self.prompts_NPH.device)
        return PromptStack(
            self.prompts_NPH.detach()[index],
            lengths=[self.lengths[i] for i in runs],
            keys=[self.keys[i] for i in runs],
            tuned=self.prompts_NPH.requires_grad,
        )
