"""A prompt that holds NaN or infinity gives a loss that says so, whatever the backbone, the dtype and the length of the rows."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import KINDS, random_batch, random_prompts, tiny_backbone

from softprompt.batch import Rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_prompt_that_is_not_finite_is_seen_in_every_loss(kind: str, dtype: torch.dtype) -> None:
    backbone = tiny_backbone(kind, dtype=dtype)
    batch = random_batch(backbone, rows=3)
    for length in (1, 8, 33, 70):
        for bad in (float("nan"), float("inf"), float("-inf")):
            stack = random_prompts(backbone, (length, length), tuned=False)
            stack.prompts_NPH[1, -1, 3] = bad
            losses = backbone.example_losses(batch, stack.prompts(Rows(run_B=torch.tensor([0, 1, 1]))))
            assert losses.nll_B.isfinite().tolist() == [True, False, False], (length, bad)
