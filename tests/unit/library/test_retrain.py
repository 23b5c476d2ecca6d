"""Making a library again on another backbone, and recycling prompts through two vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models import tiny_backbone, tiny_tokenizer
from torch import Tensor

from softprompt.errors import IncompatibleBackboneError, Interrupted, NonFiniteError, UnknownNameError, UsageError
from softprompt.library.manifest import PromptRecord
from softprompt.library.retrain import RetrainItem, recycle, retrain, retrain_plan, shared_tokens
from softprompt.library.store import Library


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


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_a_rotated_copy_of_the_vocabulary_is_followed(method: str) -> None:
    """Where the new embeddings are a linear image of the old ones, both ways find the image of the prompt."""
    old = torch.randn(60, 8, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    new = torch.cat([torch.zeros(5, 8, dtype=torch.float64), 3.0 * old @ turn])
    shared = [(i, i + 5) for i in range(60)]
    prompt = torch.randn(4, 8, dtype=torch.float64) * 20
    found = recycle(prompt, old, new, shared, method=method, neighbours=16)  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (3.0 * prompt @ turn).float(), rtol=1e-4, atol=1e-4)


def test_vocabulary_rows_go_to_their_own_tokens() -> None:
    old, new = torch.randn(40, 8), torch.randn(50, 12)
    shared = [(i, 49 - i) for i in range(40)]
    found = recycle(old[[3, 7]], old, new, shared, method="nearest", neighbours=1, keep_relative_norm=False)
    torch.testing.assert_close(found, new[[46, 42]], rtol=1e-4, atol=1e-4)


def test_norms_keep_their_relation_to_the_vocabulary() -> None:
    old, new = torch.randn(40, 8), 10 * torch.randn(40, 12)
    shared = [(i, i) for i in range(40)]
    prompt = torch.randn(5, 8) * 100
    found = recycle(prompt, old, new, shared)
    ratio_old = prompt.norm(dim=1) / old.norm(dim=1).mean()
    ratio_new = found.norm(dim=1) / new.norm(dim=1).mean()
    torch.testing.assert_close(ratio_old, ratio_new, rtol=1e-4, atol=1e-4)
    plain = recycle(prompt, old, new, shared, keep_relative_norm=False)
    assert not torch.allclose(plain.norm(dim=1), found.norm(dim=1), rtol=0.01)


def test_shared_tokens_of_real_tokenizers() -> None:
    old, new = tiny_tokenizer("t5"), tiny_tokenizer("gpt2")
    pairs = shared_tokens(old, new)
    assert len(pairs) > 30
    for i, j in pairs:
        one, other = old.convert_ids_to_tokens(i), new.convert_ids_to_tokens(j)
        assert one.replace("\u2581", "\u0120") == other
    assert any(old.convert_ids_to_tokens(i).startswith("\u2581") for i, _ in pairs)
    itself = shared_tokens(old, old)
    assert all(i == j for i, j in itself)
    assert len(itself) == len(old) - len(old.all_special_ids)


def test_between_two_backbones() -> None:
    old, new = tiny_backbone("t5"), tiny_backbone("llama", width=32)
    pairs = shared_tokens(old.tokenizer, new.tokenizer)
    found = recycle(torch.randn(4, 24), old.embedding_table(), new.embedding_table(), pairs)
    assert found.shape == (4, 32)
    assert found.isfinite().all()


def test_bad_requests() -> None:
    old, new = torch.randn(10, 4), torch.randn(10, 6)
    prompt = torch.randn(2, 4)
    with pytest.raises(UsageError, match="share no token"):
        recycle(prompt, old, new, [])
    with pytest.raises(UsageError, match="outside its embedding table"):
        recycle(prompt, old, new, [(3, 10)])
    with pytest.raises(IncompatibleBackboneError):
        recycle(torch.randn(2, 6), old, new, [(0, 0)])
    with pytest.raises(UnknownNameError, match="linear"):
        recycle(prompt, old, new, [(0, 0)], method="liner")  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError):
        recycle(prompt / 0, old, new, [(0, 0)])


def test_the_plan_follows_the_manifests(tmp_path: Path) -> None:
    library = Library(tmp_path / "old")
    library.add(record("mnli", seed=2, recipe={"steps": 7}, init={"kind": "uniform"}, embedding_step=3))
    library.add(record("imported", recipe={}))
    library.add(record("moved", fingerprint="a" * 64))
    plan = retrain_plan(library, Identity())
    (item,) = plan.items
    assert (item.name, item.task, item.seed, item.prompt_length, item.score) == ("mnli@2", "mnli", 2, 3, 50.0)
    assert (item.recipe, item.init, item.embedding_step) == ({"steps": 7}, {"kind": "uniform"}, 3)
    assert "no recipe" in plan.impossible["imported@0"]
    assert "already" in plan.impossible["moved@0"]
    with pytest.raises(UnknownNameError):
        retrain_plan(library, Identity(), ["gone@0"])


def test_the_better_start_is_kept_and_both_are_told(tmp_path: Path) -> None:
    library, into = Library(tmp_path / "old"), Library(tmp_path / "new")
    for task, score in (("a", 40.0), ("b", 60.0), ("c", 70.0)):
        library.add(record(task, score=score))
    asked: list[tuple[str, bool]] = []

    def train(item: RetrainItem, start: Tensor | None) -> PromptRecord:
        asked.append((item.name, start is not None))
        if item.task == "c" and start is not None:
            raise NonFiniteError("loss became NaN")
        warm_bonus = {"a": 5.0, "b": -5.0, "c": 0.0}[item.task]
        score = 50.0 + (warm_bonus if start is not None else 0.0)
        return record(item.task, width=6, fingerprint="a" * 64, score=score, backbone_name="new")

    def carried(item: RetrainItem) -> Tensor:
        return torch.zeros(item.prompt_length, 6)

    found = retrain(retrain_plan(library, Identity()), into, train, carried)
    assert [(r.name, r.before, r.cold, r.warm, r.kept) for r in found] == [
        ("a@0", 40.0, 50.0, 55.0, "warm"),
        ("b@0", 60.0, 50.0, 45.0, "cold"),
        ("c@0", 70.0, 50.0, None, "cold"),
    ]
    assert found[2].problem == "warm: loss became NaN"
    assert len(asked) == 6
    assert into.get("a@0").manifest.score == 55.0
    assert "warm start" in into.get("a@0").manifest.origin
    assert into.get("a@0").manifest.backbone_fingerprint == "a" * 64
    asked.clear()
    assert retrain(retrain_plan(library, Identity()), into, train, carried) == []
    assert asked == [], "what is done is not done again"
    into.remove("b@0")
    assert [r.name for r in retrain(retrain_plan(library, Identity()), into, train)] == ["b@0"]


def test_a_stop_stops_and_a_failure_does_not(tmp_path: Path) -> None:
    library, into = Library(tmp_path / "old"), Library(tmp_path / "new")
    library.add(record("a"))
    library.add(record("b"))

    def fail(item: RetrainItem, start: Tensor | None) -> PromptRecord:
        raise UsageError("no such task here")

    found = retrain(retrain_plan(library, Identity()), into, fail)
    assert [(r.name, r.kept) for r in found] == [("a@0", None), ("b@0", None)]
    assert into.names() == []

    def stop(item: RetrainItem, start: Tensor | None) -> PromptRecord:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        retrain(retrain_plan(library, Identity()), into, stop)
    with pytest.raises(UsageError, match="needs a start"):
        retrain(retrain_plan(library, Identity()), into, fail, cold=False)


def test_a_real_retraining_from_manifests_alone(tmp_path: Path) -> None:
    """Prompts of a tiny T5 made again on a tiny Llama: same tasks, recipes and seeds, cold and recycled."""
    from softprompt.api import tune_tasks
    from softprompt.prompts.init import InitSettings, default_init
    from softprompt.tasks.catalog import load_task
    from softprompt.training.data import task_data
    from softprompt.training.recipes import recipe
    from softprompt.training.settings import TrainSettings

    old, new = tiny_backbone("t5"), tiny_backbone("llama", width=32)
    rows = {"train_rows": 16, "validation_rows": 6}
    settings = recipe("quick", steps=4, batch_size=4, prompt_length=3, eval_every=2, eval_rows=6, embedding_step=2)
    library, into = Library(tmp_path / "old"), Library(tmp_path / "new")
    for made in tune_tasks(
        old, [task_data(old, load_task("gen_topic_question"), settings, **rows)], settings, seeds=[3]
    ):
        library.add(made)
    plan = retrain_plan(library, new)

    def train(item: RetrainItem, start: Tensor | None) -> PromptRecord:
        again = TrainSettings(**{key: value for key, value in item.recipe.items() if key in TrainSettings.names()})
        init = InitSettings.of_record(item.init) or default_init("source")
        if start is not None:
            init = InitSettings(kind="prompt", prompt=start, origin=f"recycled {item.name}")
        data = task_data(new, load_task(item.task), again, **rows)
        return tune_tasks(new, [data], again, seeds=[item.seed], init=init)[0]

    pairs = shared_tokens(old.tokenizer, new.tokenizer)

    def carried(item: RetrainItem) -> Tensor:
        return recycle(item.old.prompt(), old.embedding_table(), new.embedding_table(), pairs)

    (result,) = retrain(plan, into, train, carried)
    assert result.problem == ""
    assert None not in (result.before, result.cold, result.warm)
    stored = into.get(result.name)
    assert stored.manifest.seed == 3
    assert stored.manifest.recipe["steps"] == 4
    assert into.load(result.name, new).shape == (3, 32)
    assert stored.manifest.has_task_embedding
    with pytest.raises(IncompatibleBackboneError):
        into.load(result.name, old)
