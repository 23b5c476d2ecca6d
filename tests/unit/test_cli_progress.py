"""Progress away from a terminal: lines on standard error, few and short."""

from __future__ import annotations

from typing import Any

import pytest

from softprompt import waits
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
    with progress.waiting():
        waits.tell("evaluating", 3, 9)
    assert capsys.readouterr().err == "evaluating: 3 of 9\n"


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
    monkeypatch.setattr(waits, "DELAY", 0.0)
    with progress.waiting(), progress.training("training") as observe:
        observe(Progress(step=2, steps=4, active=1))
        waits.tell("answering rows", 3, 8)
        observe(Progress(step=3, steps=4, active=1))
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "answering rows" in shown
    assert "3/8" in shown


def test_a_training_that_ends_early_leaves_no_bar() -> None:
    told = []
    with waits.heard(lambda *wait: told.append(wait)), progress.training("training") as observe:
        observe(Progress(step=2, steps=9, active=1))
    assert told == [("training", 2, 9), ("training", 9, 9)]


def test_every_command_shows_its_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.cli import app

    heard = []
    made = app._with_common_flags(lambda: heard.append(waits.listened()) or app.Answer(data={}))
    made(json=False, debug=False, help_all=False)
    assert heard == [True]
