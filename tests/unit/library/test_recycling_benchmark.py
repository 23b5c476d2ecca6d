"""benchmarks/recycling.py at toy size: what it writes, and that its comparison is a fair one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.recycling import main, steps_needed, summary
from tests.cli import make_tasks
from tests.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library

RECIPE = {
    "steps": 9, "batch_size": 2, "prompt_length": 2, "optimizer": "adam", "learning_rate": 0.05, "eval_every": 4,
    "eval_rows": 0, "embedding_step": 2, "max_target_tokens": 4, "patience": 1, "train_rows": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recycling")
    save_tiny("t5", root / "old", width=16, layers=1)
    save_tiny("t5-gated-untied", root / "new", width=32, layers=1, seed=5)
    make_tasks(root / "data", "films", "music")
    old = load_backbone(str(root / "old"), dtype="float32")
    library = Library(root / "lib")
    for i, task in enumerate(("films", "music")):
        prompt = torch.randn(2, 16, generator=torch.Generator().manual_seed(i))
        library.add(
            PromptRecord(
                task=task, prompt=prompt, backbone_name="old", backbone_fingerprint=old.fingerprint,
                backbone_kind=old.kind, seed=3, recipe=RECIPE, scores={"score": 60.0},
            )
        )  # fmt: skip
    return root


def call(place: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, list[dict[str, object]], str]:
    asked = ["--library", str(place / "lib"), "--from", str(place / "old"), "--to", str(place / "new")]
    code = main([*asked, "--data", str(place / "data"), "--dtype", "float32", *more])
    told = capsys.readouterr()
    return code, [json.loads(line) for line in told.out.splitlines()], told.err


def test_every_start_of_every_prompt_is_scored_at_the_same_steps(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.jsonl"
    asked = ("--steps", "4", "--every", "2", "--control", "--out", str(out))
    code, records, err = call(place, capsys, *asked)
    assert code == 0, err
    *starts, last = records
    assert [(r["prompt"], r["start"]) for r in starts] == [
        (prompt, start) for prompt in ("films@3", "music@3") for start in ("cold", "linear", "nearest", "other")
    ]
    assert all(list(r["scores"]) == ["0", "2", "4"] for r in starts)
    assert {r["control"] for r in starts} == {"music@3", "films@3"}
    assert all((r["seed"], r["select_rows"], r["report_rows"]) == (3, 4, 4) for r in starts)
    assert all(r["settings"]["patience"] == 0 for r in starts)
    assert starts[0]["from"]["fingerprint"] != starts[0]["to"]["fingerprint"]
    assert "--control" in str(last["command"])
    found = last["differences_to_cold"]
    assert set(found) == {"linear", "nearest", "other"}
    wanted = sum(
        a["scores"]["4"] - b["scores"]["4"] for b, a in zip(starts[::4], starts[1::4], strict=True)
    ) / 2  # fmt: skip
    assert found["linear"]["gain_at_step"]["4"][0] == pytest.approx(wanted)
    # What the file holds is not made again: only the summary is new, and it is the same.
    code, again, _ = call(place, capsys, *asked)
    assert code == 0
    assert [r["kind"] for r in again] == ["summary"]
    assert again[0]["differences_to_cold"] == found
    assert len(out.read_text().splitlines()) == 10


def test_the_recorded_steps_are_taken_where_none_are_given(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, records, _ = call(place, capsys, "--prompts", "films@3", "--starts", "cold,linear")
    assert code == 0
    assert [list(r["scores"]) for r in records[:-1]] == [["0", "4", "8", "9"]] * 2


def test_wrong_requests_are_one_sentence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, records, err = call(place, capsys, "--starts", "linear")
    assert (code, records) == (2, [])
    assert "--starts takes cold" in err
    code, _, err = call(place, capsys, "--to", str(place / "old"))
    assert code == 2
    assert "made on" in err


def test_differences_are_paired_and_steps_compared() -> None:
    cold = {"prompt": "a@1", "start": "cold", "scores": {"0": 10.0, "5": 40.0, "10": 50.0}, "report_score": 48.0}
    warm = {"prompt": "a@1", "start": "linear", "scores": {"0": 30.0, "5": 50.0, "10": 45.0}, "report_score": None}
    alone = {"prompt": "b@1", "start": "linear", "scores": {"0": 99.0}, "report_score": 99.0}
    found = summary([cold, warm, alone])["linear"]
    assert found["prompts"] == 1
    assert {step: gain[0] for step, gain in found["gain_at_step"].items()} == {"0": 20.0, "5": 10.0, "10": -5.0}
    assert found["gain_reported"] is None
    assert steps_needed(cold, warm) == 0.5
    assert steps_needed(cold, {**warm, "scores": {"0": 1.0}}) != steps_needed(cold, warm)
