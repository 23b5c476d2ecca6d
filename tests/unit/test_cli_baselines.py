"""``model-tune``, ``prompt-design``, ``counts`` and prompt tuning from an instruction, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

HERE = ("--task", "films", "--data", "data", "--dtype", "float32")
T5 = (*HERE, "--backbone", "t5")
TUNE = ("model-tune", *T5, "--steps", "2", "--set", "eval_every=2", "--batch-tokens", "64", "--train-rows", "8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny backbones, one of them of 64 positions, and a task."""
    root = tmp_path_factory.mktemp("baselines")
    save_tiny("t5", root / "t5", width=16, layers=1)
    save_tiny("encdec", root / "short", width=16, layers=1, positions=64)
    make_tasks(root / "data", "films")
    return root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = call(capsys, *words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_memory_flags_change_how_weights_are_tuned_and_not_what_comes_out(capsys: pytest.CaptureFixture[str]) -> None:
    still = ("--set", "dropout=0")
    plain = asked(capsys, *TUNE, *still, "--out", "plain")
    saved = asked(capsys, *TUNE, *still, "--out", "saved", "--checkpointing", "--set", "micro_batch_tokens=16")
    settings = json.loads(Path("saved/run.json").read_text())["settings"]
    assert (settings["checkpointing"], settings["micro_batch_tokens"]) == (True, 16)
    assert saved["curve"][-1]["loss"] == pytest.approx(plain["curve"][-1]["loss"], rel=1e-4)
    rounded = asked(
        capsys, "model-tune", *HERE, "--backbone", "t5", "--dtype", "bfloat16", "--steps", "2", "--out", "bf16"
    )
    assert rounded["stored_bytes"] == 4 * rounded["tuned_parameters"]  # masters are kept in float32
    code, _, err = call(capsys, *TUNE, "--sharded", "--out", "shards")
    assert code == 2
    assert "start it with torchrun" in err


def test_a_run_of_another_method_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peft")
    asked(capsys, *TUNE, "--lora", "--rank", "2", "--out", "adapters")
    code, _, err = call(capsys, *TUNE, "--out", "adapters", "--resume")
    assert code == 2
    assert err.endswith("choose another folder, or repeat the settings it was started with.\n")
    assert "adapters already holds another run (method is 'lora', asked for 'model tuning'" in err


def test_prompts_start_from_an_instruction(capsys: pytest.CaptureFixture[str]) -> None:
    train = ("train", *T5, "--steps", "1", "--set", "eval_every=1", "--batch-size", "2", "--prompt-length", "6")
    asked(capsys, *train, "--learning-rate", "1e-9", "--init", "text", "--init-text", "good film", "--out", "text")
    from softprompt.backbones.load import load_backbone
    from softprompt.library.store import Library

    backbone = load_backbone("t5", dtype="float32")
    prompt_PH = Library("text/library").load("films@1", backbone)
    (ids,) = backbone.tokenize_inputs(["good film"])
    words_TH = backbone.embedding_table()[ids[:2]]
    assert ((prompt_PH[:, None] - words_TH).abs().amax(-1) < 1e-4).any(0).all()  # both words are in the prompt
    code, _, err = call(capsys, *train, "--init", "text", "--out", "nothing")
    assert code == 2
    assert "text" in err


def test_contexts_that_are_too_long_say_how_many_examples_fit(capsys: pytest.CaptureFixture[str]) -> None:
    design = ("prompt-design", *HERE, "--backbone", "short", "--max-rows", "2")
    code, _, err = call(capsys, *design, "--shots", "10")
    assert code == 2
    assert "a context of 10 examples of task 'films' is too long for the 64 tokens of short: " in err
    fits = int(err.split("tokens of short: ")[1].split(" ")[0])
    found = asked(capsys, *design, "--shots", "10", "--fit")["results"][0]
    assert len(found["examples"]) == fits < 10
    code, _, err = call(capsys, *design, "--shots", "1", "--label-word", "positive=good")
    assert code == 2
    assert "label 'negative' of task 'films' has no label word" in err


def test_words_stand_for_labels_and_calibration_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    design = ("prompt-design", *T5, "--shots", "2", "--max-rows", "4", "--instruction", "a film is good or bad")
    words = ("--label-word", "positive=good", "--label-word", "negative=bad")
    (plain,) = asked(capsys, *design, *words)["results"]
    (calibrated,) = asked(capsys, *design, *words, "--calibrated")["results"]
    assert {*plain["likelihood_predictions"], *calibrated["likelihood_predictions"]} <= {"positive", "negative"}
    assert plain["settings"]["label_words"] == {"positive": "good", "negative": "bad"}
    assert (plain["settings"]["calibrated"], calibrated["settings"]["calibrated"]) == (False, True)


def test_counts_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "counts", "--backbones", "t5-base,t5-xxl,t5")["counts"]
    rows = {(row["backbone"], row["method"]): row for row in found}
    assert round(rows["t5-xxl", "prompt-tuning"]["times_fewer"], -3) == 27_000
    assert round(rows["t5-base", "sharpt"]["percent"], 2) == 0.50
    assert rows["t5", "prompt-tuning"]["tuned"] == 100 * 16
    assert rows["t5", "model-tuning"]["percent"] == 100
    code, out, _ = call(capsys, "counts")
    assert code == 0
    assert "27186" in out
