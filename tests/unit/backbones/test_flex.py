"""FlexAttention's block masks, biases and caps against the padded path. What compiles them on a GPU is left out here: PyTorch's
own reference runs them, whose backward pass it refuses on a CPU unless its check is taken away."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tests.support.decoders import tiny_decoder
from tests.support.models import random_batch, random_prompts, tiny_backbone
from tests.support.reference import ours_of
from tests.support.trees import CASES, CPU, example, plain
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.nn.attention import flex_attention

from softprompt.backbones.engine import flex, ops, tree
from softprompt.backbones.engine.packing import Layout
from softprompt.backbones.engine.tree import Tree, attend_tree

SLOW = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # the compiler looks at what it is given


@pytest.fixture
def flexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """FlexAttention wherever the padded path would be; holds what it was asked for."""
    asked: list[str] = []

    def watched(*args: Any, **how: Any) -> Any:
        asked.append("".join(sorted(name for name, value in how.items() if value is not None)))
        return real(*args, **how)

    real = flex.attend_blocks
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "_COMPILER", "eager")
    for module in (ops, tree):
        monkeypatch.setattr(module, "kernels_for", lambda _: None)
        monkeypatch.setattr(module, "flexes", lambda *_: True)
        monkeypatch.setattr(module, "attend_blocks", watched)
    return asked


@pytest.mark.parametrize("name", CASES)
def test_attention_by_blocks_is_the_plain_formula(name: str, flexed: list[str]) -> None:
    qkv, shape, rotation, heads, weight = example(name)
    found = []
    for attend in (attend_tree, plain):
        leaf = qkv.double().requires_grad_()
        out = attend(leaf, shape, rotation, heads)
        (slope,) = torch.autograd.grad((out * weight.double()).sum(), leaf)
        found.append((out.detach(), slope))
    assert len(flexed) == 1
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)  # the scores' place is float32


@pytest.mark.parametrize(
    "name", ["window, answers", *(pytest.param(name, marks=SLOW) for name in ("prompt and rows", "one key head, cap"))]
)
def test_given_segments_are_read_and_not_computed(name: str, flexed: list[str]) -> None:
    qkv, whole, rotation, heads, _ = example(name)
    first = 2
    part = Tree(whole.lengths, whole.parents, CPU, first=first)
    given, width = part.given, heads.width
    turned = rotation.turned(qkv.view(len(qkv), -1, width))[:, heads.queries : heads.queries + heads.groups]
    kept = torch.cat([turned.flatten(1), qkv[:, (heads.queries + heads.groups) * width :]], 1)[:given]
    mine = attend_tree(
        qkv[given:], part, tree.Rotation(rotation.cos[given:], rotation.sin[given:]), heads, kept.contiguous()
    )
    torch.testing.assert_close(mine, attend_tree(qkv, whole, rotation, heads)[given:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("t5", "reach_AR"), ("llama", ""), pytest.param("encdec", "", marks=SLOW),
        pytest.param("gemma2", "softcap", marks=SLOW),
    ],
)  # fmt: skip
def test_a_backbone_computes_by_blocks_what_it_computes_padded(
    kind: str, asked: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    make = tiny_backbone if kind in ("t5", "encdec") else tiny_decoder
    backbone = make(kind, dtype=torch.float32)
    batch = random_batch(backbone)
    found = [ours_of(backbone, batch, random_prompts(backbone))]
    calls = request.getfixturevalue("flexed")
    found.append(ours_of(backbone, batch, random_prompts(backbone)))
    assert asked in calls
    for mine, other in zip(found[1][1:], found[0][1:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_other_lengths_are_not_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: Any) -> Any:
        compiled.append(1)
        return make_boxed_func(graph.forward)

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "_COMPILER", aot_autograd(fw_compiler=counting))
    draw = random.Random(0)
    counts = []
    for _ in range(4):
        lengths = (16, 16, *(draw.randint(5, 60) for _ in range(draw.randint(8, 30))))
        shape = Tree(lengths, (-1, -1, *(i % 2 for i in range(len(lengths) - 2))), CPU)
        reach = torch.randn(4, 2 * shape.layout.longest + 5)
        for mask, bias in ((tree.tree_mask(shape, None), None), (flex.rows_mask(shape.layout), reach)):
            q, k, v = torch.randn(3, shape.layout.total, 4, 32).requires_grad_().unbind(0)
            flex.attend_blocks(q, k, v, mask, 0.2, reach_AR=bias).sum().backward()
        counts.append(len(compiled))
    assert counts == [4, 4, 4, 4]  # forward and backward, of a tree and of rows


def test_blocks_without_a_pair_are_not_visited() -> None:
    rows = Layout((200, 300, 12), CPU)
    blocks = flex.rows_mask(rows)
    seen = [blocks.kv_indices[0, 0, i, :n].tolist() for i, n in enumerate(blocks.kv_num_blocks[0, 0].tolist())]
    assert seen == [[0, 1], [0, 1, 2, 3], [1, 2, 3], [1, 2, 3]]  # rows end at 200, 500 and 512
    prompt = Tree((128, 128, 128, 128), (-1, 0, 0, 0), CPU)
    blocks = tree.tree_mask(prompt, None)
    assert [blocks.kv_indices[0, 0, i, :n].tolist() for i, n in enumerate(blocks.kv_num_blocks[0, 0].tolist())] == [
        [0], [0, 1], [0, 2], [0, 3],
    ]  # fmt: skip


@pytest.mark.parametrize(("heads", "groups"), [(6, 2), pytest.param(4, 4, marks=SLOW)])
def test_a_device_is_asked_by_an_example(heads: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "_COMPILER", "aot_eager")
    assert flex.agrees(CPU, torch.float32, 32, heads, groups)
    right = flex.attend_blocks
    monkeypatch.setattr(flex, "attend_blocks", lambda *args, **how: right(*args, **{**how, "softcap": 0.5}) * 1.2)
    assert not flex.agrees(CPU, torch.float32, 32, heads, groups)
    assert not flex.flexes(CPU, torch.bfloat16, 32, heads, groups)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_it() -> None:
    cuda = torch.device("cuda")
    assert all(flex.flexes(cuda, torch.bfloat16, 64, heads, groups) for heads, groups in ((12, 12), (9, 3)))
