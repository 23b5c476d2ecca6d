"""The layers of a frozen Transformer over packed rows: no gradient for weights, none for padding.

Letters: B rows, S packed positions, L positions of a padded row, H width, F feed-forward width, A heads, K head width,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.packing import Layout


@dataclass(frozen=True, eq=False)
class Linear:
    """A frozen affine map: weight [out, in], bias [out] or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class RMSNorm:
    """T5's layer norm: no mean, no bias; statistics in float32."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """The usual layer norm."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


def scale_rows(x_SH: Tensor, mask_BH: Tensor | None, layout: Layout) -> Tensor:
    """Dropout of packed rows: every position of row b times mask b."""
    if mask_BH is None:
        return x_SH
    return (x_SH * mask_BH[layout.row_S]).to(x_SH.dtype)


def attend(
    q_SAK: Tensor,
    k_SAK: Tensor,
    v_SAK: Tensor,
    queries: Layout,
    keys: Layout,
    *,
    scale: float,
    bias_BALL: Tensor | None,
    keep_SA: Tensor | None = None,
) -> Tensor:
    """Attention within rows.

    Args:
        q_SAK: [Sq, A, K] packed by ``queries``.
        k_SAK: [Sk, A, K] packed by ``keys``; ``v_SAK`` likewise.
        scale: factor on the scores before the bias.
        bias_BALL: additive [B or 1, A or 1, Lq, Lk] with the mask in it; None where all is visible.
        keep_SA: float32 [Sk, A], dropout of attention weights by key position.

    Returns:
        [Sq, A * K].
    """
    if keep_SA is not None:
        v_SAK = (v_SAK * keep_SA[:, :, None]).to(v_SAK.dtype)
    q = queries.pad(q_SAK).transpose(1, 2)
    k = keys.pad(k_SAK).transpose(1, 2)
    v = keys.pad(v_SAK).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_BALL, scale=scale)
    return queries.unpad(out.transpose(1, 2).flatten(2))


def key_mask(keys: Layout, dtype: torch.dtype) -> Tensor | None:
    """Additive [B, 1, 1, Lk] that hides padding; None where there is none."""
    if keys.even:
        return None
    mask = torch.zeros(keys.rows, 1, 1, keys.longest, dtype=dtype, device=keys.device)
    return mask.masked_fill_(~keys.valid_BL[:, None, None, :], torch.finfo(dtype).min)


def causal_mask(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive [1, 1, L, L] that hides what comes later."""
    hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    return torch.zeros(1, 1, length, length, dtype=dtype, device=device).masked_fill_(hidden, torch.finfo(dtype).min)


def add_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Sum of two additive masks, either of which may be missing."""
    if first is None or second is None:
        return first if second is None else second
    # Two hidden reasons must not add up to -inf: a row without any visible key would become NaN.
    return (first + second).clamp(min=torch.finfo(first.dtype).min)


def relative_buckets(distance: Tensor, *, bidirectional: bool, buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of each (key position - query position) (Raffel et al. 2020, section 2.1).

    Half of the buckets stand for single distances, the other half grow logarithmically up to ``max_distance``.

    Args:
        distance: int64, any shape.

    Returns:
        int64 in 0..buckets-1, same shape.
    """
    offset = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = (distance > 0).to(torch.int64) * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    log_ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (log_ratio * (buckets - exact)).to(torch.int64)).clamp(max=buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


def token_losses(hidden_SH: Tensor, project: Callable[[Tensor], Tensor], target_S: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and squared log partition function of each target token, float32 [S] each, in nats."""
    logits_SV = project(hidden_SH).float()
    log_z_S = torch.logsumexp(logits_SV, dim=-1)
    chosen_S = logits_SV.gather(1, target_S[:, None])[:, 0]
    return log_z_S - chosen_S, log_z_S.square()
