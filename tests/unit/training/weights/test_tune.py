"""Model tuning against plain PyTorch, its resume, its restore, and multi-task model tuning."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.models import KINDS, random_batch, tiny_backbone
from tests.support.small_tasks import rescored, small_data, small_task

from softprompt.backbones.engine.native import levels
from softprompt.errors import UnknownNameError, UsageError
from softprompt.inference.evaluate import EvalJob
from softprompt.training.data import mixed_run, mixture_run, task_data
from softprompt.training.loop import Progress
from softprompt.training.recipes import TUNE_RECIPES, tune_recipe
from softprompt.training.settings import TuneSettings
from softprompt.training.weights.adafactor import FactoredAdafactor, factored
from softprompt.training.weights.live import LiveModel
from softprompt.training.weights.loop import TokenStream, Tuning
from softprompt.training.weights.tune import tune_model, tune_multitask
from softprompt.training.weights.tuned import ModelState, load_tuned

SETTINGS = TuneSettings(
    steps=4, batch_tokens=60, eval_every=2, eval_rows=0, max_input_tokens=32, max_target_tokens=8, learning_rate=0.01
)


def a_run(backbone: Any, name: str = "animals", seed: int = 0) -> Any:
    return small_data(backbone, name).run(name, seed)


def test_rows_are_cut_as_the_settings_and_the_backbone_say() -> None:
    """No prompt takes room; validation is cut only where the backbone cannot hold it."""
    backbone = tiny_backbone("t5")
    data = task_data(backbone, small_task(), SETTINGS.having(max_input_tokens=4), train_rows=6, validation_rows=3)
    assert (len(data.train), len(data.validation)) == (6, 3)
    assert int(data.train.input_lengths.max()) == 4
    assert int(data.validation.input_lengths.max()) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_the_backbones_own(kind: str) -> None:
    """The live model's loss and the frozen backbone's are two implementations of one number."""
    backbone = tiny_backbone(kind)
    batch = random_batch(backbone, 5)
    frozen = backbone.example_losses(batch, None)
    live = LiveModel(backbone)
    live.module.eval()
    found = live.losses(batch)
    torch.testing.assert_close(found.nll_B.detach(), frozen.nll_B, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.log_z_sq_B.detach(), frozen.log_z_sq_B, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_in_bfloat16_is_computed_in_float32(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's kernel is called in float32 alone, and the losses stay those of a model in bfloat16."""
    backbone = tiny_backbone(kind, dtype=torch.bfloat16)
    batch = random_batch(backbone, 5)
    live = LiveModel(backbone)
    live.module.eval()
    seen, kernel = set(), torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, *rest, **more: (seen.add(q.dtype), kernel(q, *rest, **more))[1],
    )
    found = live.losses(batch)
    found.nll_B.sum().backward()
    assert seen == ({torch.float32} if live.module.config._attn_implementation != "eager" else set())
    torch.testing.assert_close(found.nll_B.detach(), backbone.example_losses(batch, None).nll_B, rtol=2e-2, atol=0.1)


@pytest.mark.parametrize("kind", ["llama", "t5", "umt5", "encdec"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_products_in_float32_give_what_those_in_bfloat16_give(
    kind: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where float32 is the faster one: the same losses and gradients within bfloat16's rounding, and the same evaluation."""
    backbone = tiny_backbone(kind, dtype=torch.bfloat16)
    batch = random_batch(backbone, 5)
    linear, found = torch.nn.functional.linear, []
    for faster in (False, True):
        seen: set[torch.dtype] = set()
        monkeypatch.setattr(levels, "float32_is_faster", lambda faster=faster: faster)
        live = LiveModel(backbone, checkpointing=checkpointing)
        with monkeypatch.context() as spied:
            spied.setattr(
                torch.nn.functional, "linear", lambda x, w, *b, seen=seen: (seen.add(x.dtype), linear(x, w, *b))[1]
            )
            losses = live.losses(batch).nll_B
        losses.sum().backward()
        assert (torch.bfloat16 in seen) is not faster
        gradients = {n: p.grad.float() for n, p in live.parameters.items() if p.grad is not None}
        with live.evaluating() as tuned:
            found.append((losses.detach(), gradients, tuned.example_losses(batch, None).nll_B))
    (losses, gradients, scores), (wide_losses, wide_gradients, wide_scores) = found
    torch.testing.assert_close(wide_losses, losses, rtol=2e-2, atol=0.1)
    assert torch.equal(wide_scores, scores)
    assert wide_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (wide_gradients[name] - gradient).norm() <= 0.1 * gradient.norm() + 1e-2, name


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_logits_that_predict_no_target_are_not_made(kind: str) -> None:
    backbone = tiny_backbone(kind)
    batch = random_batch(backbone, 5)
    live = LiveModel(backbone)
    live.module.eval()
    made: list[int] = []
    head = live.module.get_output_embeddings()
    head.register_forward_hook(lambda _, inputs, __: made.append(inputs[0].shape[1]))
    found = live.losses(batch)
    forward = live.module.forward
    live.module.forward = lambda input_ids, **given: forward(input_ids=input_ids, **given)  # one that cannot be asked
    every = live.losses(batch)
    kept, whole = made
    assert kept < whole == int((batch.input_length_B + batch.target_length_B).max())
    torch.testing.assert_close(found.nll_B, every.nll_B)
    torch.testing.assert_close(found.log_z_sq_B, every.log_z_sq_B)


@pytest.mark.parametrize("kind", ["t5", "t5-gated-untied", "encdec", "gpt2"])
def test_one_step_equals_plain_pytorch(kind: str) -> None:
    """Same weights, same rows: transformers' own loss, plain autograd, and Adafactor written out."""
    backbone = tiny_backbone(kind)
    run = a_run(backbone)
    settings = TuneSettings(
        steps=1, batch_tokens=60, dropout=0.0, z_loss=0.0, eval_every=1, max_input_tokens=32, max_target_tokens=8,
        micro_batch_tokens=25,
    )  # fmt: skip
    plain = copy.deepcopy(backbone.hf_model).train()
    plain.requires_grad_(True)
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    picks = TokenStream(run, 60).take()
    assert len(picks) >= 2
    losses, tokens = [], 0
    for part, row in picks:
        inputs = torch.tensor(run.train[part].inputs(row)).long()
        targets = torch.tensor(run.train[part].targets(row)).long()
        if backbone.kind == "causal":
            labels = torch.cat([torch.full_like(inputs, -100), targets])[None]
            loss = plain(input_ids=torch.cat([inputs, targets])[None], labels=labels).loss
        else:
            decoder = torch.cat([torch.tensor([backbone.start_id]), targets[:-1]])[None]
            logits = plain(input_ids=inputs[None], decoder_input_ids=decoder).logits[0]
            loss = torch.nn.functional.cross_entropy(logits, targets)
        losses.append(loss * len(targets))
        tokens += len(targets)
    (torch.stack(losses).sum() / tokens).backward()
    expected = {}
    for name, p in plain.named_parameters():
        g = torch.zeros_like(p) if p.grad is None else p.grad
        update = g / (g.square() + 1e-30).sqrt()  # the first step's second moment is the squared gradient itself
        update = update / max(1.0, float(update.square().mean().sqrt()))
        size = max(1e-3, float(p.detach().square().mean().sqrt()))
        expected[name] = p.detach() - 0.001 * size * update
    found = tune_model(backbone, run, settings, keep_final=True)
    assert found.last is not None
    grads = {name: p.grad for name, p in plain.named_parameters()}
    for name, weight in found.last.weights.items():
        gradient = grads[name]
        # Where a gradient is rounding noise its sign, and so the first step's direction, is noise as well.
        sure = torch.ones_like(weight, dtype=torch.bool) if gradient is None else gradient.abs() > 1e-6
        torch.testing.assert_close(
            weight[sure], expected[name][sure], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert (weight - expected[name]).abs().max() <= 0.0021 * max(1e-3, float(expected[name].square().mean().sqrt()))


def test_adafactor_matches_transformers() -> None:
    """Factored and unfactored tensors over several steps against the published implementation."""
    optimization = pytest.importorskip("transformers.optimization")
    if not hasattr(optimization, "Adafactor"):
        pytest.skip("this transformers has no Adafactor")
    torch.manual_seed(0)
    ours = {"matrix": torch.randn(130, 140), "vector": torch.randn(150)}
    theirs = [torch.nn.Parameter(t.clone()) for t in ours.values()]
    reference = optimization.Adafactor(
        theirs,
        lr=0.01,
        scale_parameter=True,
        relative_step=False,
        warmup_init=False,
        clip_threshold=1.0,
        weight_decay=0.0,
    )
    optimizer = FactoredAdafactor(ours, rate=0.01)
    assert [factored(t.shape) for t in ours.values()] == [True, False]
    for step in range(5):
        gradients = {name: torch.randn_like(t) * (step + 1) for name, t in ours.items()}
        for parameter, gradient in zip(theirs, gradients.values(), strict=True):
            parameter.grad = gradient.clone()
        reference.step()
        optimizer.step(step, gradients)
        for tensor, parameter in zip(ours.values(), theirs, strict=True):
            torch.testing.assert_close(tensor, parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["t5", "encdec", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_backbone_is_not_touched(kind: str, dtype: torch.dtype) -> None:
    backbone = tiny_backbone(kind, dtype=dtype)
    before = backbone.weights_digest()
    rates = [m.p for m in backbone.hf_model.modules() if isinstance(m, torch.nn.Dropout)]
    result = tune_model(backbone, a_run(backbone), SETTINGS)
    assert backbone.weights_digest() == before
    assert [m.p for m in backbone.hf_model.modules() if isinstance(m, torch.nn.Dropout)] == rates
    assert not any(p.requires_grad or p.grad is not None for p in backbone.hf_model.parameters())
    assert not backbone.hf_model.training
    assert result.status == "done"
    assert result.tuned_parameters == backbone.parameter_count
    assert all(t.dtype == torch.float32 for t in result.best.values())
    changed = [
        not torch.equal(t, dict(backbone.hf_model.named_parameters())[n].float()) for n, t in result.best.items()
    ]
    assert sum(changed) > len(changed) // 2


def test_masters_keep_what_bfloat16_loses() -> None:
    """Steps far smaller than bfloat16's spacing add up in float32 masters."""
    backbone = tiny_backbone("t5", dtype=torch.bfloat16)
    settings = SETTINGS.having(steps=8, learning_rate=1e-4, eval_every=8)
    result = tune_model(backbone, a_run(backbone), settings)
    start = {n: p.detach().float() for n, p in backbone.hf_model.named_parameters()}
    moved = {n: (t - start[n]).abs().max() for n, t in result.best.items()}
    assert all(0 < m < 2e-3 for m in moved.values())
    rounded = {n: t.to(torch.bfloat16).float() for n, t in result.best.items()}
    assert any(not torch.equal(t, rounded[n]) for n, t in result.best.items())


@pytest.mark.parametrize("kind", ["t5", "encdec"])
def test_tuned_weights_reach_the_evaluator(kind: str) -> None:
    """The backbone that evaluates computes what the tuned model does, and the frozen one is not touched."""
    backbone = tiny_backbone(kind)
    batch = random_batch(backbone, 3)
    before = backbone.example_losses(batch, None).nll_B
    live = LiveModel(backbone)
    for _ in range(2):  # the second time, tuning has gone on from the first evaluation
        live.load({n: m + 0.05 * torch.randn_like(m) for n, m in live.copies().items()})
        with live.evaluating() as other:
            tuned = other.example_losses(batch, None).nll_B
        torch.testing.assert_close(tuned, live.losses(batch).nll_B.detach(), rtol=1e-4, atol=1e-4)
        assert (tuned - before).abs().max() > 1e-3
        assert all(p.requires_grad for p in live.module.parameters())
    assert torch.equal(backbone.example_losses(batch, None).nll_B, before)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_checkpointing_and_micro_batches_change_nothing(kind: str) -> None:
    backbone = tiny_backbone(kind)
    run = a_run(backbone)
    results = []
    for checkpointing, micro in ((False, 0), (True, 0), (False, 20)):
        settings = SETTINGS.having(checkpointing=checkpointing, micro_batch_tokens=micro, dropout=0.0, steps=2)
        results.append(tune_model(backbone, run, settings, keep_final=True).last)
    for other in results[1:]:
        for name, weight in results[0].weights.items():
            # one odd sign of a tiny gradient moves an entry by two steps
            assert (weight - other.weights[name]).abs().mean() < 1e-4, name


def test_a_step_on_a_cpu_is_made_in_passes_of_like_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little of it is padding; evaluation, and a number that the user names, stay as they are."""
    backbone = tiny_backbone("llama")
    run = a_run(backbone)
    tuning = Tuning(backbone, LiveModel(backbone), run, SETTINGS, None)
    named = Tuning(backbone, LiveModel(backbone), run, SETTINGS.having(micro_batch_tokens=4096), None)
    assert (tuning.pass_tokens, named.pass_tokens) == (512, 4096)
    assert tuning.micro_tokens == named.micro_tokens == 4096  # evaluation takes twice as many
    tuning.micro_tokens, widths = 20, []
    micro_batch = tuning._micro_batch
    monkeypatch.setattr(
        tuning, "_micro_batch", lambda pairs, *rest: (widths.append([len(i) for i, _ in pairs]), micro_batch(pairs, *rest))[1]
    )  # fmt: skip
    tuning.step()
    assert len(widths) > 1
    assert all(len(width) * max(width) <= 20 for width in widths if len(width) > 1)
    assert all(min(one) >= max(next_) for one, next_ in pairwise(widths))


@pytest.mark.parametrize("kind", ["t5", "encdec", "llama"])
def test_checkpointing_is_turned_on_without_a_word(kind: str) -> None:
    backbone = tiny_backbone(kind)
    before = backbone.hf_model.config.to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live = LiveModel(backbone, checkpointing=True)
    parts = list(live.module.modules())
    assert any(getattr(part, "gradient_checkpointing", False) for part in parts)
    assert not any(getattr(getattr(part, "config", None), "use_cache", False) for part in parts)
    assert backbone.hf_model.config.to_dict() == before
    assert not any(getattr(part, "gradient_checkpointing", False) for part in backbone.hf_model.modules())


def test_dropout_with_checkpointing_draws_the_same_masks() -> None:
    backbone = tiny_backbone("t5")
    run = a_run(backbone)
    plain = tune_model(backbone, run, SETTINGS.having(steps=2, dropout=0.3), keep_final=True)
    again = tune_model(backbone, run, SETTINGS.having(steps=2, dropout=0.3, checkpointing=True), keep_final=True)
    assert plain.curve[-1]["loss"] == pytest.approx(again.curve[-1]["loss"], rel=1e-4)


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise StopError

    backbone = tiny_backbone("t5", dtype=torch.bfloat16)
    run = a_run(backbone)
    whole = tune_model(backbone, run, SETTINGS, tmp_path / "whole", keep_final=True)
    with pytest.raises(StopError):
        tune_model(backbone, run, SETTINGS, tmp_path / "part", keep_final=True, observer=stop)
    digest = backbone.weights_digest()
    resumed = tune_model(backbone, run, SETTINGS, tmp_path / "part", keep_final=True, resume=True)
    assert backbone.weights_digest() == digest
    assert whole.last is not None
    assert resumed.last is not None
    for name, weight in whole.last.weights.items():
        assert torch.equal(weight, resumed.last.weights[name])
    for name, moment in whole.last.moments.items():
        assert torch.equal(moment, resumed.last.moments[name])
    assert whole.scores == resumed.scores
    assert [r["loss"] for r in whole.curve] == [r["loss"] for r in resumed.curve]
    assert not (tmp_path / "part" / "checkpoints").exists()
    loaded = load_tuned(tmp_path / "part")
    assert loaded.plain() == resumed.plain()
    job = EvalJob(run=0, task=run.task, split=run.validation)
    assert rescored(LiveModel(backbone), loaded.best, job) == loaded.scores
    assert backbone.weights_digest() == digest


def test_multitask_with_one_task_equals_single_task() -> None:
    backbone = tiny_backbone("t5")
    data = small_data(backbone)
    alone = tune_model(backbone, data.run("animals", 0), SETTINGS, keep_final=True)
    mixture = mixture_run("animals", 0, [data], [1.0], validated_on=data)
    first, _ = tune_multitask(backbone, mixture, [], SETTINGS, SETTINGS)
    assert alone.last is not None
    assert first.last is not None
    for name, weight in alone.last.weights.items():
        assert torch.equal(weight, first.last.weights[name])


@pytest.mark.parametrize("carry", [True, False])
def test_multitask_goes_on_from_the_mixture(carry: bool, tmp_path: Path) -> None:
    backbone = tiny_backbone("t5")
    parts = [small_data(backbone, "animals"), small_data(backbone, "birds")]
    mixture = mixture_run("mix", 0, parts, [2.0, 1.0], validated_on=parts[0])
    target = a_run(backbone, "fish")
    first, (tuned,) = tune_multitask(
        backbone, mixture, [target], SETTINGS, SETTINGS, tmp_path / "multi", carry_optimizer=carry
    )
    assert first.last is not None
    start = first.last if carry else ModelState(weights=first.last.weights)
    again = tune_model(backbone, target, SETTINGS, start=start)
    for name, weight in again.best.items():
        assert torch.equal(weight, tuned.best[name])
    other = tune_model(
        backbone, target, SETTINGS, start=ModelState(weights=first.last.weights) if carry else first.last
    )
    assert any(not torch.equal(weight, other.best[name]) for name, weight in again.best.items())


@pytest.mark.slow
def test_multitask_goes_on_in_the_stage_that_was_stopped(tmp_path: Path) -> None:
    backbone = tiny_backbone("t5")
    parts = [small_data(backbone, "animals"), small_data(backbone, "birds")]
    mixture = mixed_run("mixture", 0, parts, [2.0, 1.0], SETTINGS)
    targets = [a_run(backbone, "fish"), a_run(backbone, "cats")]
    _, whole = tune_multitask(backbone, mixture, targets, SETTINGS, SETTINGS, tmp_path / "whole")
    seen: list[int] = []

    def stop_in_the_second_target(progress: Progress) -> None:
        seen.append(progress.step)
        if len(seen) == 11:  # four steps on the mixture, four on the first target, two validated ones on the second
            raise RuntimeError("killed")

    part = tmp_path / "part"
    with pytest.raises(RuntimeError, match="killed"):
        tune_multitask(backbone, mixture, targets, SETTINGS, SETTINGS, part, observer=stop_in_the_second_target)
    seen.clear()
    _, again = tune_multitask(
        backbone, mixture, targets, SETTINGS, SETTINGS, part, resume=True, observer=lambda p: seen.append(p.step)
    )
    assert seen == [3, 4]
    for one, other in zip(whole, again, strict=True):
        assert one.scores == other.scores
        assert all(torch.equal(weight, other.best[name]) for name, weight in one.best.items())


def test_batches_are_counted_in_tokens() -> None:
    backbone = tiny_backbone("t5")
    run = a_run(backbone)
    stream = TokenStream(run, 60)
    seen = []
    for _ in range(12):
        picks = stream.take()
        size = sum(int(run.train[p].input_lengths[r] + run.train[p].target_lengths[r]) for p, r in picks)
        assert 0 < size <= 60
        seen.append(picks)
    again = TokenStream(run, 60)
    for picks in seen[:5]:
        assert again.take() == picks
    later = TokenStream(run, 60)
    later.load(again.state())
    assert [later.take() for _ in range(7)] == seen[5:]
    rows = [pick for picks in seen for pick in picks]
    assert sorted(rows[: len(run.train[0])]) == [(0, i) for i in range(len(run.train[0]))]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    backbone = tiny_backbone("t5")
    run = a_run(backbone)
    longest = int(np.max(run.train[0].input_lengths + run.train[0].target_lengths))
    with pytest.raises(UsageError, match=f"a batch of {longest - 1} tokens was asked for, and row animals/train/"):
        tune_model(backbone, run, SETTINGS.having(batch_tokens=longest - 1))
    tune_model(backbone, run, SETTINGS, tmp_path / "run")
    with pytest.raises(UsageError, match=r"already holds another run \(settings.learning_rate"):
        tune_model(backbone, run, SETTINGS.having(learning_rate=0.5), tmp_path / "run", resume=True)
    with pytest.raises(UnknownNameError, match="learning_rate"):
        SETTINGS.having(learning_rat=1)
    with pytest.raises(UsageError, match="dropout must be in"):
        TuneSettings(steps=1, dropout=1.0)
    with pytest.raises(UsageError, match="in a single process; start it with torchrun"):
        tune_model(backbone, run, SETTINGS.having(sharded=True))
    with pytest.raises(UsageError, match="Adafactor alone"):
        SETTINGS.having(sharded=True, optimizer="adamw")
    with pytest.raises(UnknownNameError, match="model-tuning"):
        tune_recipe("model_tuning")


def test_resume_from_another_methods_run_is_refused(tmp_path: Path) -> None:
    from tests.support.small_tasks import SETTINGS as PROMPT_SETTINGS

    from softprompt.prompts.stack import PromptStack
    from softprompt.training.loop import train_prompts

    backbone = tiny_backbone("t5")
    run = a_run(backbone)
    prompts = PromptStack(torch.randn(1, 3, backbone.hidden_size), tuned=True)
    train_prompts(backbone, prompts, [run], PROMPT_SETTINGS.having(steps=1, eval_every=1), tmp_path / "run")
    with pytest.raises(UsageError, match="method is None, asked for 'model tuning'"):
        tune_model(backbone, run, SETTINGS, tmp_path / "run", resume=True)


def test_recipes_say_what_the_paper_says() -> None:
    paper = TUNE_RECIPES["model-tuning"]()
    assert (paper.batch_tokens, paper.learning_rate, paper.dropout, paper.parameter_scaling) == (
        65536,
        0.001,
        0.1,
        True,
    )
    assert (paper.steps, TUNE_RECIPES["model-tuning-30k"]().steps) == (262_144, 30_000)
