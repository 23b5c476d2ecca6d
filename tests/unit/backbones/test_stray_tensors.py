"""A training step on a device that is not there: tensors without memory find those left on the CPU, and every wait.

On PyTorch's ``meta`` device tensors have shapes and dtypes alone. `OneDevice` watches every operation, forward and
backward: one that mixes the device with the CPU fails, as it would on a GPU; so does one that asks for values, which on a
GPU means waiting for all queued work.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.support.models import tiny_backbone
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from softprompt.backbones.base import Backbone, Dropout
from softprompt.backbones.engine import device, flex, formulas, ops
from softprompt.backbones.engine.tree import Tree, tree_mask
from softprompt.batch import PromptBatch, TokenBatch

META = torch.device("meta")
INPUTS = [[5, 6, 7, 8, 9, 10, 11, 2], [5, 6, 2], [7, 8, 9, 2]]
TARGETS = [[5, 2], [6, 7, 2], [8, 2]]
_COPIES = {"aten._to_copy.default", "aten.copy_.default"}
_WAITS = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default", "aten.is_nonzero.default"}


class StrayTensorError(Exception):
    """An operation on tensors of two devices, or one that waits."""


class OneDevice(TorchDispatchMode):
    """Watches every operation.

    Attributes:
        seen: operations on the device so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        devices = {t.device.type for t in tensors if t.dim()}
        if "meta" in devices:
            self.seen += 1
            if "cpu" in devices and str(func) not in _COPIES:
                raise StrayTensorError(f"{func} was given tensors on {sorted(devices)}")
            masks = str(func).startswith("aten.index") and any(t.dtype == torch.bool for t in tensors[1:])
            if str(func) in _WAITS or (masks and "fill" not in str(func)):
                raise StrayTensorError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def moved(value: Any, seen: dict[int, Any]) -> Any:
    """A value with every tensor in it on the device; modules are changed in place."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, torch.nn.Module):
        return value.to(META)
    if isinstance(value, Tensor):
        seen[id(value)] = value.to(META)
        return seen[id(value)]
    if isinstance(value, list | tuple):
        return type(value)(moved(each, seen) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = {f.name: moved(getattr(value, f.name), seen) for f in dataclasses.fields(value)}
        seen[id(value)] = dataclasses.replace(value, **made)
        return seen[id(value)]
    return value


def on_meta(kind: str, dtype: torch.dtype, **shape: Any) -> Backbone:
    """A tiny backbone whose every tensor is on the device."""
    backbone = tiny_backbone(kind, dtype=dtype, **shape)
    seen: dict[int, Any] = {}
    for name, value in list(vars(backbone).items()):
        if name != "tokenizer":
            setattr(backbone, name, moved(value, seen))
    backbone.device = META
    return backbone


def prompts_for(backbone: Backbone, rows: int, length: int = 4) -> tuple[Tensor, PromptBatch]:
    """Two tuned prompts, used in turn."""
    prompts = torch.randn(2, length, backbone.hidden_size, device=META).requires_grad_()
    which = torch.arange(rows, device=META) % 2
    return prompts, PromptBatch(unique_UPH=prompts, which_B=which, length_U=(length, length), key_U=(None, None))


@pytest.mark.parametrize(("dtype", "rate", "checkpointing"), [(torch.float32, 0.0, True), (torch.bfloat16, 0.1, False)])
@pytest.mark.parametrize("kind", ["t5", "t5-gated-untied", "encdec"])
def test_a_step_stays_on_the_device_and_never_waits(
    kind: str, dtype: torch.dtype, rate: float, checkpointing: bool
) -> None:
    backbone: Any = on_meta(kind, dtype)
    backbone.checkpointing = checkpointing
    prompts, given = prompts_for(backbone, len(INPUTS))
    with OneDevice() as watch:
        batch = TokenBatch.of(INPUTS, TARGETS, device=META)
        losses = backbone.example_losses(batch, given, Dropout(rate=rate, key_B=torch.arange(3, device=META)))
        forward = watch.seen
        (gradient,) = torch.autograd.grad(losses.nll_B.sum(), prompts)
    assert gradient.shape == prompts.shape
    assert gradient.device == losses.nll_B.device == losses.tokens_B.device == META
    assert forward > 100
    assert watch.seen > forward + 50


def test_the_packed_kernel_is_given_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = on_meta("encdec", torch.bfloat16, width=32)
    calls: list[tuple[torch.Size, torch.dtype, int]] = []
    real = ops.attend_packed

    def watched(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
        calls.append((bounds.shape, bounds.dtype, longest))
        return real(q, k, v, bounds, longest)

    monkeypatch.setattr(ops, "packed_attention", lambda *_: True)
    monkeypatch.setattr(ops, "attend_packed", watched)
    prompts, given = prompts_for(backbone, len(INPUTS))
    with OneDevice():
        losses = backbone.example_losses(TokenBatch.of(INPUTS, TARGETS, device=META), given)
        (gradient,) = torch.autograd.grad(losses.nll_B.sum(), prompts)
    assert gradient.shape == prompts.shape
    assert calls == [(torch.Size([4]), torch.int32, 12)] * 2


def test_block_masks_are_made_on_the_device_without_waiting() -> None:
    with OneDevice() as watch:
        shape = Tree((16, 200, 40), (-1, 0, 0), META)
        masks = (tree_mask(shape, 8), flex.rows_mask(shape.layout))
        q = torch.randn(shape.layout.total, 2, 32, device=META)
        place = torch.arange(len(q), device=META)
        seen = [mask.mask_mod(0, 0, place[:, None], place[None, :]) for mask in masks]
    assert watch.seen > 10
    assert {part.shape for part in seen} == {(256, 256)}
    assert all(mask.kv_indices.device == mask.q_indices.device == META for mask in masks)


def test_the_watch_finds_strays_and_waits() -> None:
    here, there = torch.randn(3, 2), torch.randn(3, 2, device=META)
    with OneDevice():
        for wrong in (lambda: there + here, lambda: there[here > 0], lambda: there[there > 0]):
            with pytest.raises(StrayTensorError):
                wrong()
        assert (there + here.to(META)).shape == (3, 2)


def test_a_prompt_left_on_the_cpu_is_found() -> None:
    backbone = on_meta("t5", torch.float32)
    _, given = prompts_for(backbone, len(INPUTS))
    stray = dataclasses.replace(given, unique_UPH=torch.randn(2, 4, backbone.hidden_size))
    with OneDevice(), pytest.raises(StrayTensorError):
        backbone.example_losses(TokenBatch.of(INPUTS, TARGETS, device=META), stray)


@pytest.mark.parametrize("optimizer", ["adafactor", "adam"])
def test_an_update_stays_on_the_device_and_never_waits(optimizer: str) -> None:
    from softprompt.training.optim import gradient_norm_N, make_optimizer
    from softprompt.training.settings import TrainSettings

    prompts = torch.randn(3, 4, 8, device=META).requires_grad_()
    prompts.grad = torch.randn(3, 4, 8, device=META)
    settings = TrainSettings(steps=3, optimizer=optimizer, clip_norm=1.0)  # type: ignore[arg-type]
    made = make_optimizer({"prompt": prompts}, settings)
    with OneDevice() as watch:
        made.step(0, gradient_norm_N({"prompt": prompts}))
    assert watch.seen > 5


def test_the_cpu_has_no_packed_kernel() -> None:
    assert not device.packed_attention(torch.device("cpu"), torch.bfloat16, 32)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at what it is given
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("kind", ["t5-gated-untied", "encdec"])
@pytest.mark.slow
def test_compiled_formulas_give_what_plain_ones_give(monkeypatch: pytest.MonkeyPatch, kind: str, compiler: str) -> None:
    backbone = tiny_backbone(kind)
    prompts = torch.randn(2, 4, backbone.hidden_size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    given = PromptBatch(unique_UPH=prompts, which_B=torch.arange(3) % 2, length_U=(4, 4), key_U=(None,) * 2)
    batch = TokenBatch.of(INPUTS, TARGETS)
    compiled: set[str] = set()

    def watched(function: Any, x: Tensor) -> Any:
        compiled.add(function.__name__)
        return device.compiled(function)

    found = []
    for plain in (True, False):
        with monkeypatch.context() as patch:
            if not plain:
                patch.setattr(device, "_COMPILER", compiler)
                patch.setattr(ops, "formula", watched)
                device.compiled.cache_clear()
            losses = backbone.example_losses(batch, given, Dropout(rate=0.1, key_B=torch.arange(3)))
            (gradient,) = torch.autograd.grad(losses.nll_B.sum(), prompts)
            found.append((losses.nll_B.detach(), gradient))
    device.compiled.cache_clear()
    norms = {"rms_forward", "rms_backward"} if kind != "encdec" else {"norm_forward", "norm_backward"}
    assert compiled == norms | {"activated"}
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


def test_nothing_is_compiled_where_there_is_no_cuda_device() -> None:
    assert device.formula(formulas.activated, torch.zeros(2, 2)) is formulas.activated


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # a warning of a compiler is no reason to go without it
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_runs_what_is_written_for_it() -> None:
    cuda = torch.device("cuda")
    assert device.compiles(cuda)
    assert all(device.packed_attention(cuda, torch.bfloat16, width) for width in (32, 64))


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["t5-gated-untied", "encdec"])
def test_losses_and_gradients_on_the_device_are_those_of_the_cpu(kind: str) -> None:
    found = []
    for place in ("cpu", "cuda"):
        backbone: Any = tiny_backbone(kind)
        if place == "cuda":
            from softprompt.backbones.load import wrap

            backbone = wrap(backbone.hf_model.to(place), backbone.tokenizer, name=kind)
        prompts = torch.randn(2, 4, backbone.hidden_size, generator=torch.Generator().manual_seed(0)).to(place)
        prompts.requires_grad_()
        given = PromptBatch(
            unique_UPH=prompts, which_B=torch.arange(3, device=place) % 2, length_U=(4, 4), key_U=(None,) * 2
        )
        batch = TokenBatch.of(INPUTS, TARGETS, device=place)
        losses = backbone.example_losses(batch, given, Dropout(rate=0.1, key_B=torch.arange(3, device=place)))
        (gradient,) = torch.autograd.grad(losses.nll_B.sum(), prompts)
        found.append((losses.nll_B.detach().cpu(), gradient.cpu(), backbone.generate(batch, given, 4)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-2, atol=1e-4)
    assert found[0][2] == found[1][2]
