"""The decoder's attention: few queries, so what is cheap is decided by the keys.

Letters: B rows, D decoder positions of the longest row, R packed decoder positions, L positions of the longest source
row, S packed source positions, H width, A heads, K head width.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.engine.formulas import attention, wide
from softprompt.backbones.engine.layers import Linear
from softprompt.backbones.engine.native.library import library
from softprompt.backbones.engine.ops import kernels_for
from softprompt.backbones.engine.packing import Layout

_HIDDEN = -1e9  # a score so low has no weight, and can still be added to


class Memory:
    """What the decoder's layers cross-attend to.

    Attributes:
        memory_SH: the encoder's output, packed by ``layout``. Layers read it one after the other through a chain: each
            leaves a view of it for the next, so that their gradients meet in one place without extra passes.
        unread: whether no layer has read it yet.
    """

    def __init__(self, memory_SH: Tensor, layout: Layout) -> None:
        self.memory_SH = memory_SH
        self.layout = layout
        self.unread = True
        self._packed: PackedSource | None = None

    @cached_property
    def padded_BLH(self) -> Tensor:
        """[B, L, H]; padding is finite and masked."""
        return self.layout.pad(self.memory_SH)

    @cached_property
    def mask(self) -> Tensor | None:
        """Additive [B, 1, 1, L], or None where nothing is hidden."""
        return self.layout.key_mask(self.memory_SH.dtype)

    def packed(self) -> PackedSource | None:
        """The source as the kernels read it; None where they do not apply."""
        lib = kernels_for(self.memory_SH)
        if lib is None or not lib.attention or self.memory_SH.shape[1] % 32:
            return None
        if self._packed is None:
            self._packed = PackedSource.of(self.memory_SH.detach(), self.layout)
        return self._packed

    def padded_keep(self, keep_SA: Tensor) -> Tensor:
        """float32 [B, A, L] of dropout scales [S, A]."""
        return self.layout.pad(keep_SA).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class PackedSource:
    """A source in the kernels' two orders, made once and read by every layer.

    Attributes:
        words: int32, each row's [L, H] as words transposed.
        pairs: int32, each row's [L, H] with pairs of positions interleaved.
        place32: int32 [B], where each row begins, counted in positions of rows filled up to multiples of 32.
        filled: positions of all rows so filled up.
        d_source: float32 [filled, H] while gradients are being added up, by layer from last to first.
    """

    layout: Layout
    words: Tensor
    pairs: Tensor
    place32: Tensor
    filled: int
    d_source: list[Tensor]

    @classmethod
    def of(cls, memory_SH: Tensor, layout: Layout) -> PackedSource:
        """Pack a source [S, H], bfloat16."""
        memory_SH = memory_SH.contiguous()
        filled_B = (layout.length_B + 31) // 32 * 32
        place32 = (filled_B.cumsum(0) - filled_B).to(torch.int32)
        filled, width = int(filled_B.sum()), memory_SH.shape[1]
        words = torch.empty(filled * width // 2, dtype=torch.int32)
        pairs = torch.empty_like(words)
        lib = kernels_for(memory_SH)
        assert lib is not None
        lib.call("pack_source", memory_SH, *layout.spans32, place32, words, pairs, layout.rows, width)
        return cls(layout, words, pairs, place32, filled, [])

    def unfill(self, x: Tensor) -> Tensor:
        """[filled, ...] -> [S, ...]."""
        return x[self.place32.to(torch.int64)[self.layout.row_S] + self.layout.position_S]


class _AttendSource(torch.autograd.Function):
    """Queries over a packed source; the source's gradient is handed back by the first layer alone."""

    @staticmethod
    def forward(
        ctx: Any,
        queries_BQH: Tensor,
        memory_SH: Tensor,
        source: PackedSource,
        keep_SA: Tensor | None,
        heads: int,
        scale: float,
        first: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        lib = library()
        assert lib is not None
        rows, count, width = queries_BQH.shape
        weights = queries_BQH.new_empty(source.filled * ((count + 31) // 32 * 32))
        mixed, share = torch.empty_like(queries_BQH), torch.empty(rows, count, dtype=torch.float32)
        spans = source.layout.spans32
        lib.call(
            "attend_source", queries_BQH, source.words, source.pairs, *spans, source.place32, keep_SA, weights, mixed, share,
            rows, count, width, heads, scale,
        )  # fmt: skip
        ctx.save_for_backward(queries_BQH, keep_SA, weights)
        ctx.source, ctx.heads, ctx.scale, ctx.first = source, heads, scale, first
        ctx.set_materialize_grads(False)
        return mixed, share, memory_SH.view_as(memory_SH)

    @staticmethod
    def backward(ctx: Any, d_mixed: Tensor, d_share: Tensor | None, _chain: Tensor | None) -> tuple[Tensor | None, ...]:
        lib = library()
        assert lib is not None
        queries, keep, weights = ctx.saved_tensors
        source: PackedSource = ctx.source
        rows, count, width = queries.shape
        if not source.d_source:
            source.d_source.append(torch.zeros(source.filled, width, dtype=torch.float32))
        d_queries = torch.empty_like(queries)
        spans, place = source.layout.spans32, source.place32
        d_mixed, d_share = d_mixed.contiguous(), None if d_share is None else d_share.contiguous()
        lib.call(
            "attend_source_backward", queries, source.words, source.pairs, *spans, place, keep, weights, d_mixed, d_share,
            d_queries, source.d_source[0], rows, count, width, ctx.heads, ctx.scale,
        )  # fmt: skip
        d_memory = source.unfill(source.d_source.pop()).to(queries.dtype) if ctx.first else None
        return d_queries, d_memory, None, None, None, None, None


def hide_later(reach_R: Tensor) -> Tensor:
    """Biases by distance (key - query), [..., 2 D - 1] and the smallest first, that hide the keys after a query."""
    return reach_R.masked_fill(torch.arange(reach_R.shape[-1], device=reach_R.device) > reach_R.shape[-1] // 2, _HIDDEN)


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
        source = memory.packed()
        if source is not None:
            return layout.unpad(_attend_packed(layout.pad(q_RD), kv, memory, source, keep_SA, heads, scale))
        keep_BAL = None if keep_SA is None else memory.padded_keep(keep_SA)
        q_BDX = layout.pad(q_RD)
        return layout.unpad(attend_absorbed(q_BDX, kv, memory.padded_BLH, memory.mask, keep_BAL, heads, scale))
    k, v = kv(memory.memory_SH).view(-1, 2, heads, width).unbind(1)
    if keep_SA is not None:
        v = (v * keep_SA[:, :, None]).to(v.dtype)
    q = layout.pad(q_RD.view(-1, heads, width)).transpose(1, 2)
    k, v = (memory.layout.pad(t).transpose(1, 2) for t in (k, v))
    out = attention(q, k, v, memory.mask, scale)
    return layout.unpad(out.transpose(1, 2).flatten(2))


def _attend_packed(
    q_BDX: Tensor, kv: Linear, memory: Memory, source: PackedSource, keep_SA: Tensor | None, heads: int, scale: float
) -> Tensor:
    """``attend_absorbed`` by the kernels, over exact lengths."""
    rows, depth, _ = q_BDX.shape
    first = memory.unread
    memory.unread = False
    mixed, share, memory.memory_SH = _AttendSource.apply(
        _carry(q_BDX, kv, heads), memory.memory_SH, source, keep_SA, heads, scale, first
    )
    return _values(mixed, share if keep_SA is not None else None, kv, rows, depth, heads)


def _carry(q_BDX: Tensor, kv: Linear, heads: int) -> Tensor:
    """Queries through the key projection: [B, D * A, H]."""
    rows, depth, _ = q_BDX.shape
    hidden = kv.weight.shape[1]
    q_ARK = q_BDX.reshape(rows * depth, heads, q_BDX.shape[2] // heads).transpose(0, 1)
    carried = (
        kv.product(q_ARK, lambda w: w.view(2, heads, -1, hidden)[0])
        .view(heads, rows, depth, hidden)
        .permute(1, 2, 0, 3)
    )
    return carried.reshape(rows, depth * heads, hidden)


def _values(mixed_BQH: Tensor, share_BQ: Tensor | None, kv: Linear, rows: int, depth: int, heads: int) -> Tensor:
    """Mixed source positions through the value projection: [B, D, A * K].

    Weights sum to one but for dropout (``share_BQ``), and the value bias is weighted as the values are.
    """
    hidden = kv.weight.shape[1]
    mixed = mixed_BQH.view(rows * depth, heads, hidden).transpose(0, 1)
    out = kv.product(mixed, lambda w: w.view(2, heads, -1, hidden)[1].transpose(1, 2)).transpose(0, 1)
    if kv.bias is not None:
        bias = kv.bias.view(2, heads, -1)[1]
        out = out + (bias if share_BQ is None else (share_BQ.view(rows * depth, heads, 1) * bias).to(out.dtype))
    return out.reshape(rows, depth, kv.weight.shape[0] // 2)


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
    carried = _carry(q_BDX, kv, heads)
    if not torch.is_grad_enabled():
        source_BLH = _steady(source_BLH)
    scores = torch.bmm(carried.to(source_BLH.dtype), source_BLH.transpose(1, 2))
    scores = wide(scores.view(rows, depth, heads, source_BLH.shape[1])) * scale
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1)
    if keep_BAL is not None:
        weights = weights * keep_BAL[:, None]
    weights_BQL = weights.to(source_BLH.dtype).view(rows, depth * heads, source_BLH.shape[1])
    share_BQ = None if keep_BAL is None else weights.sum(-1).view(rows, depth * heads)
    return _values(torch.bmm(weights_BQL, source_BLH).to(q_BDX.dtype), share_BQ, kv, rows, depth, heads)


def attend_step(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one query position per row, [B, A, 1, K] with keys [B, A, T, K]: [B, A * K]."""
    mask = None if mask is None else mask.to(_steady(q).dtype)
    return attention(_steady(q), _steady(k), _steady(v), mask, scale).to(q.dtype).flatten(1)


def _steady(x: Tensor) -> Tensor:
    """float32 where bfloat16 products of padded rows would depend, in their last bits, on how long the other rows are."""
    return x if kernels_for(x) is None else x.float()


@dataclass(eq=False)
class DecodeState:
    """Greedy decoding: by layer the decoder's own keys and values [B, A, t, K], and the source.

    Attributes:
        own_kv: None before the first step.
        source_BLH: the encoder's output, padded.
        mask: additive [B, 1, 1, L], or None.
        empty_B: int64 [B], how many of a row's first own positions hold nothing (rows that began later stand with their
            newest position beside the others'); None for none.
    """

    own_kv: list[tuple[Tensor, Tensor] | None]
    source_BLH: Tensor
    mask: Tensor | None
    empty_B: Tensor | None = None

    @property
    def past(self) -> int:
        """t, the own positions that are held."""
        return 0 if self.own_kv[0] is None else self.own_kv[0][0].shape[2]

    def own_mask(self, dtype: torch.dtype) -> Tensor | None:
        """Additive [B, 1, 1, t + 1] for the next position; None where nothing is hidden."""
        if self.empty_B is None:
            return None
        hidden = torch.arange(self.past + 1, device=self.empty_B.device) < self.empty_B[:, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return mask.masked_fill(hidden, torch.finfo(dtype).min / 2)[:, None, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [B, A, T + 1, K] of a layer after one more position [B, A, 1, K]."""
        past = self.own_kv[layer]
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        self.own_kv[layer] = (k, v)
        return k, v

    def keep(self, rows: Tensor) -> DecodeState:
        """The state of some rows [B'] alone."""
        return DecodeState(
            [None if kv is None else (kv[0][rows], kv[1][rows]) for kv in self.own_kv],
            self.source_BLH[rows],
            None if self.mask is None else self.mask[rows],
            None if self.empty_B is None else self.empty_B[rows],
        )

    def joined(self, other: DecodeState) -> DecodeState:
        """The rows of both, all of which have begun."""
        past, longest = max(self.past, other.past), max(self.source_BLH.shape[1], other.source_BLH.shape[1])
        both = (self, other)
        own_kv: list[tuple[Tensor, Tensor] | None] = []
        for layer in range(len(self.own_kv)):
            pairs = [state.own_kv[layer] for state in both]
            assert pairs[0] is not None
            assert pairs[1] is not None
            k, v = (torch.cat([F.pad(p[i], (0, 0, past - p[i].shape[2], 0)) for p in pairs if p]) for i in (0, 1))
            own_kv.append((k, v))
        source = torch.cat([F.pad(s.source_BLH, (0, 0, 0, longest - s.source_BLH.shape[1])) for s in both])
        mask = torch.cat([s._filled_mask(longest) for s in both])
        empty = torch.cat([s._empty() + (past - s.past) for s in both])
        return DecodeState(own_kv, source, mask, empty)

    def cut(self, longest: int) -> DecodeState:
        """The same without source positions from ``longest`` on and without own ones that are empty in every row."""
        front = 0 if self.empty_B is None else int(self.empty_B.min())
        own = [None if kv is None else (kv[0][:, :, front:], kv[1][:, :, front:]) for kv in self.own_kv]
        mask = None if self.mask is None else self.mask[..., :longest]
        empty = None if self.empty_B is None else self.empty_B - front
        return DecodeState(own, self.source_BLH[:, :longest], mask, empty)

    def _empty(self) -> Tensor:
        rows, device = self.source_BLH.shape[0], self.source_BLH.device
        return torch.zeros(rows, dtype=torch.int64, device=device) if self.empty_B is None else self.empty_B

    def _filled_mask(self, longest: int) -> Tensor:
        source = self.source_BLH
        dtype = source.dtype if self.mask is None else self.mask.dtype
        mask = self.mask
        if mask is None:
            mask = torch.zeros(source.shape[0], 1, 1, source.shape[1], dtype=dtype, device=source.device)
        return F.pad(mask, (0, longest - mask.shape[-1]), value=torch.finfo(dtype).min / 2)
