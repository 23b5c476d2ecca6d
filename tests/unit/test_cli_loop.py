"""The short way on the command line: a csv is trained on, and its run's folder answers, is scored, ranked and served."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from huggingface_hub import ModelCard
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.inference.catalogue import Catalogue
from softprompt.inference.engine import Engine
from softprompt.inference.guard import Limits
from softprompt.inference.http import make_app
from softprompt.library.store import Library

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
    after = next_of(err)
    assert [words[0] for words in after] == ["predict", "eval", "serve"]
    for words in after[:2]:  # as printed, ready to paste: the run's folder says which backbone, the flags are repeated
        assert words[1] == "runs/films"
        assert words[-2:] == ["--dtype", "float32"]
        code, out, err = call(capsys, *words)
        assert code == 0, err
        assert "backbone t5" in err
        assert next_of(err)[-1] == ["serve", "runs/films", "--dtype", "float32"]
    # the snippets of the prompt's card
    card = ModelCard.load("runs/films/library/films@1/README.md").text
    monkeypatch.chdir(place / "runs" / "films")
    (place / "runs" / "films" / "prompts").symlink_to("library")
    (place / "runs" / "films" / "t5").symlink_to(place / "t5")
    (shell,) = re.findall(r"```bash\n(.*?)```", card, flags=re.S)
    code, out, err = call(capsys, *shlex.split(shell)[1:], "--dtype", "float32")
    assert code == 0, err
    python = re.findall(r"```python\n(.*?)```", card, flags=re.S)[0]
    exec(compile(python, "README.md", "exec"), {})
    monkeypatch.chdir(place)
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
    assert next_of(err) == [
        shlex.split("transfer books.csv --library runs/films --keep --prompt-length 2 --set steps=4 --set embedding_step=2 "
                    "--set batch_size=2 --backbone t5 --dtype float32"),
        shlex.split("library show runs/films films@1"),
        shlex.split("predict runs/films --prompt films@1 TEXT"),
    ]  # fmt: skip
    code, out, err = call(
        capsys, "transfer", "books.csv", "--library", "runs/films", "--k", "1", "--set", "embedding_step=2", *SMALL
    )
    assert code == 0, err
    after = next_of(err)
    assert [words[:2] for words in after] == [
        ["predict", "runs/transfer-books"], ["serve", "runs/transfer-books"], ["transfer", "books.csv"],
    ]  # fmt: skip
    assert after[2][-2:] == ["--resume", "--keep"]
    for words in (after[0], after[2]):  # the delivered prompt answers; nothing is trained again
        code, out, err = call(capsys, *words)
        assert code == 0, err
    assert "added to" in out
    assert [words[0] for words in next_of(err)] == ["predict", "serve"]


def next_of(err: str) -> list[list[str]]:
    """The commands that a command ended with, without the program's name."""
    return [shlex.split(line)[1:] for line in err.splitlines() if line.startswith("  softprompt ")]


def test_predictions_have_the_rows_own_columns_and_confusion_the_figures_of_each_label(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "train", "films.csv", *SMALL)[0] == 0
    asked = ("eval", "runs/films", "--task", "films.csv", "--dtype", "float32")
    code, out, err = call(capsys, *asked, "--predictions", "answers.csv", "--confusion")
    assert code == 0, err
    assert "label \\ answer" in out
    assert "precision" in out
    with open("answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open("films.csv", newline="") as file:
        own = {(row["text"], row["label"]) for row in csv.DictReader(file)}
    assert list(rows[0]) == ["text", "label", "key", "prompt", "prediction", "target"]
    assert {(row["text"], row["label"]) for row in rows} <= own
    code, out, err = call(capsys, *asked, "--confusion", "--json")
    assert code == 0, err
    (found,) = json.loads(out)["confusion"]
    made = found["confusion"]
    (result,) = json.loads(out)["results"]
    right = sum(made["matrix"][i][i] for i in range(2))
    assert sum(map(sum, made["matrix"])) == result["rows"]
    assert result["accuracy"] == pytest.approx(100 * right / result["rows"])
    assert sum(label["rows"] for label in made["per_label"]) == result["rows"]
    again = ("eval", "runs/films", "--task", "answers.csv", "--text-column", "text", "--label-column", "label")
    for words, said in (
        ((*asked, "--predictions", "answers.txt"), "rows are written as .csv, .tsv, .jsonl, .parquet"),
        (
            (*again, "--predictions", "answers.csv"),
            "have key, prediction, prompt, target already: rename it in the file",
        ),
    ):
        code, _, err = call(capsys, *words, "--backbone", "gone")
        assert (code, said in err) == (2, True), err


@pytest.mark.slow
def test_own_targets_alone_take_the_released_library(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt.library import released
    from softprompt.library.store import Library
    from softprompt.tasks import generated

    source = "gen_sentiment_film"
    rows = ("--train-rows", "8", "--validation-rows", "4", "--set", "embedding_step=2")
    code, _, err = call(capsys, "train", source, "--library", "released-here", *rows, *SMALL)
    assert code == 0, err
    monkeypatch.setattr(generated, "DEMO_SOURCES", (source,))
    monkeypatch.setattr(released, "find_released", lambda *_: Library("released-here"))
    code, out, err = call(capsys, "quickstart", "--data", "data", "--targets", "films", "--out", "out",
                          "--k", "1", *rows[-2:], *SMALL, "--json")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["trained_sources"] == []
    assert [row["target"] for row in found["table"]] == ["films"]


def test_what_cannot_be_ranked_is_said_before_anything_is_trained(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "train", "films.csv", *SMALL, "--set", "embedding_step=0")
    assert code == 0, err
    assert err.index("no task embedding will be kept") < err.index("backbone t5")
    code, _, err = call(capsys, "search", "books.csv", "--library", "runs/films")
    assert code == 2
    assert "nothing in runs/films/library can be ranked for books: it holds 1 prompts of other tasks" in err
    assert "embedding:" not in err
    code, _, err = call(capsys, "transfer", "books.csv", "--library", "runs/films", *SMALL)
    assert (code, "ranks by task embeddings" in err) == (2, True)


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


def test_a_mixture_is_a_task_everywhere(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, scored by task, found by a search, and answered by the served prompt."""
    data = ("--data", "data")
    code, out, err = call(capsys, "train", "--task", "films+books", *data, *SMALL, "--library", "lib", "--out", "run")
    assert code == 0, err
    assert "films+books@1" in out
    code, out, err = call(capsys, "eval", "lib", "--task", "films+books", *data, *HERE, "--json")
    assert code == 0, err
    (result,) = json.loads(out)["results"]
    assert {"films", "books", "score"} <= set(result)
    code, out, err = call(capsys, "search", "films.csv", "--library", "lib", "--seeds", "1", "--steps", "2",
                          "--prompt-length", "2", "--set", "embedding_step=2", "--json", *HERE)  # fmt: skip
    assert code == 0, err
    assert [row["name"] for row in json.loads(out)["matches"]] == ["films+books@1"]
    backbone, library = load_backbone("t5", dtype="float32"), Library(place / "lib")
    catalogue = Catalogue(backbone, library)
    engine = Engine(backbone, catalogue.resolve, version=catalogue.version)
    with TestClient(make_app(engine, catalogue, limits=Limits()), base_url="http://127.0.0.1") as client:
        assert "films+books@1" in [model["id"] for model in client.get("/v1/models").json()["data"]]
        asked = {"model": "films+books@1", "prompt": "good film", "max_tokens": 3}
        served = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    code, out, err = call(capsys, "predict", "lib", "good film", "--max-new-tokens", "3", *HERE, "--json")
    assert code == 0, err
    assert served == json.loads(out)["predictions"][0]["output"]
