"""A ladder file: every method on its own backbone with its own recipe, and published rows beside what was run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

from softprompt.analysis.sizes import Rung, ladder_series, ladder_table
from softprompt.analysis.tables import Cell
from softprompt.errors import UnknownNameError
from softprompt.study.build import build_grid
from softprompt.study.grid import unresolved_facts
from softprompt.study.ladder import load_ladder
from softprompt.study.settings import Study
from softprompt.tasks.mixture import MIXTURES


def kinds_of(studies: Mapping[str, Study]) -> dict[str, set[str]]:
    """What is trained, by arm."""
    return {
        arm: {kind for kind, _ in build_grid(study, unresolved_facts(study)).cells} - {"embedding", "evaluation"}
        for arm, study in studies.items()
    }


def test_figure_1_is_the_papers() -> None:
    ladder = load_ladder("figure1")
    assert ladder.sizes == ("small", "base", "large", "xl", "xxl")
    parts = {part.arm: part.study for part in ladder.parts if part.size == "base"}
    assert {arm: study.backbone for arm, study in parts.items()} == {
        "prompt-tuning": "google/t5-base-lm-adapt",
        "spot": "google/t5-base-lm-adapt",
        "model-tuning": "google/t5-v1_1-base",
        "multi-task-model-tuning": "google/t5-v1_1-base",
    }
    assert (parts["prompt-tuning"].target.steps, parts["spot"].target.steps) == (30_000, 262_144)
    assert set(parts["spot"].targets) == set(MIXTURES["superglue"].tasks)
    assert kinds_of(parts) == {
        "prompt-tuning": {"baseline"},
        "spot": {"source", "transfer"},
        "model-tuning": {"model_tuning"},
        "multi-task-model-tuning": {"multitask_tuning", "multitask_model_tuning"},
    }
    # Table 4's first row, as published.
    assert list(ladder.published["prompt design (GPT-3)"].values()) == [40.6, 43.4, 45.1, 47.8, 52.8]
    assert len({part.ledger for part in ladder.parts}) == len(ladder.parts)


def test_sharpts_figure_2_is_the_papers() -> None:
    ladder = load_ladder("sharpt-sizes")
    studies = {part.arm: part.study for part in ladder.parts if part.size == "xl"}
    assert {study.backbone for study in studies.values()} == {"google/t5-xl-lm-adapt"}
    assert (len(studies["sharpt"].sources), len(studies["sharpt"].targets)) == (15, 10)
    assert kinds_of(studies) == {
        "prompt-tuning": {"baseline"},
        "sharpt": {"latent_space", "latent_transfer"},
        "model-tuning": {"model_tuning"},
    }


def test_published_rows_say_so_and_stand_at_the_size_of_their_column() -> None:
    rungs = [
        Rung(size="a", arm="spot", parameters=10, score=Cell(value=50.0, std=1.0, done=3, planned=3)),
        Rung(size="b", arm="spot", parameters=0, score=None),
    ]
    table = ladder_table(rungs, {"old": {"a": 40.0, "b": 41.0}}, "t")
    assert [row[0] for row in table.rows] == ["old, as published", "spot"]
    assert table.rows[0][2].value == 41.0  # type: ignore[union-attr]
    assert table.rows[1][2] is None
    assert ladder_series(rungs, {"old": {"a": 40.0, "b": 41.0}}) == {
        "spot": [(10.0, 50.0, 1.0)],
        "old, as published": [(10.0, 40.0, None)],
    }


LADDER = """
name = "tiny"
sizes = ["one", "two"]
targets = ["films"]
seeds = [0]
data = "data"
dtype = "float32"
embedding = { step = 2 }
[arms.prompts]
backbone = "t5-{size}"
sources = []
tuned = ["scratch"]
target = { recipe = "quick", steps = 2, batch_size = 2, prompt_length = 2, eval_every = 2 }
source = { recipe = "quick", prompt_length = 2 }
[arms.weights]
backbone = "t5-{size}"
sources = []
tuned = []
methods = ["model_tuning"]
target = { recipe = "quick", steps = 2, batch_size = 2, prompt_length = 2, eval_every = 2 }
source = { recipe = "quick", prompt_length = 2 }
model_tuning = { recipe = "model-tuning-quick", steps = 2 }
[published.other]
two = 12.5
"""


@pytest.mark.slow
def test_a_ladder_is_planned_run_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_tasks(tmp_path / "data", "films")
    save_tiny("t5", tmp_path / "t5-one")
    save_tiny("t5", tmp_path / "t5-two", width=32)
    Path("tiny.toml").write_text(LADDER)
    code, out, err = call(capsys, "study", "ladder", "tiny.toml", "--plan", "--json")
    assert code == 0, err
    assert len(json.loads(out)["parts"]) == 4
    code, out, err = call(capsys, "study", "ladder", "tiny.toml", "--out", "out", "--no-figures", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["failed"] == []
    assert [row["method"] for row in said["rows"]] == ["other, as published", "prompts", "weights"]
    assert all(row[size] is not None for row in said["rows"][1:] for size in ("one", "two"))
    with pytest.raises(UnknownNameError, match="did you mean figure1"):
        load_ladder("figure")
    code, _, err = call(capsys, "study", "ladder", "tiny.toml", "--sizes", "too")
    assert code == 2
    assert "did you mean two" in err
