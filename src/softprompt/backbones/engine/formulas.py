"""What lies between the matrix products, as PyTorch operations: the formulas that every other way of computing must match.

Computed in float32, or in the activations' own wider dtype. Letters: S packed positions, H width, F feed-forward width,
B rows; ``row_S`` is the row of each packed position, ``keep_BH`` a row's dropout scales.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


def wide(x: Tensor) -> Tensor:
    """float32, or float64 as it is; any shape."""
    return x if x.dtype == torch.float64 else x.float()


def drop(x_SH: Tensor, keep_BH: Tensor | None, row_S: Tensor) -> Tensor:
    """Every position [S, H] of a row times the row's scales [B, H]; x itself where there are none."""
    return x_SH if keep_BH is None else (x_SH * keep_BH[row_S]).to(x_SH.dtype)


def rms_forward(
    x: Tensor, o: Tensor | None, keep: Tensor | None, row_S: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x + dropout(o), its RMS norm times the weight, and 1 / RMS [S, 1]; o may be None."""
    total = x if o is None else x + drop(o, keep, row_S)
    rstd = torch.rsqrt(wide(total).square().mean(-1, keepdim=True) + eps)
    scaled = wide(total) * rstd
    if weight.dtype != x.dtype:  # Gemma's 1 + w does not fit bfloat16
        return total, (scaled * weight).to(x.dtype), rstd
    return total, scaled.to(x.dtype) * weight, rstd


def rms_backward(
    dy: Tensor, d_total: Tensor | None, total: Tensor, rstd: Tensor, weight: Tensor, keep: Tensor | None, row_S: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients [S, H] of x and, dropout applied, of o, from those of the norm and (or None) of the sum."""
    g, v, r = wide(dy) * wide(weight), wide(total), rstd
    dx = r * (g - v * (g * v).mean(-1, keepdim=True) * r * r)
    dx = (dx if d_total is None else dx + d_total).to(dy.dtype)
    return dx, drop(dx, keep, row_S)


def norm_forward(
    x: Tensor, o: Tensor, keep: Tensor | None, row_S: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x + dropout(o), its layer norm, and mean and 1 / deviation [S, 1]."""
    total = x + drop(o, keep, row_S)
    return total, *torch.native_layer_norm(total, (total.shape[-1],), weight, bias, eps)


def norm_backward(
    dy: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, keep: Tensor | None, row_S: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients [S, H] of x and, dropout applied, of o."""
    g, hat = wide(dy) * wide(weight), (wide(total) - wide(mean)) * wide(rstd)
    dx = wide(rstd) * (g - g.mean(-1, keepdim=True) - hat * (g * hat).mean(-1, keepdim=True))
    dx = dx.to(dy.dtype)
    return dx, drop(dx, keep, row_S)


def activated(up_SF: Tensor, keep_BF: Tensor | None, row_S: Tensor, name: str, gated: bool) -> Tensor:
    """dropout(act(gate) * value) of [S, 2F] where gated, else dropout(act(up))."""
    if gated:
        gate, value = up_SF.chunk(2, dim=-1)
        return drop(ACTIVATIONS[name](gate) * value, keep_BF, row_S)
    return drop(ACTIVATIONS[name](up_SF), keep_BF, row_S)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T * scale + mask) v, by PyTorch's fused kernel where that tells the truth.

    On a CPU that kernel turns NaN and infinity into finite numbers at many lengths, in bfloat16 and in float32: its running
    maximum and its exponential do not carry them (PyTorch 2.13). What is not finite, or could become so on the way, is
    therefore computed by the formula itself.

    Args:
        q: [B, A, D, K].
        k: [B, A, L, K].
        v: [B, A, L, K].
        mask: additive, shape that broadcasts to [B, A, D, L]; None for none.
        scale: factor on the products before the mask.

    Returns:
        [B, A, D, K].
    """
    if q.device.type != "cpu" or _tame(q, k, v, scale):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    scores = wide(q) @ wide(k).transpose(-1, -2) * scale
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ wide(v)).to(q.dtype)


def _tame(q: Tensor, k: Tensor, v: Tensor, scale: float) -> bool:
    """Whether all is finite and no product of a query and a key can leave float32's range."""
    most = torch.finfo(torch.float32).max / 4
    norms = [float(torch.linalg.vector_norm(x.detach(), dtype=torch.float32 if x.dtype == torch.float16 else None))
             for x in (q, k, v)]  # fmt: skip
    return isfinite(norms[2]) and norms[0] * norms[1] * max(1.0, abs(scale)) < most
