"""Progress away from a terminal: lines on standard error, few and short."""

from __future__ import annotations

from typing import Any

import pytest

from softprompt.cli import progress
from softprompt.training.loop import Progress


def record(run: str, score: float, loss: float | None = 1.0) -> dict[str, Any]:
    return {"run": run, "score": score, "loss": loss, "step": 1}


def test_few_runs_are_told_one_by_one_and_many_together() -> None:
    assert (
        progress.validation_line([record("a", 50.0), record("b", 25.0, None)])
        == "a loss 1.000 score 50.0; b score 25.0"
    )
    many = [record(f"r{i}", 10.0 * i, 0.5) for i in range(6)]
    assert progress.validation_line(many) == "6 runs: mean loss 0.500, mean score 25.0 (0.0 to 50.0)"


def test_validations_are_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.training("training") as observe:
        observe(Progress(step=1, steps=4, active=1))
        observe(Progress(step=2, steps=4, active=1, records=[record("a", 50.0)]))
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err == "training: step 2 of 4, a loss 1.000 score 50.0\n"


def test_a_long_silence_is_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.counting("evaluating") as tell:
        tell(3, 9)
    assert capsys.readouterr().err == "evaluating: 3 of 9\n"


def test_scoring_has_a_count_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.training("training") as observe:
        observe(Progress(step=4, steps=9, active=1, rows=(30, 400)))
    assert capsys.readouterr().err == "training: scoring rows: 30 of 400\n"


def test_a_phase_says_how_many_runs_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.phases() as begin:
        observe = begin("first", 6)
        observe(Progress(step=1, steps=1, active=6, records=[record("a", 1.0)]))
        begin("race", 2)
    assert capsys.readouterr().err.splitlines() == [
        "scratch and task embeddings: 6 run(s) in one batch",
        "scratch and task embeddings: step 1 of 1, a loss 1.000 score 1.0",
        "race: 2 run(s) in one batch",
    ]


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.training("training") as observe:
        observe(Progress(step=2, steps=4, active=1))
        observe(Progress(step=2, steps=4, active=1, rows=(3, 8)))
        observe(Progress(step=4, steps=4, active=1))
    assert "training: scoring rows" in capsys.readouterr().err
