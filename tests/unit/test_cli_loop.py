"""The short way on the command line: a csv is trained on, and its run's folder answers, is scored, ranked and served."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

SMALL = ("--steps", "2", "--batch-size", "2", "--prompt-length", "2", "--set", "eval_every=2", "--set", "eval_rows=4",
         "--dtype", "float32", "--backbone", "t5")  # fmt: skip
HERE = ("--backbone", "t5", "--dtype", "float32")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_tiny("t5", tmp_path / "t5", width=16, layers=1)
    make_tasks(tmp_path / "data", "films", "books")
    for name in ("films", "books"):
        (tmp_path / f"{name}.csv").write_bytes((tmp_path / "data" / name / "train.csv").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_csv_is_trained_on_and_its_run_is_a_place_of_prompts(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(capsys, "train", "films.csv", *SMALL)
    assert code == 0, err
    assert "validation rows" in out
    assert "the task embedding is the prompt at step 2, the last one" in out
    after = [shlex.split(line) for line in out.splitlines() if line.startswith("  softprompt ")]
    assert [words[1] for words in after] == ["predict", "eval", "serve"]
    for words in after[:2]:  # as printed, ready to paste
        assert words[2] == "runs/films"
        code, out, err = call(capsys, *words[1:], "--dtype", "float32")
        assert code == 0, err
    # texts on standard input
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good film\nbad film\n")))
    code, out, err = call(capsys, "predict", "runs/films", *HERE, "--json")
    assert code == 0, err
    answers = json.loads(out)
    assert answers["prompt"] == "films@1"
    assert [one["input"] for one in answers["predictions"]] == ["good film", "bad film"]
    code, out, err = call(capsys, "eval", "runs/films/library/films@1", "--task", "films.csv", *HERE, "--json")
    assert code == 0, err
    assert [row["prompt"] for row in json.loads(out)["results"]] == ["films@1"]
    # the run's folder is a library to search and to start from
    code, out, err = call(capsys, "search", "books.csv", "--library", "runs/films", "--seeds", "1", *SMALL[4:6],
                          "--set", "steps=4", "--set", "embedding_step=2", "--set", "batch_size=2", *HERE)  # fmt: skip
    assert code == 0, err
    assert "films@1" in out
    assert "softprompt transfer books.csv --library runs/films --keep --backbone t5" in out
    code, out, err = call(
        capsys, "transfer", "books.csv", "--library", "runs/films", "--k", "1", "--set", "embedding_step=2", *SMALL
    )
    assert code == 0, err
    assert "softprompt transfer books.csv --library runs/films --resume --keep" in out


def test_what_was_named_twice_or_not_at_all_is_said_before_anything_is_loaded(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("train",), ("train", "films.csv", "--task", "books.csv"), ("transfer", "--library", "data")):
        code, _, err = call(capsys, *words, "--backbone", "gone")
        assert (code, "name the task once" in err) == (2, True), err
    (place / "run" / "library").mkdir(parents=True)
    for words, said in (
        (("serve", "run"), "holds no prompt"),
        (("eval", "run", "--task", "films.csv"), "holds no prompt"),
        (("eval", "run", "--library", "data", "--task", "films.csv"), "name one of the two"),
        (("eval", "nowhere", "--task", "films.csv"), "there is no library at nowhere"),
    ):
        code, _, err = call(capsys, *words, "--backbone", "gone")
        assert (code, said in err) == (2, True), err


def test_a_text_that_is_no_place_is_a_text(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "predict", "data", *HERE, "--json")  # a folder without prompts
    assert code == 0, err
    assert [one["input"] for one in json.loads(out)["predictions"]] == ["data"]
