"""The short way in Python, on a tiny backbone."""

import json

import pytest
import torch
from tests.models import corpus, tiny_backbone

from softprompt.api import search, transfer, tune
from softprompt.library.store import Library
from softprompt.tasks.catalog import load_task

QUICK = {
    "steps": 4, "batch_size": 4, "prompt_length": 3, "eval_every": 2, "embedding_step": 2, "max_target_tokens": 4,
    "learning_rate": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("t5")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for t, word in enumerate(("film", "story", "actor")):
        (root / f"about_{word}").mkdir()
        for split, rows in (("train", 24), ("validation", 20)):
            texts = corpus(rows, seed=10 * t + len(split))
            lines = [json.dumps({"text": text, "label": "yes" if word in text else "no"}) for text in texts]
            (root / f"about_{word}" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return [load_task(f"about_{word}", root) for word in ("film", "story", "actor")]


def test_tune_add_search_transfer(backbone, tasks, tmp_path):
    library = Library(tmp_path / "library")
    for task in tasks[:2]:
        record = tune(backbone, task, **QUICK)
        assert record.prompt.shape == (3, backbone.hidden_size)
        assert record.recipe["steps"] == 4
        assert record.data_fingerprint
        library.add(record)
    ranking = search(backbone, library, tasks[2], seeds=(1, 2), **QUICK)
    assert sorted(match.task for match in ranking) == ["about_film", "about_story"]
    assert ranking[0].similarity >= ranking[1].similarity
    report = transfer(backbone, library, tasks[2], k=1, **QUICK)
    assert report.delivered in ("scratch", "best_of_top_k", "weighted_average")
    assert torch.isfinite(report.prompt_PH).all()


def test_a_task_is_nearest_to_itself(backbone, tasks, tmp_path):
    """With the same seed the task embedding of the same task is the same prompt."""
    library = Library(tmp_path / "library")
    for task in tasks:
        library.add(tune(backbone, task, seed=1, **QUICK))

    class Twin:
        """The same rows under another name."""

        def __getattr__(self, name):
            return "twin" if name == "name" else getattr(tasks[0], name)

    first = search(backbone, library, Twin(), seeds=(1,), metric="average", **QUICK)[0]
    assert first.task == tasks[0].name
    # Only the cosine of average tokens is 1 with itself; the per-token average also compares different rows.
    assert first.similarity == pytest.approx(1.0, abs=1e-4)
