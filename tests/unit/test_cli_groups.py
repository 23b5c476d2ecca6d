"""``sharpt``, ``study``, the baselines, the quickstart, and prompts of other formats, on a tiny random backbone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

from softprompt.cli import opening
from softprompt.errors import UsageError
from softprompt.library import released
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.quickstart import QuickstartSettings

SMALL = ("--steps", "4", "--set", "eval_every=2", "--set", "eval_rows=4", "--dtype", "float32")
HERE = ("--data", "data", "--backbone", "t5")
STUDY = """
name = "tiny"
backbone = "t5"
dtype = "float32"
data = "data"
sources = ["films"]
targets = ["stories"]
seeds = [0]
[source]
recipe = "quick"
steps = 4
batch_size = 2
prompt_length = 2
eval_every = 2
[target]
recipe = "quick"
steps = 4
batch_size = 2
prompt_length = 2
eval_every = 2
[embedding]
step = 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone, three tasks and a study."""
    root = tmp_path_factory.mktemp("groups")
    save_tiny("t5", root / "t5", width=16, layers=1)
    make_tasks(root / "data", "films", "stories", "music")
    (root / "tiny.toml").write_text(STUDY)
    return root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_sharpt_from_space_to_answers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ("sharpt", "train", "--sources", "films,stories", *HERE, *SMALL, "--set", "batch_size=4", "--out", "sharpt")
    code, out, err = call(capsys, *train, "--prompt-length", "2", "--skills", "3", "--encoder", "backbone", "--json")
    assert code == 0, err
    (space,) = json.loads(out)["spaces"]
    assert space["space"] == "sharpt/space"
    assert "of 3 skills" in space["skills"]
    adapt = (
        "sharpt",
        "adapt",
        "--space",
        "sharpt/space",
        "--task",
        "music",
        *HERE,
        *SMALL,
        "--out",
        "adapted",
        "--json",
    )
    code, out, err = call(capsys, *adapt)
    assert code == 0, err
    (prompt,) = json.loads(out)["prompts"]
    assert Path(prompt["prompt"]).is_dir()
    code, out, _ = call(capsys, "sharpt", "relations", "--space", "sharpt/space", "--sources", "films,stories",
                        "--targets", "music", *HERE, "--dtype", "float32", "--json")  # fmt: skip
    assert code == 0
    assert np.shape(json.loads(out)["cosine"]) == (2, 1)
    code, out, _ = call(capsys, "sharpt", "eval", "--prompt", prompt["prompt"], "--task", "music", *HERE,
                        "--dtype", "float32", "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out)["results"][0]["score"] == pytest.approx(prompt["score"])
    code, out, _ = call(capsys, "sharpt", "predict", "good film", "--prompt", prompt["prompt"], "--backbone", "t5",
                        "--max-new-tokens", "2", "--json")  # fmt: skip
    assert code == 0
    assert len(json.loads(out)["predictions"]) == 1


def test_a_study_is_planned_run_resumed_and_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "study", "plan", "tiny.toml", "--timing", "0.01", "--json")
    assert code == 0
    planned = json.loads(out)
    cells = planned["cells"]
    assert cells > 0
    assert planned["problems"] == []
    assert planned["estimates"][0]["seconds"] > 0
    assert "of its own steps" in planned["estimates"][0]["basis"]
    code, out, err = call(capsys, "study", "run", "tiny.toml", "--out", "ledger", "--json")
    assert code == 0, err
    assert json.loads(out)["done"] == cells
    code, out, _ = call(capsys, "study", "resume", "ledger", "--json")
    assert code == 0
    assert (json.loads(out)["made"], json.loads(out)["done"]) == (0, cells)
    code, out, err = call(capsys, "study", "report", "ledger", "--no-figures", "--json")
    assert code == 0, err
    assert Path(json.loads(out)["report"]["page"]).read_text().startswith("<!DOCTYPE html>")
    code, out, _ = call(capsys, "study", "plan", "tiny.toml", "--out", "ledger", "--timing", "0", "--json")
    assert code == 0
    assert json.loads(out)["steps_left"] == 0
    code, out, _ = call(capsys, "study", "plan", "paper", "--no-look")
    assert code == 0
    assert "one H100" in out
    assert "nothing was looked at" in out


def test_the_baselines_answer(capsys: pytest.CaptureFixture[str]) -> None:
    tuned = ("model-tune", "--task", "films", *HERE, *SMALL, "--set", "batch_tokens=64", "--json")
    code, out, err = call(capsys, *tuned)
    assert code == 0, err
    everything = json.loads(out)["tuned_parameters"]
    code, out, err = call(capsys, *tuned, "--lora", "--rank", "2")
    assert code == 0, err
    assert 0 < json.loads(out)["tuned_parameters"] < everything
    code, out, err = call(
        capsys, "prompt-design", "--task", "films", *HERE, "--shots", "2", "--max-rows", "4", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["results"][0]["rows"] == 4


@pytest.mark.slow
def test_the_quickstart_ends_with_a_table_a_heatmap_and_a_report(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("quickstart", *HERE, "--sources", "films,stories", "--targets", "music", "--prompt-length", "2", *SMALL)
    code, out, err = call(
        capsys, *asked, "--set", "embedding_step=2", "--set", "batch_size=2", "--out", "quick", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert [row["target"] for row in found["table"]] == ["music"]
    assert {"scratch", "best_of_top_k", "gain", "seconds"} <= found["table"][0].keys()
    assert Path(found["files"]["heatmap"]).read_bytes().startswith(b"\x89PNG")
    assert "<html" in Path(found["files"]["report"]).read_text()
    assert "source prompts: 2 run(s)" in err
    again, _, _ = call(capsys, *shlex.split(found["next"][1])[1:])
    assert again == 0, "the search that it names next is of the same prompts"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sources", "films", "--targets", "films"], ["films", "source and target"]),
        (["--sources", "fims", "--targets", "music"], ["'fims'", "films"]),
        (["--sources", "films", "--targets", ","], ["--targets", "empty"]),
    ],
)
def test_a_wrong_quickstart_is_refused_before_anything_is_loaded(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "quickstart", "--data", "data", "--backbone", "./absent", *arguments)
    assert (code, out) == (2, "")
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (["--backbone", "smollm2"], 7),  # that of the library that ships, whose prompts are taken
        (["--backbone", "smollm2", "--set", "embedding_step=9"], 9),
        (["--backbone", "smollm2", "--recipe", "spot"], 10_000),  # of another length: none of them is taken
        (["--backbone", "smollm2", "--data", "data", "--sources", "films", "--targets", "music"], 60),
        (["--backbone", "t5"], 60),  # another backbone than the library's
    ],
)
def test_a_quickstart_takes_the_embedding_step_of_the_released_prompts_it_takes(
    arguments: list[str], step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Library(tmp_path)
    start = torch.ones(16, 8)
    library.add(
        PromptRecord(
            task="gen_sentiment_film", prompt=start, task_embedding=start, embedding_step=7, backbone_name="smollm2",
            backbone_fingerprint="0" * 64, backbone_kind="causal",
        )
    )  # fmt: skip
    seen: list[QuickstartSettings] = []

    def stopped(_: object, settings: QuickstartSettings, **__: object) -> None:
        seen.append(settings)
        raise UsageError("seen.")

    monkeypatch.setattr(released, "find_released", lambda folder: library)
    monkeypatch.setattr(opening, "open_backbone", lambda *given: None)
    monkeypatch.setattr("softprompt.quickstart.quickstart", stopped)
    assert call(capsys, "quickstart", *arguments, "--out", str(tmp_path / "out")) == (2, "", "softprompt: seen.\n")
    assert {(one.source_train.embedding_step, one.target_train.embedding_step) for one in seen} == {(step, step)}


def test_a_library_is_tuned_again_on_another_backbone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny("t5", place / "wide", width=32, layers=1)
    trained = ("train", "--task", "films", *HERE, *SMALL, "--prompt-length", "2", "--set", "batch_size=2")
    code, _, err = call(capsys, *trained, "--library", "old", "--out", "runs/old")
    assert code == 0, err
    asked = ("library", "retrain", "old", "new", "--backbone", "wide", "--data", "data")
    code, out, err = call(capsys, *asked, "--dtype", "float32", "--out", "runs/re", "--json")
    assert code == 0, err
    (prompt,) = json.loads(out)["prompts"]
    assert prompt["after"] is not None
    _, out, _ = call(capsys, "library", "show", "new", "films@1", "--json")
    assert json.loads(out)["width"] == 32
    assert "retrained from" in json.loads(out)["origin"]


@pytest.mark.parametrize("kind", ["npy", "peft", "vllm"])
def test_prompts_leave_and_come_back(kind: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    np.save(place / "made.npy", values)
    assert call(capsys, "library", "import", f"in-{kind}", "made.npy", "--task", "films")[0] == 0
    suffix = {"npy": ".npy", "vllm": ".safetensors", "peft": ""}[kind]
    out = f"out-{kind}{suffix}"
    code, _, err = call(capsys, "library", "export", f"in-{kind}", "films@0", out, "--format", kind)
    assert code == 0, err
    code, _, err = call(capsys, "library", "export", f"in-{kind}", "films@0", out, "--format", kind)
    assert code == 2
    assert "--replace" in err
    code, told, err = call(capsys, "library", "import", f"back-{kind}", out, "--task", "films", "--json")
    assert code == 0, err
    assert not json.loads(told)["verified"]
    from softprompt.library.store import Library

    back = Library(place / f"back-{kind}").get(json.loads(told)["name"])
    np.testing.assert_array_equal(back.prompt().numpy(), values)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["library", "import", "lib", "absent.npy"], 2, ["absent.npy"]),
        (["library", "import", "lib", "tiny.toml"], 3, ["tiny.toml"]),
        (["library", "export", "nowhere", "a@1", "x.npy", "--format", "npy"], 2, ["nowhere"]),
        (["sharpt", "train", "--sources", "sharpt_source"], 2, ["sharpt_sources"]),
        (["sharpt", "adapt", "--space", "nowhere", "--task", "films", "--data", "data"], 2, ["nowhere"]),
        (["study", "plan", "dmo"], 2, ["demo"]),
        (["study", "resume", "nowhere"], 2, ["nowhere"]),
        (["model-tune", "--task", "films", "--data", "data", "--recipe", "lra"], 2, ["lora"]),
        (["prompt-design", "--task", "films", "--data", "data", "--label-word", "x"], 2, ["LABEL=WORD"]),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_a_code(
    arguments: list[str], code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = call(capsys, *arguments)
    assert found == code, err
    assert not out
    assert "Traceback" not in err
    assert all(word in err.splitlines()[-1] for word in words), err
