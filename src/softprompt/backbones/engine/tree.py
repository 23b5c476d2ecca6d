"""Causal attention over a tree of texts: prompts, the rows that share them, and candidate answers behind a row.

What a position computes depends on nothing behind it. So a prompt that many rows share passes the layers once, and so
does a row that many answers stand behind: each segment attends to its ancestors' keys and values and to its own past.
Segments lie end to end, parents before their children; nothing is computed for padding.

Letters: S packed positions, A query heads, G key/value heads, K head width, Q queries and L keys of a padded segment,
M segments of one depth.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.engine.flex import attend_blocks, block_mask, flexes, number_on
from softprompt.backbones.engine.formulas import attention, wide
from softprompt.backbones.engine.native.library import library
from softprompt.backbones.engine.ops import kernels_for
from softprompt.backbones.engine.packing import Layout
from softprompt.batch import on_device


@dataclass(frozen=True, eq=False)
class TreeLevel:
    """The segments of one depth, padded: where their queries and keys are.

    Attributes:
        query_Q: int64 [M * Q], packed places of the queries; padding repeats a segment's last position.
        key_L: int64 [M * L], packed places of the keys.
        behind: int64 [M, 1, Q, L], how far a key lies before a query in its whole text; negative after it and in padding.
        shape: (M, Q, L).
        place_S: int64, where each packed position of these segments lies among the padded queries.
        order_S: int64, their packed positions, in order.
    """

    query_Q: Tensor
    key_L: Tensor
    behind: Tensor
    shape: tuple[int, int, int]
    place_S: Tensor
    order_S: Tensor


@dataclass(frozen=True, eq=False)
class Tree:
    """Segments laid end to end.

    Attributes:
        lengths: positions of each segment, ints >= 0.
        parents: the segment that each stands behind, which comes earlier; -1 for none.
        device: of the index tensors.
        first: segments before this one are only attended to: their keys and values are given, nothing is computed.
    """

    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    device: torch.device
    first: int = 0

    @cached_property
    def layout(self) -> Layout:
        """Where the segments lie."""
        return Layout(self.lengths, self.device)

    @cached_property
    def given(self) -> int:
        """Positions before the first computed one."""
        return sum(self.lengths[: self.first])

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The place, within its whole text, at which each segment begins."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent < 0 else found[parent] + self.lengths[parent])
        return tuple(found)

    @cached_property
    def longest(self) -> int:
        """Positions of the longest whole text."""
        return max((o + n for o, n in zip(self.offsets, self.lengths, strict=True)), default=0)

    @cached_property
    def position_S(self) -> Tensor:
        """int64 [S], the place of each packed position within its whole text."""
        offset = on_device(torch.tensor(self.offsets, dtype=torch.int64), self.device)
        return offset[self.layout.row_S] + self.layout.position_S

    def chain(self, segment: int) -> list[int]:
        """A segment's ancestors from the first on, and itself."""
        found = [segment]
        while self.parents[found[0]] >= 0:
            found.insert(0, self.parents[found[0]])
        return found

    @cached_property
    def levels(self) -> tuple[TreeLevel, ...]:
        """The computed segments by depth."""
        depths: dict[int, list[int]] = {}
        for s in range(self.first, len(self.lengths)):
            if self.lengths[s]:
                depths.setdefault(len(self.chain(s)), []).append(s)
        return tuple(self._level(members) for members in depths.values())

    def whole_texts(self, members: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Packed places of the whole texts (ancestors included) of some segments: int64 [M, L], padded by the last one of
        each, and their lengths, int64 [M]."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        texts = [np.concatenate([np.arange(starts[c], starts[c + 1]) for c in self.chain(s)]) for s in members]
        most = max(map(len, texts), default=0)
        padded = [np.pad(text, (0, most - len(text)), mode="edge" if len(text) else "constant") for text in texts]
        return np.stack(padded).astype(np.int64), np.asarray([len(text) for text in texts])

    def _level(self, members: Sequence[int]) -> TreeLevel:
        key, last = self.whole_texts(members)
        length = np.asarray([self.lengths[s] for s in members])
        most_q, most_k = int(length.max()), key.shape[1]
        # Keys stand at their places in the whole text, queries at the last ones.
        place = np.minimum(np.arange(most_q)[None, :], length[:, None] - 1) + (last - length)[:, None]
        query = np.take_along_axis(key, place, 1)
        behind = place[:, :, None] - np.arange(most_k)[None, None, :]
        packed = np.arange(most_q)[None, :] < length[:, None]

        def moved(x: np.ndarray) -> Tensor:
            return on_device(torch.from_numpy(np.ascontiguousarray(x)), self.device)

        return TreeLevel(
            query_Q=moved(query.ravel()),
            key_L=moved(key.ravel()),
            behind=moved(behind)[:, None],
            shape=(len(members), most_q, most_k),
            place_S=moved(np.flatnonzero(packed.ravel())),
            order_S=moved(query[packed]),
        )

    @cached_property
    def restore_S(self) -> Tensor:
        """int64, the place of each computed position among those of all levels, one level after the other."""
        return torch.cat([level.order_S for level in self.levels]).argsort()

    @cached_property
    def spans32(self) -> tuple[Tensor, Tensor, Tensor]:
        """int32 [segments] each: where segments begin, how long they are, and their parents, as the kernels read them."""
        start, length = self.layout.spans32
        return start, length, torch.tensor(self.parents, dtype=torch.int32)

    @cached_property
    def shared32(self) -> tuple[Tensor, int]:
        """Where the positions of each segment that others stand behind lie among all such positions, int32 [segments] (-1: it has no
        children), and how many there are."""
        found, count, behind = [], 0, set(self.parents)
        for s, length in enumerate(self.lengths):
            found.append(count if s in behind else -1)
            count += length if s in behind else 0
        return torch.tensor(found, dtype=torch.int32), count


def tree_mask(tree: Tree, window: int | None) -> Any:
    """Every computed position sees its past and its ancestors, ``window`` positions at most; made once a tree and window."""
    kept: dict[int | None, Any] = tree.__dict__.setdefault("_masks", {})
    if window not in kept:
        count, given = len(tree.lengths), tree.given
        above = np.zeros((count, count), dtype=bool)
        starts = np.concatenate([[0], np.cumsum(tree.lengths)])
        spans = []
        for s in range(tree.first, count):
            for t in tree.chain(s):
                above[s, t] = True
                places = (starts[s] - given, starts[s + 1] - given, starts[t], starts[t + 1])
                spans.append(tuple(int(place) for place in places))
        above_MM = on_device(torch.from_numpy(above), tree.device)
        segment_S, place_S = tree.layout.row32_S, tree.position_S.to(torch.int32)
        reach = None if window is None else number_on(window, tree.device)
        segment_Q, place_Q = segment_S[given:], place_S[given:]

        def sees(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
            behind = place_Q[query] - place_S[key]
            found = above_MM[segment_Q[query], segment_S[key]] & (behind >= 0)
            return found if reach is None else found & (behind < reach)

        kept[window] = block_mask(spans, sees, tree.layout.total - given, tree.layout.total, tree.device)  # type: ignore[arg-type]
    return kept[window]


@dataclass(frozen=True)
class Heads:
    """The form of a layer's attention.

    Attributes:
        queries: A.
        groups: G; A / G query heads share a key/value head.
        width: K.
        scale: factor on the scores.
        window: a position attends to this many last ones, itself included; None for all.
        softcap: scores become softcap * tanh(score / softcap); None for plain ones.
    """

    queries: int
    groups: int
    width: int
    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotary positions: float32 [S, K / 2] cosines and sines by packed position."""

    cos: Tensor
    sin: Tensor

    def turned(self, x_SNK: Tensor) -> Tensor:
        """Heads [S, N, K] rotated by their positions (the two halves of a head are a pair), computed in float32 at least."""
        low, high = wide(x_SNK).chunk(2, dim=-1)
        cos, sin = self.cos[:, None].to(low.dtype), self.sin[:, None].to(low.dtype)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x_SNK.dtype)


class _AttendTree(torch.autograd.Function):
    """The kernels' form. Queries and keys are rotated once and kept so."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, tree: Tree, rotation: Rotation, heads: Heads, given: Tensor | None) -> Tensor:
        lib = library()
        assert lib is not None
        qkv = qkv.contiguous()
        computed, turned = qkv.shape[0], qkv.new_empty(tree.given + qkv.shape[0], qkv.shape[1])
        if given is not None:  # their queries are never read
            turned[: tree.given, heads.queries * heads.width :] = given
        form = (heads.queries + heads.groups, heads.queries + 2 * heads.groups, heads.width)
        lib.call("rotate", qkv, rotation.cos, rotation.sin, turned[tree.given :], computed, *form, 1.0)
        out = qkv.new_empty(computed, heads.queries * heads.width)
        lse = torch.empty(computed, heads.queries, dtype=torch.float32)
        segments = len(tree.lengths)
        lib.call(
            "attend_tree", turned, *tree.spans32, tree.first, segments, tree.given, out, lse, *_arguments(heads)
        )  # fmt: skip
        ctx.save_for_backward(turned, out, lse, rotation.cos, rotation.sin)
        ctx.tree, ctx.heads, ctx.form = tree, heads, form
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        lib = library()
        assert lib is not None
        turned, out, lse, cos, sin = ctx.saved_tensors
        tree: Tree = ctx.tree
        heads: Heads = ctx.heads
        assert not tree.first
        place, positions = tree.shared32
        d_shared = torch.zeros(torch.get_num_threads(), positions, heads.groups, 2, heads.width)
        d_qkv, d_out, segments = torch.empty_like(turned), d_out.contiguous(), len(tree.lengths)
        lib.call(
            "attend_tree_backward", turned, *tree.spans32, place, segments, out, d_out, lse, d_shared, positions, d_qkv,
            *_arguments(heads),
        )  # fmt: skip
        lib.call("rotate", d_qkv, cos, sin, d_qkv, turned.shape[0], *ctx.form, -1.0)
        return d_qkv, None, None, None, None


def _arguments(heads: Heads) -> tuple[float, ...]:
    """A layer's form as the kernels read it."""
    window, softcap = heads.window or 0, heads.softcap or 0.0
    return heads.queries, heads.groups, heads.width, window, float(heads.scale), float(softcap)


def attend_tree(qkv: Tensor, tree: Tree, rotation: Rotation, heads: Heads, given: Tensor | None = None) -> Tensor:
    """Causal attention of every computed position to its past and its ancestors.

    Args:
        qkv: [S - tree.given, (A + 2 G) * K], queries, keys and values of the computed positions side by side, not yet rotated.
        tree: how all S positions stand behind one another.
        rotation: of the computed positions.
        heads: form.
        given: [tree.given, 2 G * K], keys (rotated) and values of the others; through them no gradient flows.

    Returns:
        [S - tree.given, A * K].
    """
    count, width = heads.queries, heads.width
    if not any(tree.lengths[tree.first :]):  # nothing but empty prompts
        return qkv.new_zeros(0, count * width)
    lib = kernels_for(qkv)
    if lib is not None and lib.attention:
        return _AttendTree.apply(qkv, tree, rotation, heads, given)
    q_SAK, k_SGK, v_SGK = qkv.view(qkv.shape[0], -1, width).split([count, heads.groups, heads.groups], 1)
    turned = rotation.turned(torch.cat([q_SAK, k_SGK], 1))
    q_SAK, k_SGK = turned[:, :count], turned[:, count:]
    if given is not None:
        before = given.view(given.shape[0], 2, heads.groups, width).unbind(1)
        k_SGK, v_SGK = torch.cat([before[0], k_SGK]), torch.cat([before[1], v_SGK])
    if flexes(qkv.device, qkv.dtype, width, count, heads.groups):
        mask = tree_mask(tree, heads.window)
        return attend_blocks(q_SAK, k_SGK, v_SGK, mask, heads.scale, softcap=heads.softcap).flatten(1)
    parts = [_attend_level(q_SAK, k_SGK, v_SGK, level, tree.given, heads) for level in tree.levels]
    if len(parts) == 1:
        return parts[0].flatten(1)
    return torch.cat(parts).index_select(0, tree.restore_S).flatten(1)


def _attend_level(q_SAK: Tensor, k_SGK: Tensor, v_SGK: Tensor, level: TreeLevel, given: int, heads: Heads) -> Tensor:
    """The positions of one level, [their number, A, K]; queries are those of the positions from ``given`` on."""
    members, most_q, most_k = level.shape
    q = q_SAK.index_select(0, level.query_Q - given).view(members, most_q, *q_SAK.shape[1:]).transpose(1, 2)
    k, v = (x.index_select(0, level.key_L).view(members, most_k, *x.shape[1:]).transpose(1, 2) for x in (k_SGK, v_SGK))
    mask = level.behind >= 0
    if heads.window is not None:
        mask = mask & (level.behind < heads.window)
    out = attend_masked(q, k, v, mask, heads)
    return out.transpose(1, 2).flatten(0, 1).index_select(0, level.place_S)


def attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: Heads) -> Tensor:
    """Attention [M, A, Q, K] of q over k and v, [M, G, L, K], where the bool mask [M, 1, Q, L] is true.

    The query heads of a group may also stand as queries of one head, [M, G, Q * A / G, K]: where all see the same keys.
    """
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    if heads.softcap is None:
        hidden = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
        return attention(q, k, v, hidden, heads.scale)
    scores = wide(q) @ wide(k).transpose(2, 3) * heads.scale
    scores = torch.tanh(scores / heads.softcap) * heads.softcap
    return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ wide(v)).to(q.dtype)
