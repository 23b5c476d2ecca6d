"""LoRA through PEFT: what is tuned, what is evaluated, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import random_batch, tiny_backbone
from tests.support.small_tasks import rescored, small_data

from softprompt.errors import UsageError
from softprompt.inference.evaluate import EvalJob
from softprompt.training.loop import Progress
from softprompt.training.settings import TuneSettings
from softprompt.training.weights.lora import LoraModel, LoraSettings, tune_lora
from softprompt.training.weights.tune import tune_model

pytest.importorskip("peft")

SETTINGS = TuneSettings(
    steps=4, batch_tokens=60, eval_every=2, eval_rows=0, max_input_tokens=32, max_target_tokens=8, optimizer="adamw",
    learning_rate=0.05,
)  # fmt: skip


def a_run(backbone: Any) -> Any:
    return small_data(backbone).run("animals", 0)


@pytest.mark.parametrize("kind", ["t5", "encdec", "gpt2"])
def test_adapters_alone_are_tuned_and_the_backbone_comes_back(kind: str) -> None:
    backbone = tiny_backbone(kind)
    before = backbone.weights_digest()
    names = [name for name, _ in backbone.hf_model.named_modules()]
    result = tune_lora(backbone, a_run(backbone), SETTINGS, LoraSettings(rank=2))
    assert backbone.weights_digest() == before
    assert [name for name, _ in backbone.hf_model.named_modules()] == names
    assert result.tuned_parameters == sum(t.numel() for t in result.best.values())
    assert 0 < result.tuned_parameters < backbone.parameter_count / 4
    assert any("lora_B" in n and t.abs().max() > 0 for n, t in result.best.items())


@pytest.mark.parametrize("kind", ["t5", "encdec", "gpt2"])
def test_the_evaluator_sees_what_peft_computes(kind: str) -> None:
    backbone = tiny_backbone(kind)
    batch = random_batch(backbone, 4)
    plain = backbone.example_losses(batch, None).nll_B
    live = LoraModel(backbone, LoraSettings(rank=2), 0)
    live.load({n: 0.3 * torch.randn_like(m) for n, m in live.copies().items()})
    live.module.eval()
    expected = live.losses(batch).nll_B.detach()
    with live.evaluating() as tuned:
        found = tuned.example_losses(batch, None).nll_B
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backbone.example_losses(batch, None).nll_B, plain, rtol=0, atol=0)
    assert (found - plain).abs().max() > 1e-2


def test_resume_is_bit_exact_and_the_folder_evaluates(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise StopError

    backbone = tiny_backbone("t5")
    run = a_run(backbone)
    lora = LoraSettings(rank=2)
    whole = tune_lora(backbone, run, SETTINGS, lora, tmp_path / "whole")
    with pytest.raises(StopError):
        tune_lora(backbone, run, SETTINGS, lora, tmp_path / "part", observer=stop)
    resumed = tune_lora(backbone, run, SETTINGS, lora, tmp_path / "part", resume=True)
    assert all(torch.equal(t, resumed.best[n]) for n, t in whole.best.items())
    job = EvalJob(run=0, task=run.task, split=run.validation)
    assert rescored(LoraModel(backbone, lora, 0), resumed.best, job) == whole.scores
    with pytest.raises(UsageError, match="method is 'lora', asked for 'model tuning'"):
        tune_model(backbone, run, SETTINGS, tmp_path / "whole", resume=True)


def test_bad_shapes_are_refused() -> None:
    backbone = tiny_backbone("t5")
    with pytest.raises(UsageError, match="rank must be at least 1"):
        LoraSettings(rank=0)
    with pytest.raises(UsageError, match="LoRA cannot be put into tiny-t5"):
        tune_lora(backbone, a_run(backbone), SETTINGS, LoraSettings(targets=["no_such_layer"]))
    with pytest.raises(UsageError, match="only model tuning has: set sharded to false"):
        tune_lora(backbone, a_run(backbone), SETTINGS.having(optimizer="adafactor", sharded=True))
    assert not any("lora" in name for name, _ in backbone.hf_model.named_modules())
