"""The tutorial's ten commands, in order, as they stand on the page: slow on the embedded backbone, fast on a tiny one."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.support.cli import call
from tests.support.models import save_tiny

SMALL = ("--steps", "2", "--batch-size", "2", "--prompt-length", "2", "--set", "eval_every=2", "--set", "eval_rows=4")


def commands(page: Path) -> list[list[str]]:
    """The words behind ``$ softprompt`` of each line of the console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [shlex.split(line)[2:] for block in blocks for line in block.splitlines()]


@pytest.fixture
def place(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(repo / "examples" / "reviews.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_a_path_of_ten_commands(repo: Path) -> None:
    asked = commands(repo / "docs" / "tutorial.md")
    assert [words[0] for words in asked] == [
        "doctor", "tasks", "tasks", "train", "predict", "eval", "search", "transfer", "library", "serve",
    ]  # fmt: skip
    first = re.findall(r"^```console\n(.*?)^```$", (repo / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    shown = [shlex.split(line)[2:] for line in first[0].splitlines() if line.startswith("$")]
    assert [words[:2] for words in shown] == [
        ["train", "reviews.csv"],
        ["predict", "runs/reviews"],
        ["serve", "runs/reviews"],
    ]


def test_the_commands_run_in_their_order_on_a_tiny_backbone(
    repo: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read, tuned and kept by one command is what the next one names; no flag of a backbone is given after training."""
    from softprompt.library import released
    from softprompt.library.store import Library

    save_tiny("t5", place / "t5", width=16, layers=1)
    few = ("--train-rows", "8", "--validation-rows", "8", "--backbone", "t5", "--dtype", "float32", *SMALL)
    source = call(capsys, "train", "gen_sentiment_film", "--library", "of-others", "--set", "embedding_step=2", *few)
    assert source[0] == 0, source[2]
    monkeypatch.setattr(released, "released_library", lambda *_: Library("of-others"))
    more = {
        "train": few, "predict": ("--dtype", "float32"), "eval": ("--dtype", "float32", "--max-rows", "8"),
        "search": ("--seeds", "1", "--train-rows", "8", "--prompt-length", "2", "--set", "steps=2", "--set", "embedding_step=2"),
        "transfer": (*few, "--set", "embedding_step=2", "--k", "1", "--embedding-runs", "1"),
    }  # fmt: skip
    for words in commands(repo / "docs" / "tutorial.md"):
        if words[0] in ("doctor", "serve"):
            continue
        shorter = re.sub(r" --steps \d+", "", shlex.join(words))
        code, out, err = call(capsys, *shlex.split(shorter), *more.get(words[0], ()))
        assert code == 0, err
        if words[0] == "search":
            assert "gen_sentiment_film@1" in out
    assert (place / "reviews-peft" / "adapter_model.safetensors").is_file()
    assert len(Library("runs/transfer-reviews/library")) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_as_printed_on_the_embedded_backbone(
    repo: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = repo / "docs" / "tutorial.md"
    *asked, serve = commands(page)
    for words in asked:
        code, out, err = call(capsys, *words)
        assert code == 0, err
        if words[0] == "eval":
            with open("answers.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            right = sum(row["prediction"] == row["label"] for row in rows)
            assert right > 1.1 * max(sum(row["label"] == label for row in rows) for label in ("positive", "negative"))
        if words[0] == "predict":
            assert out.splitlines() == ["positive", "negative"]
        if words[0] == "transfer":
            assert "delivered" in out
    # the request as the page has it, at a free port
    curl = next(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("curl "))
    body = shlex.split(curl)[-1]
    process = subprocess.Popen(
        [sys.executable, "-m", "softprompt", *serve, "--port", "0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address = next(found[1] for line in process.stderr if (found := re.search(r" at (http://\S+);", line)))
        request = urllib.request.Request(
            f"{address}/v1/completions", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            assert json.load(reply)["choices"][0]["label"] == "positive"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (0, 130)
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
