"""The decoder's attention: few queries, so what is cheap is decided by the keys.

Letters: B rows, D decoder positions of the longest row, R packed decoder positions, L positions of the longest source
row, S packed source positions, H width, A heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.layers import Linear
from softprompt.backbones.packing import Layout


@dataclass(frozen=True, eq=False)
class Memory:
    """What the decoder cross-attends to.

    Attributes:
        memory_SH: the encoder's output, packed by ``layout``.
    """

    memory_SH: Tensor
    layout: Layout

    @cached_property
    def padded_BLH(self) -> Tensor:
        """[B, L, H]; padding is finite and masked."""
        return self.layout.pad(self.memory_SH)

    @cached_property
    def mask(self) -> Tensor | None:
        """Additive [B, 1, 1, L], or None where nothing is hidden."""
        return self.layout.key_mask(self.memory_SH.dtype)

    def padded_keep(self, keep_SA: Tensor) -> Tensor:
        """float32 [B, A, L] of dropout scales [S, A]."""
        return self.layout.pad(keep_SA).transpose(1, 2)


def attend_causal(
    qkv: Tensor, keep_RA: Tensor | None, bias_ADD: Tensor | None, layout: Layout, heads: int, scale: float
) -> Tensor:
    """Causal attention within decoder rows, [R, A * K].

    Args:
        qkv: [R, 3 * A * K].
        keep_RA: float32 dropout scales of attention weights by key position and head; None for none.
        bias_ADD: added to the scores; None for none.
    """
    q, k, v = qkv.view(layout.total, 3, heads, -1).unbind(1)
    if keep_RA is not None:
        v = (v * keep_RA[:, :, None]).to(v.dtype)
    q, k, v = (layout.pad(t).transpose(1, 2) for t in (q, k, v))
    if bias_ADD is None:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    else:
        depth = layout.longest
        later = torch.ones(depth, depth, dtype=torch.bool, device=qkv.device).triu(1)
        mask = bias_ADD.to(qkv.dtype).masked_fill(later, torch.finfo(qkv.dtype).min / 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None], scale=scale)
    return layout.unpad(out.transpose(1, 2).flatten(2))


def attend_memory(
    q_RD: Tensor, kv: Linear, memory: Memory, keep_SA: Tensor | None, layout: Layout, heads: int, scale: float
) -> Tensor:
    """Cross-attention, [R, A * K].

    With fewer decoder positions than a head is wide it is cheaper to carry the queries through the key projection
    than every source position: q . (W m) = (W^T q) . m. The key bias adds the same to all scores of a query and drops
    out of the softmax.

    Args:
        q_RD: queries [R, A * K], packed by ``layout``.
        kv: the key and value projections, [2 * A * K, H].
        keep_SA: float32 dropout scales of attention weights by source position and head; None for none.
    """
    width = q_RD.shape[1] // heads
    if 2 * layout.longest <= width:
        keep_BAL = None if keep_SA is None else memory.padded_keep(keep_SA)
        q_BDX = layout.pad(q_RD)
        return layout.unpad(attend_absorbed(q_BDX, kv, memory.padded_BLH, memory.mask, keep_BAL, heads, scale))
    k, v = kv(memory.memory_SH).view(-1, 2, heads, width).unbind(1)
    if keep_SA is not None:
        v = (v * keep_SA[:, :, None]).to(v.dtype)
    q = layout.pad(q_RD.view(-1, heads, width)).transpose(1, 2)
    k, v = (memory.layout.pad(t).transpose(1, 2) for t in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=memory.mask, scale=scale)
    return layout.unpad(out.transpose(1, 2).flatten(2))


def attend_absorbed(
    q_BDX: Tensor,
    kv: Linear,
    source_BLH: Tensor,
    mask: Tensor | None,
    keep_BAL: Tensor | None,
    heads: int,
    scale: float,
) -> Tensor:
    """Cross-attention with queries carried through the key projection, [B, D, A * K].

    Args:
        q_BDX: [B, D, A * K], padded.
        source_BLH: what is attended to, padded.
        mask: additive [B, 1, 1, L], or None.
        keep_BAL: float32 dropout scales; None for none.
    """
    rows, depth, _ = q_BDX.shape
    hidden = kv.weight.shape[1]
    width = q_BDX.shape[2] // heads
    key_AKH, value_AKH = kv.weight.view(2, heads, width, hidden).unbind(0)
    q_ARK = q_BDX.reshape(rows * depth, heads, width).transpose(0, 1)
    carried = torch.bmm(q_ARK, key_AKH).view(heads, rows, depth, hidden).permute(1, 2, 0, 3)
    carried = carried.reshape(rows, depth * heads, hidden)
    scores = torch.bmm(carried, source_BLH.transpose(1, 2)).view(rows, depth, heads, -1)
    scores = (scores if scores.dtype == torch.float64 else scores.float()) * scale
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1)
    if keep_BAL is not None:
        weights = weights * keep_BAL[:, None]
    weights_BQL = weights.to(q_BDX.dtype).view(rows, depth * heads, -1)
    mixed = torch.bmm(weights_BQL, source_BLH).view(rows * depth, heads, hidden).transpose(0, 1)
    out = torch.bmm(mixed, value_AKH.transpose(1, 2)).transpose(0, 1)
    if kv.bias is not None:
        # Weights sum to one but for dropout, and the value bias is weighted as the values are.
        share = weights.sum(-1).to(q_BDX.dtype).view(rows * depth, heads, 1)
        out = out + share * kv.bias.view(2, heads, width)[1]
    return out.reshape(rows, depth, heads * width)


def attend_step(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one query position per row, [B, A, 1, K] with keys [B, A, T, K]: [B, A * K]."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).flatten(1)


@dataclass(eq=False)
class DecodeState:
    """Greedy decoding: by layer the decoder's own keys and values [B, A, t, K], and the source.

    Attributes:
        own_kv: None before the first step.
        source_BLH: the encoder's output, padded.
        mask: additive [B, 1, 1, L], or None.
    """

    own_kv: list[tuple[Tensor, Tensor] | None]
    source_BLH: Tensor
    mask: Tensor | None

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer after one more position."""
        past = self.own_kv[layer]
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        self.own_kv[layer] = (k, v)
        return k, v

    def keep(self, rows: Tensor) -> DecodeState:
        """The state of some rows alone."""
        return DecodeState(
            [None if kv is None else (kv[0][rows], kv[1][rows]) for kv in self.own_kv],
            self.source_BLH[rows],
            None if self.mask is None else self.mask[rows],
        )
