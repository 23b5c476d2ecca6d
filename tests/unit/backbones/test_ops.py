"""Each fused operation against plain PyTorch: in bfloat16 at the level of instructions in force (compiled or not), in float64
by finite differences. ``./check`` runs this file at every level the machine has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from softprompt.backbones.engine import layers, ops
from softprompt.backbones.engine.attention import Memory, attend_memory, hide_later
from softprompt.backbones.engine.layers import Linear
from softprompt.backbones.engine.packing import Layout

LAYOUT = Layout((7, 33, 64, 1, 50), torch.device("cpu"))
S, H = LAYOUT.total, 96
ROUNDING = 0.01  # of bfloat16 results against float32 ones on the same rounded inputs, relative norm


def _run(function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor]) -> list[Tensor]:
    inputs = [x.clone().requires_grad_(True) for x in inputs]
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    seeds = [
        torch.randn(o.shape, generator=torch.Generator().manual_seed(i)).to(o.dtype) for i, o in enumerate(outputs)
    ]
    return [o.detach() for o in outputs] + list(torch.autograd.grad(outputs, inputs, seeds))


def _check(function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor]) -> None:
    rounded = [x.bfloat16() for x in inputs]
    for fast, plain in zip(_run(function, rounded), _run(function, [x.float() for x in rounded]), strict=True):
        assert fast.dtype == torch.bfloat16
        assert float((fast.float() - plain).norm()) <= ROUNDING * float(plain.norm())


def _keep(*shape: int) -> Tensor:
    return (torch.rand(shape) > 0.1).float() / 0.9


@pytest.mark.parametrize("dropped", [False, True])
def test_norm_kernels(dropped: bool) -> None:
    keep = _keep(5, H) if dropped else None
    w, b = torch.rand(H) + 0.5, torch.randn(H)
    two = [torch.randn(S, H), torch.randn(S, H)]
    _check(lambda x, o: ops.add_rms(x, o, keep, LAYOUT, w.to(x.dtype), 1e-6), two)
    _check(lambda x: ops.add_rms(x, None, None, LAYOUT, w.to(x.dtype), 1e-6), two[:1])
    _check(lambda x, o: ops.add_layer_norm(x, o, keep, LAYOUT, w.to(x.dtype), b.to(x.dtype), 1e-6), two)


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_new", "silu"])
@pytest.mark.parametrize("width", [96, 37])  # a multiple of the vector width, and not
def test_activation_kernels(name: str, width: int) -> None:
    _check(lambda u: ops.activate(u, None, LAYOUT, name, gated=False), [torch.randn(S, width) * 2])
    keep = _keep(5, width)
    _check(lambda u: ops.activate(u, keep, LAYOUT, name, gated=True), [torch.randn(S, 2 * width) * 2])


@pytest.mark.parametrize(("heads", "width"), [(12, 32), (2, 64), (3, 16), (2, 80)])
def test_attention_kernel(heads: int, width: int) -> None:
    inputs = [torch.randn(S, 3 * heads * width)]
    _check(lambda q: ops.attend_self(q, None, None, LAYOUT, heads, 0.3), inputs)
    keep, bias = _keep(S, heads), torch.randn(heads, 2 * LAYOUT.longest + 9)
    _check(lambda q: ops.attend_self(q, keep, bias, LAYOUT, heads, 0.3), inputs)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_cross_attention_kernel(biased: bool, dropped: bool) -> None:
    heads, width, hidden = 4, 32, 96
    targets = Layout((3, 1, 3, 2, 1), torch.device("cpu"))
    weight, bias = torch.randn(2 * heads * width, hidden) / hidden**0.5, torch.randn(2 * heads * width)
    keep = _keep(S, heads) if dropped else None

    def two_layers(q: Tensor, r: Tensor, memory_SH: Tensor) -> tuple[Tensor, Tensor]:
        kv = Linear(weight.to(q.dtype), bias.to(q.dtype) if biased else None)
        memory = Memory(memory_SH, LAYOUT)
        return (
            attend_memory(q, kv, memory, keep, targets, heads, 0.5),
            attend_memory(r, kv, memory, keep, targets, heads, 0.5),
        )

    queries = [torch.randn(targets.total, heads * width) for _ in range(2)]
    _check(two_layers, [*queries, torch.randn(S, hidden)])


def test_carrying_queries_through_the_key_projection_changes_nothing() -> None:
    heads, width, hidden = 4, 16, 24
    weight, bias = torch.randn(2 * heads * width, hidden).double(), torch.randn(2 * heads * width).double()
    keep = _keep(S, heads)
    memory = torch.randn(S, hidden).double()
    short = Layout((3, 1, 2, 2, 1), torch.device("cpu"))  # carried
    long = Layout((3, 1, 20, 2, 1), torch.device("cpu"))  # keys and values projected
    q = torch.randn(short.total, heads * width).double()
    padded = torch.cat([q[:6], torch.zeros(18, heads * width).double(), q[6:]])
    found = [
        attend_memory(x, Linear(weight, bias), Memory(memory, LAYOUT), keep, layout, heads, 0.5)
        for x, layout in ((q, short), (padded, long))
    ]
    torch.testing.assert_close(found[0], torch.cat([found[1][:6], found[1][24:]]))


@pytest.mark.parametrize("added", [False, True])
def test_gradients_of_the_fallback_are_exact(added: bool) -> None:
    layout = Layout((2, 3), torch.device("cpu"))
    w, b = torch.rand(4).double(), torch.randn(4).double()
    keep = torch.tensor([[1.0, 0.0, 2.0, 1.0], [1.0, 1.0, 0.0, 1.0]])
    x, o = (torch.randn(5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    if added:
        assert torch.autograd.gradcheck(lambda x, o: ops.add_rms(x, o, keep, layout, w, 1e-6), (x, o))
        assert torch.autograd.gradcheck(lambda x, o: ops.add_layer_norm(x, o, keep, layout, w, b, 1e-6), (x, o))
    else:
        assert torch.autograd.gradcheck(lambda x: ops.add_rms(x, None, None, layout, w, 1e-6), (x,))


def test_token_loss_kernel() -> None:
    target = torch.randint(0, 203, (40,))
    logits = (torch.randn(40, 203) * 3).bfloat16()
    found = []
    for x in (logits.clone(), logits.float()):
        x.requires_grad_(True)
        log_z, chosen = ops.log_partition(x, target)
        (grad,) = torch.autograd.grad((log_z - chosen).sum() + 1e-2 * log_z.square().sum(), x)
        found.append((log_z.detach(), chosen.detach(), grad.float()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=0)
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-2, atol=1e-4)


def _cross(q: Tensor, memory_SH: Tensor, targets: Layout) -> Tensor:
    weight = torch.randn(2 * 64, 64, generator=torch.Generator().manual_seed(4)).to(q.dtype) / 8
    return attend_memory(q, Linear(weight, None), Memory(memory_SH, LAYOUT), None, targets, 2, 0.5)


SHORT, LONG = (Layout((n, 1, n, 2, 1), torch.device("cpu")) for n in (3, 20))
NOT_FINITE = {
    "add_rms": (lambda x, o: ops.add_rms(x, o, None, LAYOUT, torch.ones_like(x[0]), 1e-6), [(S, 64), (S, 64)]),
    "rms": (lambda x: ops.add_rms(x, None, None, LAYOUT, torch.ones_like(x[0]), 1e-6), [(S, 64)]),
    "add_layer_norm": (
        lambda x, o: ops.add_layer_norm(x, o, None, LAYOUT, torch.ones_like(x[0]), torch.zeros_like(x[0]), 1e-6),
        [(S, 64), (S, 64)],
    ),
    **{
        f"{name}-{width}": (
            lambda u, name=name: ops.activate(u, None, LAYOUT, name, gated=True),
            [(S, 2 * width)],
        )
        for name in ("relu", "gelu", "gelu_new", "silu")
        for width in (64, 37)
    },
    "log_partition": (lambda x: ops.log_partition(x, torch.arange(S) % 37), [(S, 37)]),
    "attend_self": (lambda qkv: ops.attend_self(qkv, None, None, LAYOUT, 2, 0.3), [(S, 3 * 64)]),
    "attend_self-biased": (
        lambda qkv: ops.attend_self(qkv, None, torch.ones(2, 2 * 64 - 1), LAYOUT, 2, 0.3),
        [(S, 3 * 64)],
    ),
    "attend_self-causal": (
        lambda qkv: ops.attend_self(qkv, None, hide_later(torch.zeros(2, 2 * 64 - 1)), LAYOUT, 2, 0.3),
        [(S, 3 * 64)],
    ),
    "attend_memory-few": (lambda q, m: _cross(q, m, SHORT), [(SHORT.total, 64), (S, 64)]),
    "attend_memory-many": (lambda q, m: _cross(q, m, LONG), [(LONG.total, 64), (S, 64)]),
}
"""Operation by name: the function, and the shapes of its inputs."""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_stays_so(name: str, dtype: torch.dtype) -> None:
    """Where float64 meets NaN or infinity, forward or backward, so does every dtype at every level."""
    function, shapes = NOT_FINITE[name]
    clean = [torch.randn(shape).to(dtype) for shape in shapes]
    for at, shape in enumerate(shapes):
        for bad in (float("nan"), float("inf"), float("-inf")):
            for place in ((3, 5), (shape[0] - 1, shape[1] - 1)):
                inputs = [x.clone() for x in clean]
                inputs[at][place] = bad
                exact = _run(function, [x.double() for x in inputs])
                for number, (ours, true) in enumerate(zip(_run(function, inputs), exact, strict=True)):
                    lost = ours.isfinite() & ~true.isfinite()
                    assert not bool(lost.any()), f"{bad} at {place} of input {at} is lost in result {number}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NOT_FINITE)
def test_a_gradient_that_is_not_finite_stays_so(name: str, dtype: torch.dtype) -> None:
    function, shapes = NOT_FINITE[name]
    inputs = [torch.randn(shape).to(dtype).requires_grad_(True) for shape in shapes]
    for bad in (float("nan"), float("inf")):
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        seeds = [torch.randn(o.shape).to(o.dtype) for o in outputs]
        seeds[-1].view(-1)[7] = bad
        gradients = torch.autograd.grad(outputs, inputs, seeds)
        assert not all(bool(g.isfinite().all()) for g in gradients), bad


def test_products_that_leave_the_range_are_not_hidden() -> None:
    """Finite inputs whose scores overflow float32: the softmax is undefined, and so must be what comes out."""
    for dtype in (torch.bfloat16, torch.float32):
        qkv = torch.randn(S, 3 * 64).to(dtype)
        qkv[8, :128] = 1e30  # a query and a key of the second row
        out = ops.attend_self(qkv, None, None, LAYOUT, 2, 1.0)
        assert not bool(out[7:40].isfinite().all())
        assert bool(out[:7].isfinite().all())
        assert bool(out[40:].isfinite().all())


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(7, 5), (600, 4096)], ids=["one block", "blocks that do not divide it"]
)
def test_the_exact_product_is_that_of_the_whole_weight_in_float32(outputs: int, inputs: int, biased: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, inputs, generator=draw)
    weight = torch.randn(outputs, inputs, generator=draw).bfloat16()
    bias = torch.randn(outputs, generator=draw).bfloat16() if biased else None
    plain = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with torch.no_grad():
        found = Linear(weight, bias).exact(x)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), plain, rtol=0, atol=1e-6 * inputs**0.5 * 4)


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("faster", [False, True])
def test_products_in_float32_where_they_are_faster(
    faster: bool, branch: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without gradients, and for few rows, bfloat16's own kernels multiply: no row may depend on how many there are."""
    generator = torch.Generator().manual_seed(0)
    weight, shift = torch.randn(96, 64, generator=generator).bfloat16(), torch.randn(96, generator=generator).bfloat16()
    x = torch.randn(320, 64, generator=generator)
    linear, seen = torch.nn.functional.linear, set()
    monkeypatch.setattr(layers.F, "linear", lambda x, *rest: (seen.add(x.dtype), linear(x, *rest))[1])
    monkeypatch.setattr(layers, "_float32_is_faster", lambda: faster)

    def product(x: Tensor) -> tuple[Tensor, ...]:
        layer = Linear(weight.to(x.dtype), shift.to(x.dtype) if bias else None)
        return layer.branch(x) if branch else (layer(x),)

    _run(product, [x.bfloat16()])
    assert seen == {torch.float32 if faster else torch.bfloat16}
    _check(product, [x])
    seen.clear()
    with torch.no_grad():
        product(x.bfloat16())
    product(x[:100].bfloat16().requires_grad_(True))
    assert torch.float32 not in seen
