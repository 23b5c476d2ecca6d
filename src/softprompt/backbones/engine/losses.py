"""Token losses of the decoder.

Letters: R packed decoder positions, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from softprompt.backbones.engine.ops import log_partition

_TOKENS_AT_ONCE = 512  # logits of more target tokens than this are not held together


def token_losses(hidden_RH: Tensor, project: Callable[[Tensor], Tensor], target_R: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and squared log partition function of each target token, float32 [R] each, in nats.

    Logits of many tokens are computed piece by piece and again in the backward pass, so that [R, V] never exists.

    Args:
        hidden_RH: the decoder's output.
        project: hidden states to logits.
        target_R: int64 [R].
    """

    def losses(hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_z, chosen = log_partition(project(hidden), target)
        return log_z - chosen, log_z.square()

    if hidden_RH.shape[0] <= _TOKENS_AT_ONCE:
        return losses(hidden_RH, target_R)
    size = _TOKENS_AT_ONCE
    pieces = zip(torch.split(hidden_RH, size), torch.split(target_R, size), strict=True)
    parts = [checkpoint(losses, hidden, target, use_reentrant=False) for hidden, target in pieces]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
