"""Attention over a tree of segments: both ways of computing it against a plain formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from softprompt.backbones.engine import tree as engine
from softprompt.backbones.engine.layers import Linear
from softprompt.backbones.engine.tree import Heads, Rotation, Tree, attend_tree

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


def both(run, qkv: Tensor, *form, weight: Tensor) -> tuple[Tensor, Tensor]:
    x = qkv.clone().requires_grad_(True)
    out = run(x, *form)
    (out * weight.to(out.dtype)).sum().backward()
    return out.detach(), x.grad


@pytest.mark.parametrize("name", CASES)
def test_attention_over_a_tree_is_the_plain_formula(name: str) -> None:
    qkv, *form, weight = example(name)
    expected = both(plain, qkv.double(), *form, weight=weight)
    found = both(attend_tree, qkv.double(), *form, weight=weight)
    for ours, other in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_kernels_err_no_more_than_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, *form, weight = example(name)
    qkv, weight = qkv.bfloat16(), weight.bfloat16()
    if (lib := engine.kernels_for(qkv)) is None or not lib.attention:
        pytest.skip("no attention kernels at this level of instructions")
    true = both(attend_tree, qkv.double(), *form, weight=weight)
    ours = both(attend_tree, qkv, *form, weight=weight)
    again = both(attend_tree, qkv, *form, weight=weight)
    monkeypatch.setattr(engine, "kernels_for", lambda x: None)
    torchs = both(attend_tree, qkv, *form, weight=weight)
    for found, repeated, other, exact in zip(ours, again, torchs, true, strict=True):
        assert torch.equal(found, repeated)  # whatever the threads do
        error, allowed = ((x.double() - exact).norm() / exact.norm() for x in (found, other))
        assert float(error) <= 1.2 * float(allowed) + 1e-4


@pytest.mark.parametrize("name", ["prompt and rows", "window, answers"])
def test_given_segments_are_attended_to_and_not_computed(name: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        qkv, tree, rotation, heads, _ = example(name)
        part, qkv = Tree(tree.lengths, tree.parents, CPU, first=2), qkv.to(dtype)
        n, kv = part.given, qkv[:, heads.queries * heads.width :].view(len(qkv), 2, heads.groups, heads.width)
        turned = torch.stack([rotation.turned(kv[:, 0]), kv[:, 1]], 1).flatten(1)
        behind = Rotation(rotation.cos[n:], rotation.sin[n:])
        found = attend_tree(qkv[n:], part, behind, heads, turned[:n])
        torch.testing.assert_close(found, attend_tree(qkv, tree, rotation, heads)[n:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_stays_so(dtype: torch.dtype) -> None:
    for value in (float("nan"), float("inf")):
        qkv, tree, rotation, heads, _ = example("prompt and rows")
        qkv = qkv.to(dtype)
        qkv[2, :] = value  # a prompt's position: all rows behind it see it
        out = attend_tree(qkv, tree, rotation, heads)
        assert not bool(out[16:].isfinite().all(1).any())


@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (64, 160), (48, 64), (32, 8192)])
def test_a_steady_image_does_not_depend_on_the_number_of_rows(outputs: int, inputs: int) -> None:
    draw = torch.Generator().manual_seed(3)
    x, weight = torch.randn(170, inputs, generator=draw), torch.randn(outputs, inputs, generator=draw)
    bias = torch.randn(outputs, generator=draw).bfloat16()
    linear = Linear(weight.bfloat16(), bias)
    x = x.bfloat16()
    with torch.no_grad():
        whole = linear(x)
        parts = {rows: linear(x[:rows]) for rows in (1, 7, 32, 33, 64)}
    exact = x.double() @ weight.bfloat16().double().T + bias.double()
    assert float((whole.double() - exact).norm() / exact.norm()) < 4e-3
    if engine.kernels_for(x) is not None:
        for rows, part in parts.items():
            assert torch.equal(part, whole[:rows])
