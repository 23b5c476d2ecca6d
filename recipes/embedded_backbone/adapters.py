"""Low-rank additions to a frozen encoder: a few hundred thousand numbers of our own beside weights that stay as they are.

Legend: R rank, I inputs, O outputs of one matrix. What ships is A [R, I] and B [O, R] for each adapted matrix; whoever
loads the backbone adds B @ A to the matrix, so that the model is a plain BERT again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ADAPTED = ("query", "key", "value", "output.dense")
SCALE = 2.0


class LowRank(nn.Module):
    """A frozen linear layer plus ``SCALE * B @ A``; B starts at zero."""

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        drawn = torch.randn(rank, base.in_features, generator=generator)
        self.adapter_A = nn.Parameter(drawn / base.in_features**0.5)
        self.adapter_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        added = nn.functional.linear(nn.functional.linear(inputs, self.adapter_A), self.adapter_B)
        result: Tensor = self.base(inputs) + SCALE * added
        return result


def adapt(encoder: Any, rank: int) -> None:
    """Replace the adapted matrices of a frozen encoder by themselves plus a low-rank part."""
    generator = torch.Generator().manual_seed(rank)
    places = [
        name for name, module in encoder.named_modules() if isinstance(module, nn.Linear) and name.endswith(ADAPTED)
    ]
    for name in places:
        parent, _, last = name.rpartition(".")
        holder = encoder.get_submodule(parent)
        setattr(holder, last, LowRank(getattr(holder, last), rank, generator))


def tensors(encoder: Any) -> dict[str, Tensor]:
    """What ships, in bf16: ``encoder.<matrix>.A`` with the scale in it, and ``encoder.<matrix>.B``."""
    found: dict[str, Tensor] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, LowRank):
            found[f"encoder.{name}.A"] = (SCALE * module.adapter_A.detach()).to("cpu", torch.bfloat16).contiguous()
            found[f"encoder.{name}.B"] = module.adapter_B.detach().to("cpu", torch.bfloat16).contiguous()
    return found


def restore(encoder: Any, shipped: dict[str, Tensor]) -> None:
    """Put shipped parts back into an adapted encoder, to train on."""
    with torch.no_grad():
        for name, module in encoder.named_modules():
            if isinstance(module, LowRank) and f"encoder.{name}.A" in shipped:
                module.adapter_A.copy_(shipped[f"encoder.{name}.A"].float() / SCALE)
                module.adapter_B.copy_(shipped[f"encoder.{name}.B"].float())
