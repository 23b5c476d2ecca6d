"""Fused projections that share storage with the Hugging Face module they were read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from softprompt.backbones.layers import Linear


def fuse(modules: Sequence[Any]) -> Linear:
    """One affine map for several modules that read the same input; their outputs lie side by side.

    The modules' parameters become views of the fused tensors, so that weights are held once and the live Hugging Face
    model goes on working.
    """
    if len(modules) == 1:
        bias = modules[0].bias
        return Linear(modules[0].weight.detach(), None if bias is None else bias.detach())
    weight = torch.cat([m.weight.detach() for m in modules])
    biased = modules[0].bias is not None
    bias = torch.cat([m.bias.detach() for m in modules]) if biased else None
    begin = 0
    for module in modules:
        end = begin + module.weight.shape[0]
        module.weight.data = weight[begin:end]
        if bias is not None:
            module.bias.data = bias[begin:end]
        begin = end
    return Linear(weight, bias)
