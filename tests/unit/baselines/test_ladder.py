"""The ladder of model sizes: cells run once, averages over the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.models import save_tiny
from tests.unit.methods.sharpt.small_tasks import SETTINGS, small_task

from softprompt.backbones.load import load_backbone
from softprompt.baselines.ladder import Cell, Method, Outcome, climb, figure_series, ladder_names
from softprompt.baselines.ladder_methods import (
    lora_method,
    model_tuning_method,
    prompt_design_method,
    prompt_tuning_method,
)
from softprompt.errors import Interrupted, UnknownNameError, UsageError
from softprompt.methods.few_shot import DesignSettings
from softprompt.training.weights.lora import LoraSettings
from softprompt.training.weights.settings import TuneSettings

TUNE = TuneSettings(steps=2, batch_tokens=60, eval_every=2, eval_rows=0, max_input_tokens=32, max_target_tokens=8)


def test_three_sizes_and_three_methods(tmp_path: Path) -> None:
    sizes = [str(save_tiny("t5", tmp_path / f"size-{w}", width=w)) for w in (16, 24, 32)]
    methods = {
        "prompt-tuning": prompt_tuning_method(SETTINGS.having(steps=2, eval_every=2)),
        "model-tuning": model_tuning_method(TUNE),
        "prompt-design": prompt_design_method(DesignSettings(shots=2)),
    }
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        return load_backbone(name, dtype="float32")

    tasks = [small_task("animals"), small_task("birds")]
    first = climb(sizes, tasks[:1], methods, tmp_path / "out", load=load, seeds=[0]).records
    assert len(first) == 9
    assert loaded == sizes
    assert not list((tmp_path / "out").rglob("best.safetensors"))  # tuned models are not kept
    assert len(list((tmp_path / "out").rglob("model-tuning-animals-0/result.json"))) == 3
    told: list[Any] = []
    records = climb(sizes, tasks, methods, tmp_path / "out", load=load, seeds=[0], tell=told.append).records
    assert len(records) == 18
    assert {r["task"] for r in told} == {"birds"}
    loaded.clear()
    assert climb(sizes, tasks, methods, tmp_path / "out", load=load, seeds=[0]).records == records
    assert loaded == []
    series = figure_series(records)
    assert set(series) == set(methods)
    for method, points in series.items():
        assert [p[0] for p in points] == sorted({r["parameters"] for r in records}), method
        assert all(0 <= p[1] <= 100 and p[2] is None for p in points)
    tuned = {r["method"]: r["tuned_parameters"] for r in records if r["backbone"] == sizes[0]}
    assert tuned["prompt-tuning"] == 3 * 16
    assert tuned["model-tuning"] == records[0]["parameters"]
    assert tuned["prompt-design"] == 0
    assert all(r["data"]["train"] == tasks[r["task"] == "birds"].split("train").fingerprint for r in records)
    assert all(
        r["seconds"] > 0 and r["peak_bytes"] > 0 and r["stored_bytes"] == 4 * r["tuned_parameters"] for r in records
    )


def test_averages_are_over_the_same_tasks() -> None:
    def record(task: str, seed: int, score: float, backbone: str = "b", parameters: int = 10) -> dict[str, Any]:
        return {
            "backbone": backbone,
            "parameters": parameters,
            "task": task,
            "method": "m",
            "seed": seed,
            "score": score,
        }

    records = [record("a", 0, 10), record("b", 0, 30), record("a", 1, 30), record("b", 1, 50), record("a", 2, 99),
               record("a", 0, 70, "small", 5), record("b", 0, 80, "small", 5)]  # fmt: skip
    ((small, mean, spread), (large, average, deviation)) = figure_series(records)["m"]
    assert (small, mean, spread) == (5, 75, None)
    assert (large, average) == (10, 30)
    assert deviation == pytest.approx(2**0.5 * 10)


def test_a_method_of_another_room_can_be_given(tmp_path: Path) -> None:
    folder = str(save_tiny("t5", tmp_path / "tiny"))

    def constant(cell: Cell) -> Outcome:
        assert cell.folder.is_relative_to(tmp_path / "out")
        return Outcome(score=50.0 + cell.seed, tuned=7, seconds=2.5)

    records = climb(
        [folder], [small_task()], {"mine": Method(run=constant)}, tmp_path / "out", load=load_backbone, seeds=[1, 2],
        command="softprompt ladder ...",
    ).records  # fmt: skip
    assert {(r["seconds"], r["command"]) for r in records} == {(2.5, "softprompt ladder ...")}
    assert [r["score"] for r in records] == [51.0, 52.0]
    assert records[0]["stored_bytes"] == 28


def test_a_cell_that_cannot_be_made_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    folder = str(save_tiny("t5", tmp_path / "tiny"))
    methods = {
        "prompt-design": prompt_design_method(DesignSettings(shots=99)),
        "lora": lora_method(TUNE, LoraSettings(rank=2)),
    }
    found = climb([folder], [small_task()], methods, tmp_path / "out", load=load_backbone, seeds=[0])
    assert [r["method"] for r in found.records] == ["lora"]
    assert 0 < found.records[0]["tuned_parameters"] < found.records[0]["parameters"]
    ((cell, why),) = found.failed.items()
    assert cell.startswith("prompt-design on ")
    assert "99 examples were asked for" in why


def test_unlike_cells_are_not_mixed(tmp_path: Path) -> None:
    """Other settings, other rows, and another backbone under the same name are refused before anything is trained."""
    folder = str(save_tiny("t5", tmp_path / "tiny"))
    ran: list[int] = []

    def count(cell: Cell) -> Outcome:
        ran.append(cell.seed)
        return Outcome(score=1.0, tuned=1)

    def again(steps: int = 3, **change: Any) -> Any:
        mine = {"mine": Method(run=count, settings={"steps": steps, "shape": (1, 2)})}
        asked = {"backbones": [folder], "tasks": [small_task()], "seeds": [0], **change}
        return climb(methods=mine, folder=tmp_path / "out", load=load_backbone, **asked)

    again()
    again()
    assert ran == [0]
    with pytest.raises(UsageError, match=r"ran mine with other settings \(steps: 3 there, 4 now\)"):
        again(steps=4)
    with pytest.raises(UsageError, match="ran animals with other data"):
        again(train_rows=5, seeds=[0, 1])
    save_tiny("t5", tmp_path / "tiny", seed=9)
    with pytest.raises(UsageError, match="another backbone under the name"):
        again(seeds=[0, 1])
    assert ran == [0]


def test_a_stopped_ladder_says_how_to_go_on(tmp_path: Path) -> None:
    folder = str(save_tiny("t5", tmp_path / "tiny"))

    def stopped(cell: Cell) -> Outcome:
        raise Interrupted("stopped at step 3")

    with pytest.raises(Interrupted, match="run the same command again to go on"):
        climb([folder], [small_task()], {"m": Method(run=stopped)}, tmp_path / "out", load=load_backbone)


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one backbone"):
        climb([], [], {}, tmp_path, load=lambda n: load_backbone(n))
    with pytest.raises(UnknownNameError, match="t5-lm-adapted"):
        ladder_names("t5-lm")
    assert len(ladder_names("t5-1.1")) == 5
    assert ladder_names("sharpt-sizes") == ladder_names("t5-lm-adapted")[1:4]  # SharPT Figure 2: base, large and XL
