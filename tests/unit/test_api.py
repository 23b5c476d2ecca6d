"""The short way in Python, on a tiny backbone."""

import json
from dataclasses import replace

import pytest
import torch
from tests.support.models import corpus, tiny_backbone

from softprompt.api import delivered_record, search, transfer, tune
from softprompt.artifacts import json_bytes, sha256_bytes
from softprompt.errors import CorruptArtifactError
from softprompt.library.manifest import Manifest
from softprompt.library.record import MANIFEST
from softprompt.library.store import Library
from softprompt.tasks.catalog import load_task
from softprompt.training.recipes import recipe

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
    report = transfer(backbone, library, tasks[2], k=1, folder=tmp_path / "run", command="again", **QUICK)
    page = (tmp_path / "run" / "report-about_actor.md").read_text()
    assert report.verdict in page
    assert "again" in page
    assert delivered_record(backbone, report, recipe("quick", **QUICK), seed=1).best_step in (0, 2, 4)
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


class FromHub:
    """Rows of another source, described as read from the Hub at a commit."""

    def __init__(self, source, revision):
        self.source, self.revision = source, revision

    def rows(self, split, bad):
        return self.source.rows(split, bad)

    def describe(self):
        return {
            "kind": "hub", "repo": "someone/films", "config": "plain", "branch": "main", "revision": self.revision,
            "splits": {"train": ["train"]},
        }  # fmt: skip


def test_the_commit_of_the_data_is_kept_with_the_prompt(backbone, tasks, tmp_path):
    library = Library(tmp_path / "library")
    pinned = replace(tasks[0], source=FromHub(tasks[0].source, "c0ffee"))
    stored = library.add(tune(backbone, pinned, **QUICK))
    known = {"repo": "someone/films", "config": "plain", "branch": "main", "revision": "c0ffee"}
    assert library.get(stored.name).manifest.data_source == known
    assert (
        "hf://datasets/someone/films, plain at c0ffee" in (tmp_path / "library" / stored.name / "README.md").read_text()
    )
    # Where the commit is not known (read offline from a cache), and for local files, nothing is claimed.
    assert tune(backbone, replace(tasks[0], source=FromHub(tasks[0].source, None)), **QUICK).data_source == {}
    assert tune(backbone, tasks[1], **QUICK).data_source == {}
    report = transfer(backbone, library, tasks[2], k=1, **QUICK)
    more = delivered_record(backbone, report, recipe("quick", **QUICK), seed=1, task=replace(pinned, licence="CC0-1.0"))
    assert (more.data_source, more.chat, more.licence) == (known, None, "CC0-1.0")


def test_manifests_of_older_versions_are_read(backbone, tasks, tmp_path):
    """Those without the fields that came later, which are then empty."""
    library = Library(tmp_path / "library")
    name = library.add(tune(backbone, tasks[0], **QUICK)).name
    content = json.loads((tmp_path / "library" / name / MANIFEST).read_text())
    for later in ("chat", "data_source", "manifest_sha256"):
        del content[later]
    signed = {**content, "manifest_sha256": sha256_bytes(json_bytes(content))}
    old = Manifest.from_bytes(json_bytes(signed), "old")
    assert (old.chat, old.data_source, old.name) == (None, {}, name)
    del signed["task"], signed["manifest_sha256"]
    broken = {**signed, "manifest_sha256": sha256_bytes(json_bytes(signed))}
    with pytest.raises(CorruptArtifactError, match="task"):
        Manifest.from_bytes(json_bytes(broken), "broken")
