"""What lies between the matrix products, as PyTorch operations: the formulas that every other way of computing must match.

Computed in float32, or in the activations' own wider dtype. Letters: S packed positions, H width, F feed-forward width,
B rows; ``row_S`` is the row of each packed position, ``keep_BH`` a row's dropout scales.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

from collections.abc import Callable

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
    """float32, or float64 as it is."""
    return x if x.dtype == torch.float64 else x.float()


def drop(x_SH: Tensor, keep_BH: Tensor | None, row_S: Tensor) -> Tensor:
    """Every position of a row times the row's scales; x itself where there are none."""
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
    """Gradients of x and, dropout applied, of o, from those of the norm and (or None) of the sum."""
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
    """Gradients of x and, dropout applied, of o."""
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
