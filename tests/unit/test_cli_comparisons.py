"""Multi-task model tuning, studies side by side, executor options and drawings, on tiny random backbones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

TUNE = ("--data", "data", "--backbone", "t5", "--dtype", "float32", "--steps", "2", "--set", "eval_every=2",
        "--set", "batch_tokens=64")  # fmt: skip
STUDY = """
name = "tiny"
backbone = "{backbone}"
dtype = "float32"
data = "data"
sources = ["films"]
targets = ["stories"]
seeds = [0]
[source]
recipe = "quick"
steps = 2
batch_size = 2
prompt_length = 2
eval_every = 2
[target]
recipe = "quick"
steps = 2
batch_size = 2
prompt_length = 2
eval_every = 2
[embedding]
step = 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tiny backbones, three tasks and a study on each backbone."""
    root = tmp_path_factory.mktemp("comparisons")
    save_tiny("t5", root / "t5", width=16, layers=1)
    save_tiny("t5", root / "wide", width=32, layers=1)
    make_tasks(root / "data", "films", "stories", "music")
    for name in ("t5", "wide"):
        (root / f"{name}.toml").write_text(STUDY.format(backbone=name))
    return root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_multitask_model_tuning(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("model-tune", "--mixture", "films,data/stories", "--targets", "music,films", *TUNE, "--mixture-steps", "3",
             "--out", "multi")  # fmt: skip
    code, out, err = call(capsys, *asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [row["task"] for row in found["targets"]] == ["music", "films"]
    assert (found["mixture"]["steps"], {row["steps"] for row in found["targets"]}) == (3, {2})
    assert {task: drawn["rate"] for task, drawn in found["mixture"]["tasks"].items()} == {"films": 0.5, "stories": 0.5}
    for row in found["targets"]:
        assert row["stored_bytes"] == 4 * row["tuned_parameters"] > 0
        assert row["peak_bytes"] > 0
        assert row["seconds"] > 0
        assert len(row["data"]["train"]) == 64
        assert row["command"]
        assert (Path(row["run"]) / "best.safetensors").is_file()
    code, _, err = call(capsys, *asked)
    assert code == 2
    assert "--resume" in err
    code, out, err = call(capsys, *asked, "--resume")
    assert code == 0, err
    assert "stored" in out
    assert "MiB" in out
    assert out.count("music") == 1


def test_the_batch_size_is_swept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("model-tune", "--task", "films", "--data", "data", "--backbone", "t5", "--dtype", "float32", "--steps", "2")
    code, out, err = call(capsys, *here, "--batch-tokens", "40,90", "--set", "parameter_scaling=false", "--out", "sweep",
                          "--json")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert [row["batch_tokens"] for row in found["sweep"]] == [40, 90]
    assert found["sweep"][0]["tokens"] < found["sweep"][1]["tokens"]
    assert found["best"] == max(found["sweep"], key=lambda row: row["best_score"])["batch_tokens"]
    for size in (40, 90):
        made = json.loads((Path("sweep") / f"batch-{size}" / "run.json").read_text())
        assert (made["settings"]["batch_tokens"], made["settings"]["parameter_scaling"]) == (size, False)
    code, _, err = call(capsys, *here, "--batch-tokens", "40", "--set", "parameter_scaling=off")
    assert code == 2
    assert "parameter_scaling takes true or false, got 'off'" in err
    code, _, err = call(capsys, *here, "--batch-tokens", "3", "--out", "small")
    assert code == 2
    assert "a batch of 3 tokens was asked for, and row films/train/" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--mixture", "films,stories", "--targets", "music", "--batch-tokens", "4,5"), "a sweep goes over one task"),
        (("--mixture", "films,stories"), "name them with --targets"),
        (("--targets", "music"), "--targets goes with --mixture"),
        (("--task", "films", "--mixture-steps", "3"), "--mixture-steps goes with --mixture"),
        (("--task", "films", "--mixture", "glue", "--targets", "music"), "not both"),
        (("--mixture", "films,stories", "--targets", "music", "--lora"), "leave --lora out"),
        (("--task", "films", "--lora", "--sharded"), "leave --sharded out, or --lora"),
        (("--mixture", "gleu", "--targets", "music"), "did you mean glue"),
        (("--mixture", "films=a,music=1", "--targets", "music"), "not a number"),
        (("--mixture", "films,stories", "--targets", "music,music"), "more than once"),
        ((), "needs --task, or --mixture"),
    ],
)
def test_wrong_model_tunings(given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "model-tune", *given, *TUNE)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_studies_on_two_backbones_side_by_side(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("t5", "wide"):
        code, _, err = call(capsys, "study", "run", f"{name}.toml", "--out", f"ledger-{name}")
        assert code == 0, err
    code, _, err = call(
        capsys, "study", "report", "ledger-wide", "--beside", "ledger-t5", "--out", "sizes", "--no-figures", "--json"
    )
    assert code == 0, err
    head, row = (Path("sizes") / "tables" / "model_sizes.csv").read_text().splitlines()[:2]
    assert head.index("t5 (") < head.index("wide (")  # the smaller one first
    assert row.startswith("prompt tuning,")
    code, _, err = call(capsys, "study", "generic", "ledger-t5")
    assert code == 2
    assert "fewer than 3 targets of GLUE and of SuperGLUE (stories)" in err
    code, _, err = call(capsys, "study", "report", "ledger-wide", "--beside", "data", "--out", "sizes")
    assert code == 2
    assert "holds no study" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--executor", "ray", "--executor-option", "gpu=1"), "did you mean gpus"),
        (("--executor-option", "gpus=1"), "serial executor takes no option"),
        (("--workers", "2"), "choose --executor processes"),
        (("--executor", "processes", "--executor-option", "device=cpu"), "did you mean devices"),
    ],
)
def test_executor_options_are_checked_first(
    given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "study", "run", "t5.toml", "--out", "never", *given)
    assert code == 2
    assert message in err
    assert not Path("never").exists()


def test_checkpointing_changes_no_bit_of_a_study(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = []
    for out, flags in (("plain", ()), ("again", ("--checkpointing",))):
        code, _, err = call(capsys, "study", "run", "t5.toml", "--out", out, *flags)
        assert code == 0, err
        kept.append({str(p.relative_to(out)): p.read_bytes() for p in Path(out).rglob("*.safetensors")})
    assert kept[0]
    assert kept[0] == kept[1]
    code, answer, err = call(capsys, "study", "resume", "plain", "--checkpointing", "--json")
    assert code == 0, err
    assert json.loads(answer)["made"] == 0  # the cells have the same keys


@pytest.mark.slow
def test_skill_use_and_relations_are_drawn(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    here = ("--data", "data", "--backbone", "t5", "--dtype", "float32")
    code, _, err = call(
        capsys, "sharpt", "train", "--sources", "films,stories", *here, "--steps", "100", "--set", "eval_every=100", "--set",
        "batch_size=2", "--prompt-length", "2", "--skills", "3", "--encoder", "backbone", "--out", "sharpt",
    )  # fmt: skip
    assert code == 0, err
    for folder in ("sharpt", "sharpt/space"):
        code, out, err = call(capsys, "sharpt", "skills", folder, "--figure", "use.svg", "--json")
        assert code == 0, err
        measured = json.loads(out)["history"]  # the start, then every 100 steps
        assert [(m["step"], m["used"] + m["dead"]) for m in measured] == [(0, 3), (100, 3)]
    assert "<svg" in Path("use.svg").read_text()
    asked = (
        "sharpt",
        "relations",
        "--space",
        "sharpt/space",
        "--sources",
        "films,stories",
        "--targets",
        "music",
        *here,
    )
    code, out, err = call(capsys, *asked, "--figure", "relations.png")
    assert code == 0, err
    assert "figure: relations.png" in out
    assert Path("relations.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = call(capsys, *asked, "--figure", "relations.bmp")
    assert code == 2
    assert "must end in .png or .svg" in err
    code, _, err = call(capsys, "sharpt", "skills", "data")
    assert code == 2
    assert "holds no measurement of skill use" in err
