"""Frozen weights as plain values.

Letters: H width, F feed-forward width.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.engine.formulas import wide
from softprompt.backbones.engine.native import levels
from softprompt.backbones.engine.ops import kernels_for
from softprompt.backbones.engine.quantized import Quantized, QuantizedLinear, turned


@dataclass(frozen=True, eq=False)
class Linear:
    """A frozen affine map: weight [out, in], whole or in few bits, and bias [out] or None."""

    weight: Tensor | Quantized
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The image of x [..., in], [..., out]. Without gradients no row of it depends on how many others there are."""
        if not torch.is_grad_enabled() and unsteady(x):
            return self._steady(x)
        if isinstance(self.weight, Quantized):
            return self.weight.linear(x, self.bias)
        if torch.is_grad_enabled() and _widens(x, self.weight):
            return WideLinear.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)

    def _steady(self, x: Tensor) -> Tensor:
        whole = self.whole
        out = steady_product(x.reshape(-1, x.shape[-1]), whole).view(*x.shape[:-1], whole.shape[0])
        return out if self.bias is None else out.add_(self.bias)

    @property
    def whole(self) -> Tensor:
        """The weight [out, in] as a plain tensor."""
        return _whole(self.weight)

    def exact(self, x: Tensor) -> Tensor:
        """The image [..., O] of x [..., I] computed in float32 at least, whatever the weight is held in."""
        x, weight = wide(x), self.whole
        bias = None if self.bias is None else wide(self.bias)
        if torch.is_grad_enabled() or weight.device.type != "cpu" or weight.dtype == x.dtype:
            return F.linear(x, wide(weight), bias)
        out = _widened_product(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[0])
        return out if bias is None else out.add_(bias)

    def product(self, x: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
        """The batched product of x [batch, M, in] and a view [batch, in, out] of the weight."""
        if not torch.is_grad_enabled() and unsteady(x):
            parts = view(self.whole).transpose(1, 2)
            return torch.stack([steady_product(rows, part) for rows, part in zip(x, parts, strict=True)])
        if isinstance(self.weight, Quantized):
            return self.weight.product(x, view)
        return torch.bmm(x, view(self.weight))

    def branch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [..., I] itself and its image [..., O], where both are used further on: their gradients meet in one product."""
        return _Branch.apply(x, self.weight, self.bias) if torch.is_grad_enabled() else (x, self(x))


_WIDENED_BYTES = 2**22  # of a weight that are held in float32 at once


def _widened_product(x: Tensor, weight: Tensor) -> Tensor:
    """x [M, I] times the weight [O, I] transposed, [M, O] in the dtype of x, a block of outputs at a time.

    A head of 49,152 tokens is 113 MB in float32: for a few rows, filling that much memory takes longer than the product.
    """
    outputs, inputs = weight.shape
    size = max(64, _WIDENED_BYTES // (inputs * x.element_size()))
    out, held = x.new_empty(x.shape[0], outputs), x.new_empty(min(size, outputs), inputs)
    for first in range(0, outputs, size):
        part = weight[first : first + size]
        block = held[: part.shape[0]].copy_(part)
        torch.mm(x, block.T, out=out[:, first : first + size])
    return out


def unsteady(x: Tensor) -> bool:
    """Whether a row of PyTorch's own products with this tensor [..., I] depends on how many rows there are.

    Its kernels on matrix tiles add up in another order for another number of rows, which moves answers in bfloat16; elsewhere
    they do not.
    """
    lib = kernels_for(x)
    return lib is not None and lib.tiles


def steady_product(x: Tensor, weight: Tensor) -> Tensor:
    """x [M, in] times weight [out, in] transposed, [M, out], in which no row depends on how many others there are; for an x that
    is ``unsteady``."""
    outputs, inputs = weight.shape
    if inputs % 32 or weight.dtype != x.dtype:
        return F.linear(x.float(), weight.float()).to(x.dtype)
    if outputs % 32:
        return steady_product(x, F.pad(weight, (0, 0, 0, -outputs % 32)))[:, :outputs].contiguous()
    lib = kernels_for(x)
    assert lib is not None
    x, weight = x.contiguous(), weight.contiguous()
    out = x.new_empty(x.shape[0], outputs)
    lib.call("linear", x, weight, out, x.shape[0], outputs, inputs)
    return out


_WIDE_ROWS = 256
"""From so many rows on a copy of the weight in float32 costs less than it saves."""


@lru_cache(maxsize=1)
def _float32_is_faster() -> bool:
    return levels.float32_is_faster()


def _widens(x: Tensor, weight: Tensor) -> bool:
    """Whether a product with x [..., I] is computed faster in float32. Not for one without gradients: it depends on how many rows
    there are."""
    return (
        x.dtype == weight.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.numel() >= _WIDE_ROWS * x.shape[-1]
        and _float32_is_faster()
    )


def _wide_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


class WideLinear(torch.autograd.Function):
    """A bfloat16 linear layer, computed in float32 and rounded once, as bfloat16 kernels do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The image [..., O] of x [..., I] under weight [O, I] and bias [O] or None."""
        tuned = weight.requires_grad
        ctx.save_for_backward(weight, x if tuned else None)  # a frozen one needs nothing of x
        return _wide_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """From d_out [..., O], the gradients of what ``forward`` took, in its shapes."""
        weight, x = ctx.saved_tensors
        d_out = d_out.float()
        rows = d_out.flatten(0, -2)
        wanted = ctx.needs_input_grad
        return (
            (d_out @ weight.float()).to(weight.dtype) if wanted[0] else None,
            (rows.t() @ x.flatten(0, -2).float()).to(weight.dtype) if wanted[1] else None,
            rows.sum(0).to(weight.dtype) if wanted[2] else None,
        )


class _Branch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | Quantized, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        whole = _whole(weight)
        ctx.weight = weight
        ctx.wide = _widens(x, whole)
        return x.view_as(x), _wide_linear(x, whole, bias) if ctx.wide else F.linear(x, whole, bias)

    @staticmethod
    def backward(ctx: Any, d_same: Tensor, d_image: Tensor) -> tuple[Tensor, None, None]:
        # Both gradients are fresh results of one residual step, and what else read d_same has been computed: in place.
        weight = _whole(ctx.weight)
        if ctx.wide:
            return d_same.float().addmm_(d_image.float(), weight.float()).to(d_same.dtype), None, None
        if d_same.is_contiguous() and d_image.dtype == d_same.dtype:
            return d_same.addmm_(d_image, weight), None, None
        return torch.addmm(d_same, d_image, weight), None, None


def _whole(weight: Tensor | Quantized) -> Tensor:
    return weight.dense() if isinstance(weight, Quantized) else weight


@dataclass(frozen=True, eq=False)
class Norm:
    """A layer norm: weight [H], bias [H] (None for T5's, which has neither bias nor mean)."""

    weight: Tensor
    bias: Tensor | None
    eps: float


@dataclass(frozen=True, eq=False)
class Attention:
    """The projections of one attention part.

    Attributes:
        q: queries alone for cross-attention; queries, keys and values stacked for self-attention.
        kv: keys and values stacked, for cross-attention.
        out: the output projection.
        norm: before it in T5, after it in BERT.
    """

    q: Linear
    kv: Linear | None
    out: Linear
    norm: Norm


@dataclass(frozen=True, eq=False)
class FeedForward:
    """A feed-forward part: ``up`` is [2F, H], gate and value, where gated; the norm as in ``Attention``."""

    up: Linear
    down: Linear
    gated: bool
    activation: str
    norm: Norm


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer; encoders have no cross-attention."""

    own: Attention
    cross: Attention | None
    feed: FeedForward


def fuse(modules: Sequence[Any]) -> Linear:
    """One affine map for several Hugging Face modules that read the same input; their outputs lie side by side.

    The modules' parameters become views of the fused tensors, so that weights are held once and the live Hugging Face
    model goes on working.
    """
    if isinstance(modules[0], QuantizedLinear):
        return _fuse_quantized(modules)
    if len(modules) == 1:
        bias, weight = modules[0].bias, modules[0].weight.detach()
        if turned(modules[0]):
            weight = weight.t().contiguous()
            modules[0].weight.data = weight.t()
        return Linear(weight, None if bias is None else bias.detach())
    weight = torch.cat([m.weight.detach() for m in modules])
    bias = torch.cat([m.bias.detach() for m in modules]) if modules[0].bias is not None else None
    begin = 0
    for module in modules:
        end = begin + module.weight.shape[0]
        module.weight.data = weight[begin:end]
        if bias is not None:
            module.bias.data = bias[begin:end]
        begin = end
    return Linear(weight, bias)


def _fuse_quantized(modules: Sequence[QuantizedLinear]) -> Linear:
    biases = [m.bias.detach() for m in modules if m.bias is not None]
    weight = Quantized.joined([m.stored for m in modules]) if len(modules) > 1 else modules[0].stored
    begin = 0
    for module in modules:
        end = begin + module.stored.shape[0]
        module.stored = weight.rows(begin, end)
        begin = end
    return Linear(weight, torch.cat(biases) if biases else None)


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
