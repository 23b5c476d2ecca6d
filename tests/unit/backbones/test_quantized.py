"""Weights in 8 and 4 bits: how far they are from the whole ones, and that everything computed with them is exact."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from tests.support.cli import call, make_tasks
from tests.support.models import KINDS, random_batch, random_prompts, save_tiny, tiny_backbone, tiny_model

from softprompt.backbones.base import Backbone, Dropout
from softprompt.backbones.engine.quantized import (
    BITS,
    GROUP,
    Quantized,
    QuantizedLinear,
    quantize,
    weight_bytes,
)
from softprompt.backbones.load import load_backbone, wrap
from softprompt.batch import Rows
from softprompt.errors import UnknownNameError, UsageError
from softprompt.library.store import Library
from softprompt.training.weights.live import LiveModel

CPU = torch.device("cpu")
WHICH = torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("inputs", [GROUP, 3 * GROUP, 24, 100])
def test_a_weight_is_off_by_at_most_half_a_step(bits: int, inputs: int) -> None:
    weight = torch.randn(7, inputs)
    weight[3] = 0
    found = Quantized.of(weight, bits)
    assert found.shape == weight.shape
    assert found.bits == bits
    whole = found.dense()
    step = found.scale.float().abs().repeat_interleave(GROUP, 1)[:, :inputs]
    # The largest positive integer is one step short of the largest negative one; bfloat16 scales add half a percent.
    most = 1 << (bits - 1)
    edge = (weight / (found.scale.float().repeat_interleave(GROUP, 1)[:, :inputs])).nan_to_num() > most - 1.5
    assert bool(((whole - weight).abs() <= 0.5 * step * 1.0001)[~edge].all())
    assert bool(((whole - weight).abs() <= 1.01 * step * (1 + most / 256))[edge].all())
    assert bool((whole[3] == 0).all())
    assert torch.equal(Quantized.of(whole, bits).dense(), whole)  # what is stored is stored again as it is


def test_the_error_on_normal_weights_is_that_of_the_format() -> None:
    weight = torch.randn(64, 1024)
    error = {bits: float((Quantized.of(weight, bits).dense() - weight).norm() / weight.norm()) for bits in (8, 4)}
    assert 0.003 < error[8] < 0.008
    assert 0.07 < error[4] < 0.11


def _pair(kind: str, bits: int) -> tuple[Backbone, Backbone]:
    """A quantised backbone, and a plain one whose weights are what the first one's stand for; both in float64."""
    model, tokenizer = tiny_model(kind)
    few = copy.deepcopy(model).double()
    quantize(few, bits, CPU)
    whole = copy.deepcopy(few)
    for parent in list(whole.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, QuantizedLinear):
                rows, inputs = layer.stored.shape
                plain = torch.nn.Linear(inputs, rows, bias=layer.bias is not None, dtype=torch.float64)
                plain.weight.data = layer.stored.dense()
                if layer.bias is not None:
                    plain.bias.data = layer.bias.data.clone()
                setattr(parent, name, plain)
    return wrap(few, tokenizer, name="few"), wrap(whole, tokenizer, name="whole")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_computed_with_the_weights_the_integers_stand_for(kind: str, bits: int) -> None:
    found = []
    few, whole = _pair(kind, bits)
    assert (few.precision, whole.precision) == (f"int{bits}", "float64")
    assert few.parameter_count == whole.parameter_count
    for backbone in (few, whole):
        batch, stack = random_batch(backbone), random_prompts(backbone)
        prompts = stack.prompts(Rows(run_B=WHICH))
        losses = backbone.example_losses(batch, prompts, Dropout(rate=0.1, key_B=torch.arange(5)))
        losses.nll_B.sum().backward()
        answers = backbone.generate(batch, prompts, 5)
        found.append((losses.nll_B.detach(), stack.prompts_NPH.grad, answers))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-7)  # prompts are float32
    assert found[0][2] == found[1][2]


@pytest.mark.parametrize("kind", ["t5-gated-untied", "encdec", "llama"])
def test_the_hugging_face_module_goes_on_working(kind: str) -> None:
    few, whole = _pair(kind, 4)
    ids = torch.tensor([[5, 9, 12, 7]])
    extra = {} if kind == "llama" else {"decoder_input_ids": torch.tensor([[1, 4]])}
    torch.testing.assert_close(few.hf_model(ids, **extra).logits, whole.hf_model(ids, **extra).logits)


def test_nothing_whole_is_kept_for_the_backward_pass() -> None:
    few, _ = _pair("t5-gated-untied", 8)
    kept: list[torch.Size] = []
    sizes = {m.stored.shape for m in few.hf_model.modules() if isinstance(m, QuantizedLinear)}
    sizes |= {torch.Size((2 * s[0], s[1])) for s in sizes} | {torch.Size((3 * s[0], s[1])) for s in sizes}
    prompts = random_prompts(few).prompts(Rows(run_B=WHICH))
    batch = random_batch(few)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.shape), t)[1], lambda t: t):
        few.example_losses(batch, prompts)
    assert kept
    assert not sizes & set(kept)


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.parametrize("kind", ["t5-gated-tied", "encdec", "gpt2"])
def test_a_quantised_backbone_is_the_same_backbone(kind: str, dtype: str, tmp_path: Path) -> None:
    folder = str(save_tiny(kind, tmp_path / "model", width=64))
    whole, few = load_backbone(folder, dtype="bfloat16"), load_backbone(folder, dtype=dtype)
    assert (few.precision, whole.precision) == (dtype, "bfloat16")
    assert few.fingerprint == whole.fingerprint
    assert few.parameter_count == whole.parameter_count
    assert weight_bytes(few.hf_model) < weight_bytes(whole.hf_model)
    batch, stack = random_batch(few), random_prompts(few)
    before = few.weights_digest()
    losses = few.example_losses(batch, stack.prompts(Rows(run_B=WHICH)))
    losses.nll_B.sum().backward()
    assert few.weights_digest() == before
    assert bool(stack.prompts_NPH.grad.abs().sum() > 0)
    expected = whole.example_losses(batch, stack.prompts(Rows(run_B=WHICH))).nll_B.detach()
    assert float((losses.nll_B.detach() - expected).abs().mean() / expected.mean()) < (0.05 if dtype == "int8" else 0.4)


def test_a_prompt_moves_between_precisions_and_its_manifest_names_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny("t5", tmp_path / "model")
    make_tasks(tmp_path / "tasks", "mood")
    common = ("--task", str(tmp_path / "tasks" / "mood"), "--backbone", str(tmp_path / "model"), "--json")
    small = ("--steps", "2", "--prompt-length", "3", "--batch-size", "3", "--set", "eval_every=2")
    code, out, err = call(capsys, "train", *common, *small, "--dtype", "int8", "--out", str(tmp_path / "run"))
    assert code == 0, err
    assert "int8" in err
    (trained,) = json.loads(out)["prompts"]
    library = Library(tmp_path / "run" / "library")
    assert library.get(trained["name"]).manifest.recipe["precision"] == "int8"
    where = ("--library", str(tmp_path / "run" / "library"), "--prompt", trained["name"])
    for dtype in ("float32", "int4"):
        code, out, err = call(capsys, "eval", *common, *where, "--dtype", dtype)
        assert code == 0, err
        assert trained["name"] in out


def test_an_unknown_precision_offers_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="int8"):
        load_backbone(str(save_tiny("t5", tmp_path / "model")), dtype="int7")


def test_model_tuning_refuses_integers() -> None:
    few, _ = _pair("t5", 8)
    with pytest.raises(UsageError, match="int8"):
        LiveModel(few)
    assert LiveModel(tiny_backbone("t5")).parameters
