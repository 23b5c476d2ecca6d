"""Attention over a tree of segments: both ways of computing it against a plain formula in float64."""

from __future__ import annotations

import pytest
import torch
from tests.support.trees import CASES, CPU, example, plain
from torch import Tensor

from softprompt.backbones.engine import tree as engine
from softprompt.backbones.engine.layers import Linear
from softprompt.backbones.engine.tree import Rotation, Tree, attend_tree


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
