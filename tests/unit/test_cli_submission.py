"""A submission end to end: prompts of a library, test rows, files, zip, check."""

import json
import zipfile

import pytest
import torch
from tests.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.cli.app import run
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny backbone, a library with two prompts for RTE and one for CB, and their test rows."""
    root = tmp_path_factory.mktemp("submission")
    model = save_tiny("t5", root / "model")
    backbone = load_backbone(str(model), dtype="float32")
    library = Library(root / "library")
    for task, seed, score in (("rte", 1, 50.0), ("rte", 2, 60.0), ("cb", 1, 40.0)):
        library.add(
            PromptRecord(
                task=task,
                prompt=torch.randn(3, backbone.hidden_size),
                backbone_name=backbone.name,
                seed=seed,
                backbone_fingerprint=backbone.fingerprint,
                backbone_kind=backbone.kind,
                scores={"score": score},
            )
        )
    for task, labels in (("rte", 2), ("cb", 3)):
        folder = root / "data" / "tasks" / task
        folder.mkdir(parents=True)
        for split in ("train", "validation", "test"):
            rows = [
                {
                    "premise": f"a film {i}.",
                    "hypothesis": "a story.",
                    "label": -1 if split == "test" else i % labels,
                    "idx": i,
                }
                for i in range(5)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def submit(place, *more):
    return run(
        ["submission", "write", "--library", str(place / "library"), "--backbone", str(place / "model"), "--dtype",
         "float32", "--data", str(place / "data"), "--max-new-tokens", "4", "--json", *more]
    )  # fmt: skip


def test_write_and_check(place, tmp_path, capsys):
    out = tmp_path / "glue-for-you"
    assert submit(place, "--out", str(out), "--partial") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["prompts"] == {"cb": "cb@1", "rte": "rte@2"}  # the better of the two prompts of RTE
    assert said["files"]["RTE.jsonl"]["rows"] == 5
    rows = [json.loads(line) for line in (out / "RTE.jsonl").read_text().splitlines()]
    assert [row["idx"] for row in rows] == list(range(5))
    assert {row["label"] for row in rows} <= {"entailment", "not_entailment"}
    with zipfile.ZipFile(tmp_path / "glue-for-you.zip") as archive:
        assert sorted(archive.namelist()) == ["CB.jsonl", "RTE.jsonl"]
    assert run(["submission", "check", str(tmp_path / "glue-for-you.zip"), "--partial"]) == 0
    capsys.readouterr()
    assert run(["submission", "check", str(out)]) == 2  # five rows are not the official three thousand
    assert "RTE" in capsys.readouterr().err


def test_the_official_counts_are_wanted_by_default(place, tmp_path, capsys):
    assert submit(place, "--out", str(tmp_path / "full")) == 2
    assert "would be refused" in capsys.readouterr().err
    assert not (tmp_path / "full").exists()


def test_a_task_without_a_prompt_is_named(place, tmp_path, capsys):
    assert submit(place, "--out", str(tmp_path / "out"), "--task", "boolq") == 2
    assert "no prompt of task 'boolq'" in capsys.readouterr().err
