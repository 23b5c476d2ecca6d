"""Making a library again on another backbone; nothing that a manifest names is run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.cli import call
from tests.support.models import save_tiny, tiny_backbone

from softprompt.errors import IncompatibleBackboneError, Interrupted, NonFiniteError, UnknownNameError, UsageError
from softprompt.library.record import PromptRecord
from softprompt.library.retrain import retrain, retrain_plan, task_of
from softprompt.library.store import Library, StoredPrompt
from softprompt.tasks.catalog import load_task


@dataclass
class Identity:
    name: str = "new"
    hidden_size: int = 6
    fingerprint: str = "a" * 64


def record(
    task: str, *, width: int = 4, fingerprint: str | None = "f" * 64, score: float = 50.0, **more: Any
) -> PromptRecord:
    values: dict[str, Any] = {
        "task": task,
        "prompt": torch.randn(3, width),
        "backbone_name": "old",
        "backbone_fingerprint": fingerprint,
        "backbone_kind": "t5",
        "scores": {"score": score},
        "recipe": {"steps": 5},
    }
    return PromptRecord(**{**values, **more})


def test_the_plan_follows_the_manifests(tmp_path: Path) -> None:
    library = Library(tmp_path / "old")
    library.add(record("mnli", seed=2, recipe={"steps": 7}, init={"kind": "uniform"}, embedding_step=3))
    library.add(record("imported", recipe={}))
    library.add(record("moved", fingerprint="a" * 64))
    plan = retrain_plan(library, Identity())
    (old,) = plan.prompts
    assert (old.name, old.manifest.recipe) == ("mnli@2", {"steps": 7})
    assert "no recipe" in plan.impossible["imported@0"]
    assert "already" in plan.impossible["moved@0"]
    with pytest.raises(UnknownNameError):
        retrain_plan(library, Identity(), ["gone@0"])


def test_scores_are_told_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    library, into = Library(tmp_path / "old"), Library(tmp_path / "new")
    for task, score in (("a", 40.0), ("b", 60.0), ("c", 70.0)):
        library.add(record(task, score=score))
    asked: list[str] = []

    def train(old: StoredPrompt) -> PromptRecord:
        asked.append(old.name)
        if old.task == "c":
            raise NonFiniteError("loss became NaN")
        return record(old.task, width=6, fingerprint="a" * 64, score=50.0, backbone_name="new")

    found = retrain(retrain_plan(library, Identity()), into, train)
    assert [(r.name, r.before, r.after, r.problem) for r in found] == [
        ("a@0", 40.0, 50.0, ""),
        ("b@0", 60.0, 50.0, ""),
        ("c@0", 70.0, None, "loss became NaN"),
    ]
    assert into.get("a@0").manifest.origin.startswith("retrained from")
    assert into.get("a@0").manifest.backbone_fingerprint == "a" * 64
    asked.clear()
    retrain(retrain_plan(library, Identity()), into, train)
    assert asked == ["c@0"], "what is done is not done again"


def test_a_stop_stops(tmp_path: Path) -> None:
    library, into = Library(tmp_path / "old"), Library(tmp_path / "new")
    library.add(record("a"))

    def stop(old: StoredPrompt) -> PromptRecord:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        retrain(retrain_plan(library, Identity()), into, stop)


CODE = """from pathlib import Path
Path({mark!r}).write_text("ran")
from softprompt.tasks.user import task

@task(labels=["no", "yes"])
def evil(row):
    return row["text"], row["label"]
"""


@pytest.mark.parametrize(
    "name", ["{code}", "{code}:evil", "./evil.py", "hf:someone/data", "../data/films", "evil.toml", ""]
)
def test_a_manifest_runs_and_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A library from elsewhere names a file of code as its task: it is refused, by name and by the command line."""
    monkeypatch.chdir(tmp_path)
    code, mark = tmp_path / "evil.py", tmp_path / "mark"
    code.write_text(CODE.format(mark=str(mark)))
    library = Library(tmp_path / "old")
    library.add(record(name.format(code=code), name="p@0"))
    manifest = library.get("p@0").manifest
    with pytest.raises(UsageError, match=r"no plain name and was not opened.*--task PATH"):
        task_of(manifest)
    with pytest.raises(UsageError, match="was not opened"):
        task_of(manifest, tmp_path)
    assert not mark.exists()


def test_a_task_that_the_user_names_is_taken(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("text,label\n" + "good,yes\nbad,no\n" * 20)
    own = load_task(str(tmp_path / "films.csv"))
    library = Library(tmp_path / "old")
    manifest = library.add(record("films")).manifest
    assert task_of(manifest, None, [own]) is own
    with pytest.raises(UnknownNameError, match="films"):
        task_of(manifest)
    assert task_of(library.add(record("gen_entailment_question")).manifest).name == "gen_entailment_question"


def test_the_command_refuses_a_task_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny("t5", tmp_path / "model")
    code, mark = tmp_path / "evil.py", tmp_path / "mark"
    code.write_text(CODE.format(mark=str(mark)))
    (tmp_path / "train.csv").write_text("text,label\ngood,1\nbad,0\n" * 8)
    Library(tmp_path / "old").add(record(str(code), name="p@0", recipe={"steps": 2, "batch_size": 2}))
    asked = ("library", "retrain", str(tmp_path / "old"), str(tmp_path / "new"), "--backbone", str(tmp_path / "model"),
             "--dtype", "float32", "--out", str(tmp_path / "runs"))  # fmt: skip
    status, _, err = call(capsys, *asked)
    assert status == 1
    assert "was not opened" in err
    assert not mark.exists()


def test_the_wording_is_that_of_the_new_kind_of_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prompt of a T5 made again on a decoder: the task in natural language, as `train` would word it there."""
    save_tiny("llama", tmp_path / "model", width=32)
    folder = tmp_path / "data" / "tasks" / "sst2"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        rows = [{"sentence": f"film {i}", "label": i % 2, "idx": i} for i in range(8)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"steps": 1, "batch_size": 2, "prompt_length": 2, "eval_every": 1, "embedding_step": 1}
    Library(tmp_path / "old").add(record("sst2", recipe=recipe))
    asked = ("library", "retrain", str(tmp_path / "old"), str(tmp_path / "new"), "--backbone", str(tmp_path / "model"),
             "--data", str(tmp_path / "data"), "--dtype", "float32", "--out", str(tmp_path / "runs"))  # fmt: skip
    status, _, err = call(capsys, *asked)
    assert status == 0, err
    wording = Library(tmp_path / "new").get("sst2@0").manifest.wording
    assert wording is not None
    assert wording["form"] == "natural"


def test_a_recipe_with_wrong_types_is_refused_in_a_sentence(tmp_path: Path) -> None:
    from softprompt.cli.retrain import _recorded

    library = Library(tmp_path)
    for recipe, words in (({"steps": "many"}, "steps"), ({"steps": 7.5}, "steps"), ({"optimizer": 3}, "optimizer")):
        library.add(record("a", recipe=recipe), replace=True)
        (old,) = retrain_plan(library, Identity()).prompts
        with pytest.raises(UsageError, match=f"the recipe of prompt 'a@0'.*{words}"):
            _recorded(old.manifest)


def test_a_real_retraining_from_manifests_alone(tmp_path: Path) -> None:
    """Prompts of a tiny T5 made again on a tiny Llama: same tasks, recipes and seeds."""
    from softprompt.api import tune_tasks
    from softprompt.prompts.init import InitSettings, default_init
    from softprompt.training.data import task_data
    from softprompt.training.recipes import recipe
    from softprompt.training.settings import TrainSettings

    old, new = tiny_backbone("t5"), tiny_backbone("llama", width=32)
    rows = {"train_rows": 16, "validation_rows": 6}
    settings = recipe("quick", steps=4, batch_size=4, prompt_length=3, eval_every=2, eval_rows=6, embedding_step=2)
    library, into = Library(tmp_path / "old"), Library(tmp_path / "new")
    for made in tune_tasks(
        old, [task_data(old, load_task("gen_entailment_question"), settings, **rows)], settings, seeds=[3]
    ):
        library.add(made)
    plan = retrain_plan(library, new)

    def train(prompt: StoredPrompt) -> PromptRecord:
        facts = prompt.manifest
        again = TrainSettings(**{key: value for key, value in facts.recipe.items() if key in TrainSettings.names()})
        init = InitSettings.of_record(facts.init) or default_init("source")
        data = task_data(new, task_of(facts), again, **rows)
        return tune_tasks(new, [data], again, seeds=[facts.seed], init=init)[0]

    (result,) = retrain(plan, into, train)
    assert result.problem == ""
    assert None not in (result.before, result.after)
    stored = into.get(result.name)
    assert stored.manifest.seed == 3
    assert stored.manifest.recipe["steps"] == 4
    assert into.load(result.name, new).shape == (3, 32)
    assert stored.manifest.has_task_embedding
    with pytest.raises(IncompatibleBackboneError):
        into.load(result.name, old)
