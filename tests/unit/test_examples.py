"""The scripts of examples/ run as they are, on a short training."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


def test_own_data_goes_from_a_frame_to_answers(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(repo / "examples" / "own_data.py"))
    example["main"](steps=4, eval_every=2, batch_size=4, prompt_length=4)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "<Task reviews: 2 labels, accuracy>"
    assert "validation rows of reviews, most frequent label" in out[1]
    assert [set(eval(line[line.index("{") :])) for line in out[2:4]] == [{"bad", "good"}] * 2
    assert out[4] == "<StoredPrompt reviews@1 in runs/own_data/library> serves with: softprompt serve runs/own_data"
    assert (tmp_path / "runs/own_data/peft/adapter_model.safetensors").is_file()
