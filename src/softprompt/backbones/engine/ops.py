"""The differentiable operations between the matrix products, each one pass forward and one pass backward.

Weights are frozen: only activations receive gradients. On a CPU in bfloat16 the compiled kernels of ``native`` do the
work; everywhere else the same formulas run as PyTorch operations in float32 (or the activations' own wider dtype), on a
CUDA device compiled, so that each is one pass over memory too.

Letters: B rows, S packed positions, L positions of a padded row, H width, F feed-forward width, A heads, K head width.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.engine.device import attend_packed, formula, packed_attention
from softprompt.backbones.engine.flex import attend_blocks, flexes, rows_mask
from softprompt.backbones.engine.formulas import (
    activated,
    attention,
    norm_backward,
    norm_forward,
    rms_backward,
    rms_forward,
    wide,
)
from softprompt.backbones.engine.native.library import KINDS, Kernels, library
from softprompt.backbones.engine.packing import Layout


def kernels_for(x: Tensor) -> Kernels | None:
    """The compiled kernels where they apply to this tensor, whatever its shape."""
    return library() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else None


class _AddRMS(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        o: Tensor | None,
        keep: Tensor | None,
        layout: Layout,
        weight: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.layout, ctx.added = layout, o is not None
        lib = kernels_for(x) if weight.dtype == x.dtype else None
        if lib is None:
            total, y, rstd = formula(rms_forward, x)(x, o, keep, layout.row_S, weight, eps)
            total = x if o is None else total
        else:
            x = x.contiguous()
            total = x if o is None else torch.empty_like(x)
            y, rstd = torch.empty_like(x), torch.empty(x.shape[0], dtype=torch.float32)
            o = None if o is None else o.contiguous()
            lib.call("add_rms", x, o, keep, layout.row32_S, weight, total, y, rstd, *x.shape, eps)
        ctx.save_for_backward(total, rstd, keep, weight)
        ctx.set_materialize_grads(False)
        return x.view_as(x) if o is None else total, y

    @staticmethod
    def backward(ctx: Any, d_total: Tensor | None, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        total, rstd, keep, weight = ctx.saved_tensors
        if dy is None:
            dy = torch.zeros_like(total)
        lib = kernels_for(dy) if weight.dtype == dy.dtype else None
        if lib is None:
            used = keep if ctx.added else None
            dx, do = formula(rms_backward, dy)(dy, d_total, total, rstd, weight, used, ctx.layout.row_S)
            return dx, (dx if used is None else do) if ctx.added else None, None, None, None, None
        dy, d_total = dy.contiguous(), None if d_total is None else d_total.contiguous()
        dx = torch.empty_like(dy)
        do = torch.empty_like(dy) if ctx.added and keep is not None else None
        row = ctx.layout.row32_S
        lib.call("add_rms_backward", dy, d_total, total, rstd, weight, keep, row, dx, do, *dy.shape)
        return dx, (dx if do is None else do) if ctx.added else None, None, None, None, None


class _AddLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, o: Tensor, keep: Tensor | None, layout: Layout, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        ctx.layout = layout
        lib = kernels_for(x)
        if lib is None:
            total, y, mean, rstd = formula(norm_forward, x)(x, o, keep, layout.row_S, weight, bias, eps)
        else:
            x, o = x.contiguous(), o.contiguous()
            total, y = torch.empty_like(x), torch.empty_like(x)
            mean, rstd = torch.empty(x.shape[0], dtype=torch.float32), torch.empty(x.shape[0], dtype=torch.float32)
            row = layout.row32_S
            lib.call("add_ln", x, o, keep, row, weight, bias, total, y, mean, rstd, *x.shape, eps)
        ctx.save_for_backward(total, mean, rstd, keep, weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        total, mean, rstd, keep, weight = ctx.saved_tensors
        lib = kernels_for(dy)
        if lib is None:
            dx, do = formula(norm_backward, dy)(dy, total, mean, rstd, weight, keep, ctx.layout.row_S)
            return dx, dx if keep is None else do, None, None, None, None, None
        dy = dy.contiguous()
        dx = torch.empty_like(dy)
        do = None if keep is None else torch.empty_like(dy)
        row = ctx.layout.row32_S
        lib.call("add_ln_backward", dy, total, mean, rstd, weight, keep, row, dx, do, *dy.shape)
        return dx, dx if do is None else do, None, None, None, None, None


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, up: Tensor, keep: Tensor | None, layout: Layout, kind: int, gated: bool) -> Tensor:
        lib = library()
        assert lib is not None
        up = up.contiguous()
        ctx.save_for_backward(up, keep)
        ctx.layout, ctx.kind, ctx.gated = layout, kind, gated
        width = up.shape[1] // (2 if gated else 1)
        out = up.new_empty(up.shape[0], width)
        lib.call("activate", up, keep, layout.row32_S, out, up.shape[0], width, kind, int(gated))
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        up, keep = ctx.saved_tensors
        lib = library()
        assert lib is not None
        dup = torch.empty_like(up)
        dout = dout.contiguous()
        shape = (*dout.shape, ctx.kind, int(ctx.gated))
        lib.call("activate_backward", up, keep, ctx.layout.row32_S, dout, dup, *shape)
        return dup, None, None, None, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, keep: Tensor | None, reach_AR: Tensor | None, layout: Layout, heads: int, scale: float
    ) -> Tensor:
        lib = library()
        assert lib is not None
        qkv = qkv.contiguous()
        total, width = qkv.shape[0], qkv.shape[1] // 3
        out = qkv.new_empty(total, width)
        lse = torch.empty(total, heads, dtype=torch.float32)
        reach = 0 if reach_AR is None else (reach_AR.shape[1] + 1) // 2
        ctx.save_for_backward(qkv, keep, reach_AR, out, lse)
        ctx.layout, ctx.heads, ctx.scale, ctx.reach = layout, heads, scale, reach
        start, length = layout.spans32
        shape = (layout.rows, heads, width // heads, scale)
        lib.call("attend", qkv, keep, reach_AR, reach, start, length, out, lse, *shape)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        qkv, keep, reach_AR, out, lse = ctx.saved_tensors
        lib = library()
        assert lib is not None
        dqkv = torch.empty_like(qkv)
        start, length = ctx.layout.spans32
        shape = (ctx.layout.rows, ctx.heads, qkv.shape[1] // 3 // ctx.heads, ctx.scale)
        dout = dout.contiguous()
        lib.call("attend_backward", qkv, keep, reach_AR, ctx.reach, start, length, out, dout, lse, dqkv, *shape)
        return dqkv, None, None, None, None, None


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_RV: Tensor, target_R: Tensor) -> tuple[Tensor, Tensor]:
        lib = library()
        assert lib is not None
        logits_RV = logits_RV.contiguous()
        log_z = torch.empty(logits_RV.shape[0], dtype=torch.float32)
        chosen = torch.empty_like(log_z)
        lib.call("token_losses", logits_RV, target_R, log_z, chosen, *logits_RV.shape)
        ctx.save_for_backward(logits_RV, target_R, log_z)
        return log_z, chosen

    @staticmethod
    def backward(ctx: Any, d_log_z: Tensor, d_chosen: Tensor) -> tuple[Tensor, None]:
        logits_RV, target_R, log_z = ctx.saved_tensors
        lib = library()
        assert lib is not None
        d_logits = torch.empty_like(logits_RV)
        gradients = (d_log_z.contiguous(), d_chosen.contiguous())
        lib.call("token_losses_backward", logits_RV, target_R, log_z, *gradients, d_logits, *logits_RV.shape)
        return d_logits, None


def log_partition(logits_RV: Tensor, target_R: Tensor) -> tuple[Tensor, Tensor]:
    """log Z and the target's logit of each token, float32 [R] each (float64 for float64 logits)."""
    if kernels_for(logits_RV) is not None:
        return _TokenLosses.apply(logits_RV, target_R.contiguous())
    logits_RV = wide(logits_RV)
    return torch.logsumexp(logits_RV, dim=-1), logits_RV.gather(1, target_R[:, None])[:, 0]


def add_rms(
    x_SH: Tensor, o_SH: Tensor | None, keep_BH: Tensor | None, layout: Layout, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """T5's residual step: the sum x + dropout(o), and its RMS norm.

    Args:
        x_SH: the residual stream, packed by ``layout``.
        o_SH: what is added to it; None for nothing.
        keep_BH: float32 dropout scales by row and channel; None for none.
        weight: [H].

    Returns:
        sum [S, H] and norm [S, H].
    """
    return _AddRMS.apply(x_SH, o_SH, keep_BH, layout, weight, eps)


def add_layer_norm(
    x_SH: Tensor, o_SH: Tensor, keep_BH: Tensor | None, layout: Layout, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """BERT's residual step: LayerNorm(x + dropout(o)), [S, H]."""
    return _AddLayerNorm.apply(x_SH, o_SH, keep_BH, layout, weight, bias, eps)


def activate(up_SF: Tensor, keep_BF: Tensor | None, layout: Layout, name: str, *, gated: bool) -> Tensor:
    """dropout(act(gate) * value) of [S, 2F] where gated, else dropout(act(up)) of [S, F]: [S, F]."""
    if kernels_for(up_SF) is not None:
        return _Activate.apply(up_SF, keep_BF, layout, KINDS[name], gated)
    return formula(activated, up_SF)(up_SF, keep_BF, layout.row_S, name, gated)


def attend_self(
    qkv: Tensor, keep_SA: Tensor | None, reach_AR: Tensor | None, layout: Layout, heads: int, scale: float
) -> Tensor:
    """Bidirectional attention within rows.

    Args:
        qkv: [S, 3 * A * K], queries, keys and values side by side.
        keep_SA: float32 dropout scales of attention weights by key position and head; None for none.
        reach_AR: float32 [A, 2R - 1], the bias of key k for query q at index k - q + R - 1, R at least the longest
            row; None for no bias.
        scale: factor on the scores before the bias.

    Returns:
        [S, A * K].
    """
    lib = kernels_for(qkv)
    if lib is not None and lib.attention:
        return _Attend.apply(qkv, keep_SA, reach_AR, layout, heads, scale)
    q, k, v = qkv.view(layout.total, 3, heads, qkv.shape[1] // 3 // heads).unbind(1)
    if keep_SA is not None:
        v = (v * keep_SA[:, :, None]).to(v.dtype)
    if reach_AR is None and scale == q.shape[2] ** -0.5 and packed_attention(qkv.device, qkv.dtype, q.shape[2]):
        bounds, longest = layout.bounds32, layout.longest
        return attend_packed(q, k, v, bounds, longest).flatten(1)
    if flexes(qkv.device, qkv.dtype, q.shape[2], heads, heads):
        return attend_blocks(q, k, v, rows_mask(layout), scale, reach_AR=reach_AR).flatten(1)
    mask = _self_mask(layout, reach_AR, qkv.dtype)
    q, k, v = (layout.pad(t).transpose(1, 2) for t in (q, k, v))
    out = attention(q, k, v, mask, scale)
    return layout.unpad(out.transpose(1, 2).flatten(2))


def _self_mask(layout: Layout, reach_AR: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Bias and hidden padding, additive [B or 1, A or 1, L, L]; made once for all layers that share bias and layout."""
    kept: tuple[Tensor | None, torch.dtype, Tensor | None] | None = layout.__dict__.get("_self_mask")
    if kept is not None and kept[0] is reach_AR and kept[1] == dtype:
        return kept[2]
    mask = layout.key_mask(dtype)
    if reach_AR is not None:
        place = torch.arange(layout.longest, device=reach_AR.device)
        index = place[None, :] - place[:, None] + (reach_AR.shape[1] - 1) // 2
        bias = reach_AR[:, index].to(dtype)[None]
        mask = bias if mask is None else bias + mask
    layout.__dict__["_self_mask"] = (reach_AR, dtype, mask)
    return mask
