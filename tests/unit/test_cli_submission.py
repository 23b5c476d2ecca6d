"""A submission end to end: prompts of a library, test rows, files, zip, check."""

import json
import zipfile

import pytest
import torch
from tests.support.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.cli.app import run
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.study.build import build_grid
from softprompt.study.ledger import Ledger
from softprompt.study.run import facts_of, run_study
from softprompt.study.settings import study_of


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


def test_the_diagnostics_are_answered_with_the_entailment_prompt(place, tmp_path, capsys):
    """AX-b and AX-g have a test split alone, unlabelled, and columns of their own."""
    for task, first, second in (("axb", "sentence1", "sentence2"), ("axg", "premise", "hypothesis")):
        folder = tmp_path / "data" / "tasks" / task
        folder.mkdir(parents=True)
        rows = [{first: f"a film {i}.", second: "a story.", "idx": 3 - i} for i in range(4)]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "diagnostics"
    assert submit(place, "--data", str(tmp_path / "data"), "--out", str(out), "--task", "axb,axg", "--partial") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["prompts"] == {"axb": "rte@2", "axg": "rte@2"}
    for name in ("AX-b.jsonl", "AX-g.jsonl"):
        rows = [json.loads(line) for line in (out / name).read_text().splitlines()]
        assert [row["idx"] for row in rows] == [0, 1, 2, 3]
        assert {row["label"] for row in rows} <= {"entailment", "not_entailment"}
    with zipfile.ZipFile(tmp_path / "diagnostics.zip") as archive:
        assert sorted(archive.namelist()) == ["AX-b.jsonl", "AX-g.jsonl"]
    assert run(["submission", "check", str(out), "--partial"]) == 0
    capsys.readouterr()
    assert run(["submission", "check", str(out)]) == 2  # the official ones have 1,104 and 356 rows
    said = capsys.readouterr().err
    assert "AX-b.jsonl: has 4 rows, the test set has 1,104" in said
    assert "AX-g.jsonl: has 4 rows, the test set has 356" in said


# Two test rows of every task in the benchmark's own columns, without answers.
TEST_ROWS = {
    "boolq": {"passage": "a film.", "question": "is it a film"},
    "cb": {"premise": "a film.", "hypothesis": "a story."},
    "copa": {
        "premise": "one takes a film.",
        "choice1": "one sees it.",
        "choice2": "one eats it.",
        "question": "effect",
    },
    "multirc": {"paragraph": "a film.", "question": "what is it?", "answer": "a film"},
    "record": {
        "passage": "one likes a film.",
        "query": "@placeholder is good.",
        "entities": ["one", "film"],
        "answers": [],
    },
    "rte": {"premise": "a film.", "hypothesis": "a story."},
    "wic": {"word": "film", "sentence1": "a film.", "sentence2": "the film."},
    "wsc": {"text": "a cat sees it", "span1_text": "a cat", "span1_index": 0, "span2_text": "it", "span2_index": 3},
    "axb": {"sentence1": "a film.", "sentence2": "a story."},
    "axg": {"premise": "a film.", "hypothesis": "a story."},
}
PLACES = {
    "multirc": lambda i: {"paragraph": 0, "question": 0, "answer": i},
    "record": lambda i: {"passage": 0, "query": i},
}


def test_superglue_end_to_end(place, tmp_path, capsys):
    """The best prompts of eight tasks, test rows of ten, one zip that passes the format check."""
    model = save_tiny("gpt2", tmp_path / "bytes")  # its tokenizer can tell choice1 from choice2
    backbone = load_backbone(str(model), dtype="float32")
    library = Library(tmp_path / "library")
    for task in (name for name in TEST_ROWS if not name.startswith("ax")):
        for seed, score in ((1, 70.0), (2, 40.0)):
            library.add(
                PromptRecord(
                    task=task, prompt=torch.randn(3, backbone.hidden_size), backbone_name=backbone.name, seed=seed,
                    backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, scores={"score": score},
                )
            )  # fmt: skip
    for task, values in TEST_ROWS.items():
        folder = tmp_path / "data" / "tasks" / task
        folder.mkdir(parents=True)
        rows = [{**values, "idx": PLACES.get(task, int)(i), "label": -1} for i in range(2)]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "entry"
    asked = ("--library", str(tmp_path / "library"), "--data", str(tmp_path / "data"), "--out", str(out), "--partial")
    assert submit(place, *asked, "--backbone", str(model)) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["prompts"] == {task: "rte@1" if task.startswith("ax") else f"{task}@1" for task in TEST_ROWS}
    assert {facts["rows"] for facts in said["files"].values()} == {2}
    with zipfile.ZipFile(tmp_path / "entry.zip") as archive:
        assert len(archive.namelist()) == 10
    assert run(["submission", "check", str(tmp_path / "entry.zip"), "--partial"]) == 0


def test_a_mixtures_prompt_answers_the_tasks_that_have_none_of_their_own(place, tmp_path, capsys):
    library = Library(tmp_path / "mixed")
    backbone = load_backbone(str(place / "model"), dtype="float32")
    for task, score in (("superglue", 90.0), ("rte", 10.0), ("cb+rte", 20.0)):
        library.add(
            PromptRecord(
                task=task, prompt=torch.randn(3, backbone.hidden_size), backbone_name=backbone.name, seed=1,
                backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, scores={"score": score},
            )
        )  # fmt: skip
    command = ["submission", "write", "--library", str(tmp_path / "mixed"), "--backbone", str(place / "model"), "--dtype",
               "float32", "--data", str(place / "data"), "--max-new-tokens", "4", "--json", "--out",
               str(tmp_path / "out"), "--partial"]  # fmt: skip
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == {"cb": "superglue@1", "rte": "rte@1"}


def test_a_studys_ledger_becomes_a_library_and_a_submission(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    train = {"recipe": "quick", "steps": 4, "batch_size": 4, "prompt_length": 3, "eval_every": 2, "warmup_steps": 0}
    study = study_of(
        {"name": "small", "backbone": str(place / "model"), "dtype": "float32", "data": str(place / "data"),
         "sources": ["cb", "rte+cb"], "targets": ["cb", "rte"], "seeds": [0, 1], "source": train, "target": train,
         "embedding": {"step": 2, "other_steps": [1, 3]}, "protocol": "halves"}
    )  # fmt: skip
    ledger = tmp_path / "ledger"
    summary = run_study(study, ledger, runner_options={"device": "cpu"})
    assert summary.complete, summary.failed
    grid = build_grid(study, facts_of(study, Ledger(ledger).noted("small", "facts")))
    # All embeddings came from the runs themselves, and differ from step to step.
    cells = grid.of_kind("embedding")
    assert sum(cell.steps for cell in cells) == 0
    for name in ("source:cb.0", "target:rte.1"):
        steps = [
            Ledger(ledger).tensors("embedding", grid.named("embedding", f"{name}@{n}").key)["prompt"] for n in (1, 2, 3)
        ]
        assert not torch.equal(steps[0], steps[1])
        assert not torch.equal(steps[1], steps[2])

    assert run(["library", "add", str(tmp_path / "lib"), str(ledger), "--prompts", "all", "--json"]) == 0
    added = json.loads(capsys.readouterr().out)["added"]
    sources = {"cb@0", "cb@1", "rte+cb@0", "rte+cb@1"}
    assert sources <= set(added)
    assert len(added) == 6
    library = Library(tmp_path / "lib")
    held = library.get("rte+cb@1")
    assert (held.manifest.task, held.manifest.embedding_step, held.manifest.tags[0]) == ("rte+cb", 2, "source")
    cell = grid.named("source", "rte+cb.1")
    assert torch.equal(held.prompt(), Ledger(ledger).tensors("source", cell.key)["final"].float())
    assert "study-small" in (tmp_path / "lib" / "rte+cb@1" / "README.md").read_text()
    assert library.get("cb@0").manifest.wording["task"] == "cb"
    # The best of a target is what one half of validation chose among all runs; its score is the other half's.
    best = next(library.get(name).manifest for name in added if name.startswith("rte@"))
    evaluations = [
        (Ledger(ledger).read("evaluation", grid.named("evaluation", f"{c.kind}:{c.name}").key).result["halves"])
        for c in grid.of_kind("baseline", "transfer")
        if c.spec["target"] == "rte"
    ]
    assert best.scores["score"] in [
        report for select, report in evaluations if select == max(s for s, _ in evaluations)
    ]

    out = tmp_path / "glue-for-you"
    command = ["submission", "write", "--library", str(ledger), "--out", str(out), "--data", str(place / "data"),
               "--dtype", "float32", "--partial", "--max-new-tokens", "4", "--json"]  # fmt: skip
    assert run(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["prompts"]) == {"cb", "rte"}
    assert (out / "RTE.jsonl").exists()
