"""Every method keeps one contract, and one guard judges them all on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.small_tasks import SETTINGS, small_data, small_sharpt, small_task

from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError
from softprompt.methods.deliver import deliver
from softprompt.methods.few_shot import DesignSettings
from softprompt.methods.method import Method, Target, Work, halved
from softprompt.methods.model_tuning import ModelTuning
from softprompt.methods.prompt_design import PromptDesign
from softprompt.methods.prompt_tuning import PromptTuning
from softprompt.training.settings import TuneSettings
from softprompt.training.weights.lora import LoraSettings

TUNE = TuneSettings(steps=2, batch_tokens=60, eval_every=2, eval_rows=0, max_input_tokens=32, max_target_tokens=8)


METHODS: dict[str, Callable[[Backbone], Method]] = {
    "scratch": lambda backbone: PromptTuning(SETTINGS),
    "generic": lambda backbone: PromptTuning(
        SETTINGS, prompt_PH=torch.randn(3, backbone.hidden_size), source="mnli@0", name="generic"
    ),
    "sharpt": small_sharpt,
    "model_tuning": lambda backbone: ModelTuning(TUNE),
    "lora": lambda backbone: ModelTuning(TUNE.having(optimizer="adamw"), lora=LoraSettings(rank=2)),
    "prompt_design": lambda backbone: PromptDesign(DesignSettings(shots=2)),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_chooses_on_one_half_and_reports_on_the_other(name: str) -> None:
    backbone = tiny_backbone("t5")
    before = backbone.weights_digest()
    method = METHODS[name](backbone)
    assert method.name == name
    data = method.encode(backbone, small_task("birds", validation=9))
    select, report = halved(data)
    assert not set(select) & set(report)
    result = method.run(Work(backbone=backbone), Target(data=data, select=select, report=report), [0, 1])
    assert (result.strategy, result.runs, len(result.results)) == (name, 2, 2)
    assert result.chosen.evidence["report_rows"] == len(report) == len(result.chosen.predictions)
    assert result.chosen.evidence["select_rows"] == len(select)
    assert result.select_score == max(r.best_score for r in result.results)
    gold = [data.validation.examples[int(row)].targets for row in report]
    right = sum(a == b for a, b in zip(result.chosen.predictions, gold, strict=True))
    assert result.score == pytest.approx(100 * right / len(gold))
    assert (result.tuned > 0) == (name != "prompt_design")
    assert method.plain()
    assert backbone.weights_digest() == before


@pytest.mark.slow
def test_all_methods_are_judged_by_one_guard(tmp_path: Path) -> None:
    backbone = tiny_backbone("t5")
    methods = [make(backbone) for make in METHODS.values()]
    found = deliver(
        backbone,
        small_task("birds", validation=12),
        methods,
        work=Work(backbone=backbone, folder=tmp_path, resume=True),
    )
    assert [result.strategy for result in found.results] == list(METHODS)
    assert found.results[0].versus_scratch is None
    for result in found.results[1:]:
        assert result.versus_scratch is not None
        assert result.versus_scratch["rows"] == 6
    assert found.result.strategy == found.delivered
    assert found.delivered in found.verdict or "scratch" in found.verdict
    again = deliver(
        backbone,
        small_task("birds", validation=12),
        methods,
        work=Work(backbone=backbone, folder=tmp_path, resume=True),
    )
    assert [r.score for r in again.results] == [r.score for r in found.results]


def test_two_rows_are_the_least_to_choose_and_to_report() -> None:
    with pytest.raises(UsageError, match="1 validation rows; choosing and reporting need two"):
        halved(small_data(tiny_backbone("t5"), "birds", validation=1))
