"""Every command on a tiny random backbone and a handful of rows: train, eval, predict, embed, search, transfer, library."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

from softprompt.cli import app
from softprompt.library.store import Library

SMALL = ("--steps", "4", "--batch-size", "2", "--prompt-length", "2", "--set", "eval_every=2", "--set", "embedding_step=2",
         "--set", "eval_rows=4", "--dtype", "float32")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone and three tasks."""
    root = tmp_path_factory.mktemp("cli")
    save_tiny("t5", root / "t5", width=16, layers=1)
    save_tiny("t5", root / "other", width=16, layers=1, seed=3)
    save_tiny("t5", root / "wide", width=32, layers=1)
    make_tasks(root / "data", "films", "stories", "music")
    return root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def library(place: Path) -> Path:
    """A library with two tasks and two seeds of each, made by ``softprompt train``."""
    command = ["train", "--task", "films,stories", "--data", "data", "--seeds", "1,2", "--backbone", "t5"]
    command += ["--library", "lib", "--out", "runs/sources", *SMALL, "--json"]
    with (
        contextlib.chdir(place),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        code = app.run(command)
    assert code == 0, errors.getvalue()
    made = json.loads(out.getvalue())
    assert [p["name"] for p in made["prompts"]] == ["films@1", "films@2", "stories@1", "stories@2"]
    assert "training: step 2 of 4" in errors.getvalue()
    return place / "lib"


def test_train_keeps_prompts_with_their_command(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "library", "show", "lib", "films@1", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["command"].startswith("softprompt train --task films,stories") or "pytest" in facts["command"]
    assert (facts["steps"], facts["embedding_step"], facts["seed"]) == (4, 2, 1)
    assert facts["verified"]
    assert facts["recipe"]["batch_size"] == 2


def test_the_library_is_listed_verified_and_changed(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "library", "ls", "lib", "--task", "films")
    assert code == 0
    assert "films@2" in out
    assert "stories@1" not in out
    assert call(capsys, "library", "add", "copy", "lib", "films@1", "stories@1")[0] == 0
    code, _, err = call(capsys, "library", "add", "copy", "lib", "films@1")
    assert code == 2
    assert "--replace" in err
    code, out, _ = call(capsys, "library", "verify", "copy", "--json")
    assert (code, json.loads(out)["checked"]) == (0, 2)
    assert call(capsys, "library", "rm", "copy", "films@1")[0] == 0
    _, out, _ = call(capsys, "library", "ls", "copy", "--json")
    assert [p["name"] for p in json.loads(out)["prompts"]] == ["stories@1"]


def test_a_damaged_prompt_is_refused_with_code_3(
    library: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "library", "add", "damaged", "lib", "films@1")[0] == 0
    file = place / "damaged" / "films@1" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))
    code, out, err = call(capsys, "library", "verify", "damaged")
    assert (code, out) == (3, "")
    assert "films@1" in err
    asked = (
        "eval",
        "--task",
        "films",
        "--data",
        "data",
        "--prompt",
        "films@1",
        "--library",
        "damaged",
        "--backbone",
        "t5",
    )
    assert call(capsys, *asked)[0] == 3


def test_eval_scores_each_prompt_on_each_task(library: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(
        capsys, "eval", "--task", "films,music", "--data", "data", "--prompt", "films@1,stories@1", "--library", "lib",
        "--backbone", "t5", "--predictions", "answers.jsonl", "--json",
    )  # fmt: skip
    rows = json.loads(out)["results"]
    assert code == 0
    assert [(r["task"], r["prompt"]) for r in rows] == [
        ("films", "films@1"), ("films", "stories@1"), ("music", "films@1"), ("music", "stories@1"),
    ]  # fmt: skip
    assert all(0.0 <= r["score"] <= 100.0 for r in rows)
    answers = [json.loads(line) for line in (place / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 4 * 8
    assert {a["target"] for a in answers} == {"positive", "negative"}


def test_eval_without_a_prompt_scores_the_bare_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(
        capsys, "eval", "--task", "films", "--data", "data", "--backbone", "t5", "--max-rows", "3", "--json"
    )
    assert code == 0
    assert json.loads(out)["results"][0]["prompt"] is None
    assert json.loads(out)["results"][0]["rows"] == 3


def test_predict_answers_arguments_and_files_alike(
    library: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "texts.txt").write_text("good film\nbad film\n")
    common = ("--prompt", "films@1", "--library", "lib", "--backbone", "t5", "--max-new-tokens", "3", "--json")
    code, out, _ = call(capsys, "predict", "good film", "bad film", *common)
    _, from_file, _ = call(capsys, "predict", "--file", "texts.txt", *common)
    assert code == 0
    assert json.loads(out)["predictions"] == json.loads(from_file)["predictions"]
    assert len(json.loads(out)["predictions"]) == 2


def test_embed_then_search_equals_search_by_task(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--data", "data", "--backbone", "t5", "--dtype", "float32", "--seeds", "1,2", "--prompt-length", "2")
    more = ("--set", "batch_size=2")
    code, _, _ = call(
        capsys, "embed", "--task", "music", *small, *more, "--embedding-step", "2", "--out", "m.safetensors"
    )
    assert code == 0
    _, out, _ = call(capsys, "search", "--library", "lib", "--embedding", "m.safetensors", "--json")
    by_file = json.loads(out)["matches"]
    code, out, _ = call(
        capsys, "search", "--library", "lib", "--task", "music", *small, *more, "--set", "embedding_step=2", "--json"
    )
    by_task = json.loads(out)["matches"]
    assert code == 0
    assert [m["name"] for m in by_file] == [m["name"] for m in by_task]
    assert len(by_task) == 4
    assert by_task[0]["similarity"] == pytest.approx(by_file[0]["similarity"], abs=1e-6)
    code, out, _ = call(capsys, "search", "--library", "lib", "--embedding", "m.safetensors", "--top-k", "1")
    assert code == 0
    assert by_task[0]["name"] in out
    assert "3 of the 4 prompts drawn at random hold the best one with probability 0.75" in out
    idle = Library("lib").get(by_task[0]["name"]).manifest.idle()
    assert idle, "four steps teach a toy nothing"
    assert idle[:40] in out, "and a searcher is told"


def test_transfer_compares_with_scratch_and_keeps_what_it_delivers(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "library", "add", "grown", "lib")[0] == 0
    asked = (
        "transfer",
        "--task",
        "music",
        "--library",
        "grown",
        "--data",
        "data",
        "--backbone",
        "t5",
        "--k",
        "2",
        *SMALL,
    )
    code, out, err = call(capsys, *asked, "--embedding-runs", "1", "--keep", "--json")
    assert code == 0, err
    found = json.loads(out)
    (target,) = found["targets"]
    assert [o["strategy"] for o in target["outcomes"]] == ["scratch", "best_of_top_k", "weighted_average"]
    assert target["verdict"]
    assert found["kept"] == ["music@1"]
    code, _, err = call(capsys, *asked, "--embedding-runs", "1", "--keep")
    assert code == 2
    assert "music@1" in err


def test_tasks_are_listed_shown_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "tasks", "ls", "--data", "data", "--json")
    listed = {row["task"]: row["source"] for row in json.loads(out)["tasks"]}
    assert code == 0
    assert listed["films"] == "data folder"
    assert "sst2" in listed
    code, out, _ = call(capsys, "tasks", "show", "films", "--data", "data")
    assert code == 0
    assert "inputs   text: " in out
    code, out, _ = call(capsys, "tasks", "check", "films", "music", "--data", "data", "--json")
    assert code == 0
    assert [report["splits"]["train"]["rows"] for report in json.loads(out)["tasks"]] == [12, 12]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--task", "flms", "--data", "data"], 2, ["'flms'", "films"]),
        (["train", "--task", "films", "--data", "nowhere"], 2, ["nowhere", "does not exist"]),
        (["train", "--task", "films", "--data", "data", "--recipe", "quik"], 2, ["'quik'", "quick"]),
        (["train", "--task", "films", "--data", "data", "--set", "leraning_rate=1"], 2, ["learning_rate"]),
        (["train", "--task", "films", "--data", "data", "--set", "steps=many"], 2, ["steps", "'many'"]),
        (["train", "--task", "films", "--data", "data", "--set", "steps"], 2, ["NAME=VALUE"]),
        (["train", "--task", "films", "--data", "data", "--prompt-length", "0"], 2, ["prompt_length", "at least 1"]),
        (["train", "--task", "films,films", "--data", "data"], 2, ["films", "once"]),
        (["train", "--task", "films", "--data", "data", "--seeds", "a"], 2, ["--seeds", "whole numbers"]),
        (["train", "--task", "films", "--data", "data", "--backbone", "./nowhere"], 2, ["./nowhere"]),
        (["train", "--task", "films", "--data", "data", "--backbone", "t5", "--dtype", "float16"], 2, ["float16"]),
        (["train", "--task", "films", "--data", "data", "--backbone", "t5", "--role", "sorce"], 2, ["source"]),
        (["train", "--task", "films", "--data", "data", "--library", "lib", *SMALL], 2, ["films@1", "--replace"]),
        (["train", "--stps", "4"], 2, ["--stps", "--steps"]),
        (["eval", "--task", "films", "--data", "data", "--prompt", "films@1", "--backbone", "t5"], 2, ["--library"]),
        (["eval", "--task", "films", "--data", "data", "--prompt", "flms@1", "--library", "lib", "--backbone", "t5"], 2,
         ["films@1"]),
        (["eval", "--task", "films", "--data", "data", "--prompt", "films@1", "--library", "lib", "--backbone", "wide"], 4,
         ["width 16", "width 32"]),
        (["eval", "--task", "films", "--data", "data", "--prompt", "films@1", "--library", "lib", "--backbone", "other"], 4,
         ["fingerprint"]),
        (["eval", "--task", "films", "--data", "data", "--split", "tset"], 2, ["test"]),
        (["predict"], 2, ["--file"]),
        (["predict", "--file", "missing.txt"], 1, ["missing.txt"]),
        (["search", "--library", "nowhere", "--task", "films"], 2, ["nowhere"]),
        (["search", "--library", "lib"], 2, ["--embedding"]),
        (["search", "--library", "lib", "--task", "films", "--metric", "cosine"], 2, ["per_token"]),
        (["transfer", "--library", "lib", "--task", "music", "--data", "data", "--strategies", "best"], 2, ["best_of_top_k"]),
        (["transfer", "--library", "lib", "--task", "music", "--data", "data", "--k", "0"], 2, ["k must"]),
        (["library", "show", "lib", "../lib"], 2, ["../lib"]),
        (["library", "show", "nowhere", "films@1"], 2, ["nowhere"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_one_sentence_and_a_code(
    arguments: list[str], code: int, words: list[str], library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = call(capsys, *arguments)
    complaint = err.splitlines()[-1]
    assert found == code, err
    assert not out
    assert complaint.startswith("softprompt: ")
    assert "Traceback" not in err
    assert all(word in complaint for word in words), complaint


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", "", ["no rows"]),
        ("header.csv", "text,label\n", ["no rows"]),
        ("column.csv", "text,lbl\na,b\n", ["label", "text, lbl"]),
        ("line.jsonl", '{"text": "a", "label": "x"}\n{bad\n', ["line 2"]),
    ],
)
def test_bad_data_names_file_and_line(
    name: str, content: str, words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem, suffix = name.split(".")
    folder = place / "broken" / stem
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (folder / f"{split}.{suffix}").write_text(content)
    code, _, err = call(capsys, "tasks", "check", stem, "--data", "broken")
    assert code == 2
    assert all(word in err for word in [f"train.{suffix}", *words]), err


def test_a_run_directory_belongs_to_one_training(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "train",
        "--task",
        "films,stories",
        "--data",
        "data",
        "--seeds",
        "1,2",
        "--backbone",
        "t5",
        "--library",
        "again",
    ]
    code, _, err = call(capsys, *asked, "--out", "runs/sources", *SMALL, "--learning-rate", "0.5", "--resume")
    assert code == 2
    assert "another run" in err
    assert "learning_rate" in err
    code, _, err = call(capsys, *asked, "--out", "runs/sources", *SMALL)
    assert code == 2
    assert "--resume" in err
    assert "backbone" not in err, "it is said before anything is loaded"
    assert call(capsys, *asked, "--out", "runs/sources", *SMALL, "--resume")[0] == 0


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["train", "--task", "films", "--data", "data", "--backbone", "t5", "--out", "runs/stopped", *SMALL]
    asked[asked.index("--steps") + 1] = "40"
    command = [sys.executable, "-m", "softprompt", *asked]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if "step 4 of 40" in line:
            os.kill(process.pid, signal.SIGINT)
            break
    _, rest = process.communicate(timeout=240)
    err = "".join(told) + rest
    assert process.returncode == 75, err
    assert "--resume" in rest
    assert "Traceback" not in err
    code, out, _ = call(capsys, *asked, "--resume", "--json")
    assert code == 0
    assert json.loads(out)["prompts"][0]["steps"] == 40


def test_places_are_checked_before_anything_is_loaded(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backbone named does not exist: whatever is told of a place was told before it was looked for."""
    Path("file").write_text("")
    train = ("--task", "films", "--data", "data", "--backbone", "none/none")
    for command in (
        ("train", *train), ("model-tune", *train), ("transfer", *train, "--library", str(library)),
        ("quickstart", "--data", "data", "--sources", "films", "--targets", "stories", "--backbone", "none/none"),
    ):  # fmt: skip
        for place in ("file", "file/run"):
            code, _, err = call(capsys, *command, "--out", place)
            assert (code, "cannot be a run directory: file is a file" in err) == (2, True), err
    for out, told in (("a.xyz", "rows are written as"), ("data.csv", "is a folder"), ("file/a.csv", "file is a file")):
        if out == "data.csv":
            Path(out).mkdir()
        for command in (
            ("predict", "TEXT", "--backbone", "none/none", "--out", out),
            ("eval", *train, "--predictions", out),
        ):  # fmt: skip
            code, _, err = call(capsys, *command)
            assert (code, told in err) == (2, True), err
    code, _, err = call(capsys, "predict", "runs/flims", "a fine film")
    assert (code, "there is no run, library or prompt at runs/flims" in err) == (2, True), err
    locked = Path("locked")
    locked.mkdir()
    monkeypatch.setattr("softprompt.cli.opening.os.access", lambda place, mode: Path(place) != locked)
    code, _, err = call(capsys, "train", *train, "--out", "locked/run")
    assert (code, "locked cannot be written to" in err) == (2, True), err
