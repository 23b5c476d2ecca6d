"""Examples of texts behind texts, and attention over them by the plain formula."""

from __future__ import annotations

import torch
from torch import Tensor

from softprompt.backbones.engine.tree import Heads, Rotation, Tree

CPU = torch.device("cpu")
# Query heads, key/value heads, head width, window, cap, lengths, parents.
CASES = {
    "prompt and rows": (9, 3, 64, None, None, (16, 7, 30, 1, 12), (-1, 0, 0, 0, 0)),
    "window, answers": (4, 2, 16, 5, None, (5, 9, 0, 40, 3), (-1, -1, 0, 1, 2)),
    "one head each": (8, 8, 64, None, None, (100, 33, 65, 2), (-1, 0, 0, 1)),
    "one key head, cap": (4, 1, 32, None, 5.0, (0, 70, 20, 4, 4, 140), (-1, 0, -1, 1, 2, 2)),
    "window and cap": (6, 2, 80, 20, 30.0, (64, 140), (-1, 0)),
    "no parents": (2, 2, 24, None, None, (10, 3), (-1, -1)),
}


def example(name: str) -> tuple[Tensor, Tree, Rotation, Heads, Tensor]:
    queries, groups, width, window, cap, lengths, parents = CASES[name]
    draw = torch.Generator().manual_seed(1)
    tree = Tree(lengths, parents, CPU)
    angle = tree.position_S[:, None].float() * torch.rand(width // 2, generator=draw)
    qkv = torch.randn(sum(lengths), (queries + 2 * groups) * width, generator=draw)
    weight = torch.randn(sum(lengths), queries * width, generator=draw)
    heads = Heads(queries, groups, width, 2 * width**-0.5, window, cap)
    return qkv, tree, Rotation(angle.cos(), angle.sin()), heads, weight


def plain(qkv: Tensor, tree: Tree, rotation: Rotation, heads: Heads) -> Tensor:
    """Position by position, in the dtype of qkv."""
    x = qkv.view(len(qkv), -1, heads.width)
    low, high = x.chunk(2, -1)
    cos, sin = rotation.cos[:, None].to(x.dtype), rotation.sin[:, None].to(x.dtype)
    turned = torch.cat([low * cos - high * sin, high * cos + low * sin], -1)
    q, k, v = turned[:, : heads.queries], turned[:, heads.queries : -heads.groups], x[:, -heads.groups :]
    starts = [sum(tree.lengths[:s]) for s in range(len(tree.lengths))]
    out = []
    for s, length in enumerate(tree.lengths):
        before = [p for c in tree.chain(s)[:-1] for p in range(starts[c], starts[c] + tree.lengths[c])]
        for t in range(length):
            seen = [*before, *range(starts[s], starts[s] + t + 1)]
            seen = seen if heads.window is None else seen[-heads.window :]
            rows = []
            for h in range(heads.queries):
                group = h * heads.groups // heads.queries
                scores = k[seen, group] @ q[starts[s] + t, h] * heads.scale
                if heads.softcap is not None:
                    scores = torch.tanh(scores / heads.softcap) * heads.softcap
                rows.append(scores.softmax(0) @ v[seen, group])
            out.append(torch.cat(rows))
    return torch.stack(out)
