"""A mixture is a task: loaded by name, tokenised part by part, drawn at its rates, judged by its tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.models import tiny_backbone

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.inference.evaluate import EvalJob, evaluate
from softprompt.tasks.catalog import load_task
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.mixed import MixtureTask
from softprompt.tasks.mixture import MIXTURES
from softprompt.training.data import task_data
from softprompt.training.recipes import recipe


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, labels, rows in (("cb", 3, 12), ("rte", 2, 36)):
        folder = tmp_path / name
        folder.mkdir()
        for split in ("train", "validation"):
            made = [
                {"premise": f"{name} film {i}", "hypothesis": "a story", "label": i % labels, "idx": i}
                for i in range(rows)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return tmp_path


def test_names_of_mixtures_are_names_of_tasks(data: Path) -> None:
    task = load_task("cb+rte", data)
    assert isinstance(task, MixtureTask)
    assert (task.name, list(task.parts)) == ("cb+rte", ["cb", "rte"])
    glue = load_task("glue")
    assert isinstance(glue, MixtureTask)
    assert tuple(glue.parts) == MIXTURES["glue"].tasks
    weighted = load_task("cb=3+rte=1", data)
    assert isinstance(weighted, MixtureTask)
    assert weighted.rates({"cb": 12, "rte": 36}) == (0.75, 0.25)
    with pytest.raises(UnknownNameError, match="mnly"):
        load_task("mnly+rte")
    with pytest.raises(DataError, match="no folder for task 'mnli'"):
        load_task("mnli+rte", data)
    with pytest.raises(UsageError, match="twice"):
        load_task("rte+rte", data)


def test_rows_are_those_of_its_tasks_one_behind_the_other(data: Path) -> None:
    task = load_task("cb+rte", data)
    split = task.split("train")
    own = [*load_task("cb", data).split("train").examples, *load_task("rte", data).split("train").examples]
    assert list(split.examples) == own
    assert split.examples[11:14] == own[11:14]
    assert split.fingerprint == load_task("cb+rte", data).split("train").fingerprint
    assert split.fingerprint != load_task("rte+cb", data).split("train").fingerprint
    assert len(task.split("train", max_rows=5)) == 10  # of each


def test_it_is_drawn_at_its_rates_and_tokenised_as_its_tasks_are(data: Path) -> None:
    backbone = tiny_backbone("t5")
    settings = recipe("quick", prompt_length=3)
    made = task_data(backbone, load_task("cb+rte", data), settings)
    parts = [task_data(backbone, load_task(name, data), settings) for name in ("cb", "rte")]
    assert made.rates == (0.25, 0.75)
    run = made.run("both", 1)
    assert [len(part) for part in run.train] == [12, 36]
    assert made.train.inputs(12).tolist() == parts[1].train.inputs(0).tolist()
    assert made.train.targets(11).tolist() == parts[0].train.targets(11).tolist()
    lengths = [*parts[0].train.input_lengths, *parts[1].train.input_lengths]
    assert made.train.input_lengths.tolist() == lengths
    assert made.train.select([13, 0]).inputs(0).tolist() == made.train.inputs(13).tolist()
    assert made.train.select([13, 0]).target_lengths.tolist() == made.train.target_lengths[[13, 0]].tolist()


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_its_score_is_the_mean_of_its_tasks(data: Path, kind: str) -> None:
    backbone = tiny_backbone(kind)
    made = task_data(backbone, load_task("cb+rte", data), recipe("quick", prompt_length=3))
    (found,) = evaluate(backbone, None, [EvalJob(run=0, task=made.task, split=made.validation)])
    alone = []
    for part in made.task.parts.values():  # type: ignore[attr-defined]
        split = encode_split(part.split("validation"), backbone, max_input_tokens=None, max_target_tokens=None)
        (one,) = evaluate(backbone, None, [EvalJob(run=0, task=part, split=split)])
        alone.append(one.scores["score"])
    assert found.scores["score"] == pytest.approx(np.mean(alone))
    assert [found.scores["cb"], found.scores["rte"]] == pytest.approx(alone)
