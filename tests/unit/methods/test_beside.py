"""What stands beside a tuned prompt's score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny, tiny_backbone

from softprompt.inference.evaluate import EvalJob, evaluate
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.methods.beside import SHOTS, beside
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.training.data import task_data
from softprompt.training.recipes import recipe


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_majority_start_and_few_shot(kind: str, tmp_path: Path) -> None:
    make_tasks(tmp_path, "films")
    backbone, settings = tiny_backbone(kind), recipe("quick", prompt_length=3, eval_rows=6)
    data = task_data(backbone, load_task("films", tmp_path), settings)
    starts = [torch.randn(3, backbone.hidden_size) for _ in range(2)]
    found = beside(backbone, data, starts, settings)
    assert (found.rows, len(found.zero_step)) == (6, 2)
    assert 0 < found.shots <= SHOTS
    assert found.majority == 50.0, "half of the rows are positive"
    again = beside(backbone, data, starts[::-1], settings)
    assert again.zero_step == found.zero_step[::-1]
    assert again.few_shot == found.few_shot
    whole = beside(backbone, data, starts, settings.having(eval_rows=0))
    jobs = [EvalJob(run=n, task=data.task, split=data.validation) for n in range(2)]
    expected = evaluate(backbone, PromptStack.of(starts), jobs, max_target_tokens=settings.max_target_tokens)
    assert whole.rows == 8
    assert whole.zero_step == tuple(e.scores["score"] for e in expected)


def test_training_shows_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tasks(tmp_path / "data", "films")
    folder = save_tiny("t5", tmp_path / "model")
    code, out, err = call(
        capsys, "train", "--task", "films", "--data", str(tmp_path / "data"), "--backbone", str(folder), "--out",
        str(tmp_path / "run"), "--steps", "2", "--prompt-length", "3", "--set", "eval_every=1", "--set",
        "embedding_step=1", "--json",
    )  # fmt: skip
    assert code == 0, err
    (row,) = json.loads(out)["prompts"]
    assert row["majority"] == 50.0
    assert {row[name] is None for name in ("zero_step", "few_shot", "beside_rows")} == {False}
    manifest = json.loads((tmp_path / "run" / "library" / row["name"] / "manifest.json").read_text())
    assert manifest["recipe"]["beside"]["majority"] == 50.0
    assert isinstance(manifest["recipe"]["learning_rate"], float), "auto is saved as what it meant"


def test_a_prompt_that_learned_nothing_is_named(tmp_path: Path) -> None:
    def idle(score: float, **beside: float | None) -> str:
        record = PromptRecord(
            prompt=torch.zeros(2, 4), task="films", backbone_name="b", backbone_fingerprint=None, backbone_kind="causal",
            scores={"score": score}, recipe={"beside": beside},
        )  # fmt: skip
        return Library(tmp_path / "lib").add(record, replace=True).manifest.idle()

    assert "50.0 on films is no better than the most frequent label (50.0)" in idle(50.0, majority=50.0, zero_step=10.0)
    assert "no better than its start (60.0)" in idle(50.0, majority=None, zero_step=60.0)
    assert idle(70.0, majority=50.0, zero_step=10.0) == ""
    assert idle(70.0) == "", "not measured"
