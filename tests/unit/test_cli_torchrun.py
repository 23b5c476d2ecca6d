"""Commands that train prompts under ``torchrun`` with a sharded backbone: one answer, and the scores of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

from softprompt.library.store import Library

SHARDED = ("--sharded", "--checkpointing")
COMMON = ("--data", "data", "--backbone", "t5", "--dtype", "float32", "--device", "cpu", "--steps", "4", "--batch-size", "3",
          "--set", "eval_every=2")  # fmt: skip


def launched(folder: Path, *words: str) -> dict[str, Any]:
    """What a command of two processes prints."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "softprompt",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, *words, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)  # one document: the other process is silent
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a tiny backbone and two tasks."""
    save_tiny("t5", tmp_path / "t5", width=32)
    make_tasks(tmp_path / "data", "mood", "films")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_space_is_learned_and_adapted_in_shards(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ("sharpt", "train", "--sources", "mood,films", *COMMON, "--encoder", "backbone", "--prompt-length", "3",
             "--skills", "3")  # fmt: skip
    adapt = ("sharpt", "adapt", "--task", "films", "--seeds", "0,1", *COMMON)
    code, out, err = call(capsys, *train, "--out", "alone", "--json")
    assert code == 0, err
    (one,) = json.loads(out)["spaces"]
    (two,) = launched(place, *train, "--out", "both", "--cache", "encodings", *SHARDED)["spaces"]
    assert two["score"] == pytest.approx(one["score"])
    code, out, err = call(capsys, *adapt, "--space", "both/space", "--out", "adapted-alone", "--json")
    assert code == 0, err
    asked = (*adapt, "--space", "both/space", "--out", "adapted-both", "--cache", "encodings", *SHARDED)
    together = launched(place, *asked)["prompts"]
    assert [p["score"] for p in together] == pytest.approx([p["score"] for p in json.loads(out)["prompts"]])
    assert sorted(p.name for p in Path("adapted-both").iterdir()) == ["films-seed0", "films-seed1", "run"]


@pytest.mark.slow
def test_a_transfer_in_shards_keeps_one_prompt(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        "train",
        "--task",
        "mood",
        *COMMON,
        "--prompt-length",
        "3",
        "--set",
        "embedding_step=2",
        "--library",
        "lib",
    )
    code, _, err = call(capsys, *source, "--out", "source")
    assert code == 0, err
    asked = ("transfer", "--task", "films", "--library", "lib", *COMMON, "--prompt-length", "3", "--set", "embedding_step=2",
             "--k", "1", "--embedding-runs", "1", "--strategies", "best_of_top_k")  # fmt: skip
    code, out, err = call(capsys, *asked, "--out", "alone", "--json")
    assert code == 0, err
    (one,) = json.loads(out)["targets"]
    (two,) = launched(place, *asked, "--out", "both", "--keep", *SHARDED)["targets"]
    scores = [[outcome["score"] for outcome in found["outcomes"]] for found in (one, two)]
    assert scores[0] == pytest.approx(scores[1])
    assert sorted(entry.task for entry in Library(place / "lib").list()) == ["films", "mood"]


@pytest.mark.slow
def test_weights_are_tuned_in_shards_and_gone_on_with(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("model-tune", "--task", "films", "--data", "data", "--backbone", "t5", "--dtype", "float32", "--device", "cpu",
             "--steps", "4", "--batch-tokens", "64", "--set", "eval_every=2", "--set", "dropout=0")  # fmt: skip
    code, out, err = call(capsys, *asked, "--out", "alone", "--json")
    assert code == 0, err
    one, two = json.loads(out), launched(place, *asked, "--out", "both", *SHARDED)
    losses = [[record["loss"] for record in found["curve"]] for found in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert two["tuned_parameters"] == one["tuned_parameters"]  # of all processes together
    assert launched(place, *asked, "--out", "both", "--resume", *SHARDED)["curve"] == two["curve"]
