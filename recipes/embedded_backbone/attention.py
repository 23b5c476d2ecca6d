"""Attention that is quick on a CPU in both directions.

PyTorch's fused CPU attention is quick forwards, but its bf16 backward at 32 numbers a head takes ten times as long as
plain matrix products do. ``use`` makes a model take the fused one where no gradient is kept, and products elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NAME = "softprompt_cpu"


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    scaling: float | None = None, is_causal: bool | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Query, key, value [B, heads, length, size] and a boolean mask to outputs [B, length, heads, size]."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal) and query.shape[2] > 1
    causal = causal and attention_mask is None
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad):
        scores = torch.matmul(query * scale, key.transpose(-1, -2))
        if causal:
            ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
            attention_mask = ones.tril(key.shape[2] - query.shape[2])
        if attention_mask is not None:
            attention_mask = attention_mask[..., : key.shape[2]]
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        weights = functional.dropout(scores.softmax(-1), dropout, training=dropout > 0)
        mixed = torch.matmul(weights.to(value.dtype), value)
    else:
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scale, is_causal=causal
        )
    return mixed.transpose(1, 2).contiguous(), None


def use(model: Any) -> None:
    """Let every part of a Hugging Face ``model`` attend this way."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None:
            config._attn_implementation = NAME
