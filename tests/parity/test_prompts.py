"""Prompts after 50 steps do not depend on what they are computed beside, but for rounding.

The same run is trained alone and with two others (N together), with all rows of a step packed into one forward pass and with one
row a pass (packed or not). In float32 the prompts agree to ``FLOAT32`` of their size: Adam divides by the root of squared
gradients, so a difference in the last digit of a small gradient becomes a difference of the update. In float64, backbone,
prompts and optimiser alike, they agree to ``FLOAT64``: all the rest is rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.words import WordTask, examples

from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Split
from softprompt.training.group import Group
from softprompt.training.runs import Run
from softprompt.training.settings import TrainSettings

FLOAT32, FLOAT64 = 1e-5, 1e-12  # norm of the difference over the norm of what training changed
STEPS = 50
KINDS = ("t5", "encdec", "llama", "llama-shared")  # the last without dropout: its rows share their run's prompt
ONE_ROW, ALL_ROWS = 1, 100_000  # micro_batch_tokens


class Stack(PromptStack):
    """Prompts in the backbone's own dtype."""

    def __init__(self, prompts_NPH: torch.Tensor) -> None:
        super().__init__(prompts_NPH, tuned=True)
        self.prompts_NPH = prompts_NPH.detach().clone().requires_grad_(True)

    def keep(self, runs: Sequence[int]) -> PromptStack:
        return Stack(self.prompts_NPH[list(runs)])


def tuned(kind: str, dtype: torch.dtype, optimizer: str, seeds: list[int], micro: int) -> dict[int, torch.Tensor]:
    """What 50 steps add to the prompts of some seeds that train together."""
    shared = kind == "llama-shared"
    backbone = tiny_backbone(kind.removesuffix("-shared"), dtype=dtype)
    split = encode_split(Split.of("train", examples(40, 1)), backbone, max_input_tokens=None, max_target_tokens=None)
    settings = TrainSettings(
        steps=STEPS, batch_size=4, prompt_length=3, optimizer=optimizer, learning_rate=0.02, dropout=0.0 if shared else 0.1, warmup_steps=5,
        micro_batch_tokens=micro,
    )  # fmt: skip
    start = torch.stack(
        [torch.randn(3, backbone.hidden_size, generator=torch.Generator().manual_seed(s)) for s in seeds]
    ).to(dtype)
    runs = [Run(name=f"run-{s}", seed=s, train=(split,), task=WordTask(), validation=split) for s in seeds]
    group = Group(backbone, Stack(start), runs, settings)
    for _ in range(STEPS):
        group.step()
    moved = group.prompter.trained()["prompt"].detach() - start
    assert float(moved.abs().mean()) > 0.05  # 50 steps did something
    return dict(zip(seeds, moved, strict=True))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adafactor", "adam"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_fifty_steps_together_and_apart_packed_and_not(kind: str, dtype: torch.dtype, optimizer: str) -> None:
    most = FLOAT32 if dtype == torch.float32 else FLOAT64
    together = tuned(kind, dtype, optimizer, [1, 2, 3], ALL_ROWS)
    unpacked = tuned(kind, dtype, optimizer, [1, 2, 3], ONE_ROW)
    alone = tuned(kind, dtype, optimizer, [2], ALL_ROWS)
    assert apart(alone[2], together[2]) < most
    for seed, prompt in together.items():
        assert apart(unpacked[seed], prompt) < most
    assert apart(together[1], together[2]) > 0.1  # and different runs are different
