"""The real runner on a tiny random T5: cells come from the trainer and the evaluator, resumed and regrouped alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.tuned_study import backbone, finished, made, vars_of

from softprompt.analysis.read import collect, skill_relations
from softprompt.errors import DataError, UnknownNameError
from softprompt.report.study import report_study
from softprompt.study.build import build_grid
from softprompt.study.facts import contamination, data_facts
from softprompt.study.ledger import Ledger
from softprompt.study.run import facts_of, open_study, run_study
from softprompt.study.runner import PromptRunner
from softprompt.study.settings import study_of
from softprompt.tasks.contamination import text_key
from softprompt.tasks.sources import FileSource
from softprompt.tasks.task import Task

__all__ = ["backbone", "finished"]  # fixtures


def test_every_kind_of_cell_is_made(backbone: Path, finished: Path, tmp_path: Path) -> None:
    study, ledger, noted = open_study(finished)
    facts = facts_of(study, noted)
    results = collect(study, ledger, facts)
    assert not np.isnan(results.transfers_STR()).any()
    assert not np.isnan(results.base_T).any()
    assert {s.strategy for s in results.strategies} == {"weighted_average", "multitask_mixture"}
    assert len(results.embeddings) == 3 * 2
    assert all(e.shape == (4, 16) or e.shape[0] == 4 for e in results.embeddings.values())
    grid = build_grid(study, facts)
    assert set(results.predictors) == {"zero-shot-loss", "loss-decrease-5", "text-similarity", "data-size"}
    assert set(results.predictors["loss-decrease-5"]) == set(results.prompts)
    record = ledger.read("transfer", grid.of_kind("transfer")[0].key)
    assert record.result["status"] == "done"
    assert record.provenance["study"] == "real"
    assert record.provenance["evidence"]["report_rows"] == 16
    evaluation = ledger.read("evaluation", grid.of_kind("evaluation")[0].key).result
    assert len(evaluation["predictions"]) == 16
    assert evaluation["rows"] == [8, 8]
    report = report_study(finished, tmp_path / "report", figures=False)
    assert "pending" not in report.page.read_text().split("How sure is this")[0].split("Scores")[1][:2000]


def test_embeddings_and_starts_are_what_they_say(finished: Path) -> None:
    study, ledger, noted = open_study(finished)
    grid = build_grid(study, facts_of(study, noted))
    early = ledger.tensors("embedding", grid.named("embedding", "source:gen_sentiment_film.0@1").key)["prompt"]
    later = ledger.tensors("embedding", grid.named("embedding", "source:gen_sentiment_film.0@2").key)["prompt"]
    source = ledger.tensors("source", grid.named("source", "gen_sentiment_film.0").key)
    assert not torch.equal(early, later)
    assert set(source) == {"best", "final"}
    # A mixture is not validated: its final checkpoint is its prompt.
    assert set(ledger.tensors("source", grid.named("source", "pair.0").key)) == {"final"}


@pytest.mark.slow
def test_one_by_one_gives_the_same_scores(backbone: Path, finished: Path, tmp_path: Path) -> None:
    alone = made(backbone, group=1, strategies={"best_of_top_k": [1]}, embedding={"step": 2})
    assert run_study(alone, tmp_path).complete
    study, ledger, noted = open_study(finished)
    together = collect(study, ledger, facts_of(study, noted))
    single = collect(alone, Ledger(tmp_path), facts_of(study, noted))
    assert np.allclose(together.transfers_STR(), single.transfers_STR(), atol=7.0)  # one of 16 answers may tip
    for key, prompt in single.embeddings.items():
        assert np.allclose(prompt, together.embeddings[key], atol=1e-4), key


def test_evaluations_can_be_made_on_their_own(finished: Path) -> None:
    import shutil

    study, ledger, noted = open_study(finished)
    grid = build_grid(study, facts_of(study, noted))
    cell = next(cell for cell in grid.of_kind("evaluation") if cell.name.startswith("transfer:"))
    before = ledger.read("evaluation", cell.key).result
    shutil.rmtree(ledger.path("evaluation", cell.key))
    assert run_study(study, finished).made == 1
    after = ledger.read("evaluation", cell.key).result
    assert (after["score"], after["halves"], after["predictions"]) == (
        before["score"],
        before["halves"],
        before["predictions"],
    )


def test_halves_protocol_chooses_on_one_half(backbone: Path, tmp_path: Path) -> None:
    study = made(
        backbone, protocol="halves", sources=["gen_sentiment_film"], seeds=[0], strategies={}, embedding={"step": 2}
    )
    assert run_study(study, tmp_path).complete
    results = collect(study, Ledger(tmp_path), PromptRunner().facts(study))
    assert all(run.halves is not None and run.score == run.halves[1] for run in results.runs)


@pytest.mark.slow
def test_sharpt_and_model_tuning_beside_transfer(backbone: Path, tmp_path: Path) -> None:
    study = made(
        backbone,
        name="arms",
        sources=["gen_sentiment_film", "gen_paraphrase_sentence"],
        seeds=[0],
        strategies={"best_of_top_k": [1]},
        methods=["sharpt", "model_tuning"],
        sharpt={
            "recipe": "quick",
            "encoder": "backbone",
            "skills": 4,
            "prompt_length": 4,
            "source_steps": 3,
            "target_steps": 2,
        },
        model_tuning={"recipe": "model-tuning-quick", "steps": 2},
    )
    summary = run_study(study, tmp_path / "ledger")
    assert summary.complete, summary.failed
    study, ledger, noted = open_study(tmp_path / "ledger")
    facts = facts_of(study, noted)
    results = collect(study, ledger, facts)
    assert {s.strategy for s in results.strategies} == {"sharpt", "model_tuning"}
    found = skill_relations(study, ledger, facts)
    assert found is not None
    names, matrix = found
    assert names == ["gen_sentiment_film", "gen_paraphrase_sentence", "gen_sentiment_hotel"]
    assert np.allclose(np.diag(matrix), 1.0)
    report = report_study(tmp_path / "ledger", tmp_path / "report")
    page = report.page.read_text()
    assert "SharPT&#x27;s shared skills" in page
    assert {"methods.csv", "task_relations.png"} <= {path.name for path in (*report.tables, *report.figures)}
    row = next(
        line
        for line in (tmp_path / "report" / "tables" / "methods.csv").read_text().splitlines()
        if line.startswith("sharpt")
    )
    assert float(row.split(",")[1]) >= 0
    # A changed SharPT recipe redoes SharPT alone.
    other = made(**{**vars_of(study), "sharpt": {**vars_of(study)["sharpt"], "target_steps": 3}})
    assert run_study(other, tmp_path / "ledger").made == 2


def test_a_task_without_data_is_refused_before_anything_starts(backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    study = made(backbone, sources=["rte"], data=str(tmp_path / "data"))
    with pytest.raises(DataError, match="rte"):
        run_study(study, tmp_path / "ledger")
    assert not (tmp_path / "ledger" / "cells").exists()


def test_contamination_is_found_across_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert text_key("rte hypothesis: A dog, premise: Barks!") == text_key("mnli premise: barks hypothesis: a dog")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    rows = {"s": ["one", ""], "u": ["two", "three"], "t": ["five", "six"]}
    held_out = ["one", "two", "four", ""]  # a row without text is like no other
    tasks = {
        name: Task.from_rows(
            [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(texts)],
            validation=[{"text": t, "label": "x"} for t in held_out],
            text="text", label="label", name=name,
        )
        for name, texts in rows.items()
    }  # fmt: skip
    study = study_of({"name": "x", "sources": ["s", "m"], "targets": ["t"], "mixtures": {"m": ["s", "u"]}})
    data = {name: data_facts(study, task, name) for name, task in tasks.items()}
    for _ in range(2):  # the second time from what was remembered
        assert contamination(study, tasks, data) == [("t", "s", 1), ("t", "m", 2)]
        monkeypatch.setattr(Task, "split", None)


def test_facts_are_told_once(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    for name in ("sst2", "cr"):
        (folder / name).mkdir(parents=True)
        for split in ("train", "validation"):
            texts = [f"{name} {split} {i}" for i in range(8)] + ["the same text"]
            rows = [json.dumps({"sentence": t, "text": t, "label": i % 2, "idx": i}) for i, t in enumerate(texts)]
            (folder / name / f"{split}.jsonl").write_text("\n".join(rows))
    study = made(backbone, sources=["sst2"], targets=["cr"], data=str(folder))
    first = PromptRunner().facts(study)
    assert first.contamination == (("cr", "sst2", 1),)
    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "rows", None)
        assert PromptRunner().facts(study) == first
    with (folder / "sst2" / "train.jsonl").open("a") as file:
        file.write('\n{"sentence": "new", "label": 1, "idx": 99}\n')
    assert PromptRunner().facts(study).data["sst2"].train_rows == 10


def test_rows_are_tokenised_once_for_all_workers(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt.tasks import encoded

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    study = made(backbone)
    first = PromptRunner().data(study, study.targets[0], study.target)
    monkeypatch.setattr(encoded._Side, "chunks", None)
    again = PromptRunner().data(study, study.targets[0], study.target)
    assert [again.train.inputs(i).tolist() for i in range(len(again.train))] == [
        first.train.inputs(i).tolist() for i in range(len(first.train))
    ]


def test_a_target_is_measured_on_further_rows_too(backbone: Path, tmp_path: Path) -> None:
    study = made(
        backbone, seeds=[0], sources=["gen_sentiment_film"], strategies={}, embedding={"step": 2},
        also_on={"gen_sentiment_hotel": "gen_sentiment_product"},
    )  # fmt: skip
    summary = run_study(study, tmp_path)
    assert summary.complete, summary.failed
    _, ledger, noted = open_study(tmp_path)
    grid = build_grid(study, facts_of(study, noted))
    results = collect(study, ledger, facts_of(study, noted))
    assert len(results.runs) == 2
    for run in results.runs:
        kind = "transfer" if run.source else "baseline"
        cell = next(cell for cell in grid.of_kind(kind))
        own = ledger.read("evaluation", grid.named("evaluation", f"{kind}:{cell.name}").key).result
        name = f"{kind}:{cell.name} on gen_sentiment_product"
        further = ledger.read("further_evaluation", grid.named("further_evaluation", name).key).result
        assert run.score == pytest.approx((own["score"] + further["score"]) / 2)
        assert len(further["predictions"]) == study.validation_rows
    with pytest.raises(UnknownNameError, match="also_on"):
        made(backbone, also_on={"mnly": "mnli"})
