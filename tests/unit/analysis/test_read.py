"""Reading studies back: from the lines that were kept of old ledgers, and what the analysis may lean on."""

import ast
import csv
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tests.support.tuned_study import backbone, finished

from softprompt.analysis.answers import answers_of
from softprompt.analysis.lines import KeptLines, collect_lines
from softprompt.analysis.methods import Methods
from softprompt.analysis.read import collect
from softprompt.analysis.searches import race_table
from softprompt.analysis.similarity import target_similarities
from softprompt.backbones.engine.native import levels
from softprompt.errors import DataError
from softprompt.study.build import build_grid
from softprompt.study.ledger import Ledger, key_of
from softprompt.study.reading import facts_of, open_study
from softprompt.study.run import run_study
from softprompt.study.settings import load_study

__all__ = ["backbone", "finished"]  # fixtures


def test_the_lines_of_an_old_ledger_give_its_tables(repo: Path) -> None:
    folder = repo / "benchmarks" / "results" / "evidence"
    results = collect_lines(folder / "cells.jsonl", load_study("small"))
    assert (len(results.runs), len(results.strategies)) == (75 + 30, 15 * 5)
    assert {len(results.scratch(target)) for target in results.targets} == {6}
    found = Methods.of(results)
    with open(folder / "methods.csv", newline="") as stream:
        kept = {row["method"]: row for row in csv.DictReader(stream)}
    for name in (
        "oracle",
        "race",
        "sharpt",
        "model_tuning",
        "multitask_model_tuning",
        "weighted_average (k = 3, per token)",
    ):
        method = next(m for m in (found.oracle, found.race, *found.others) if m is not None and m.name == name)
        for t, target in enumerate(results.targets):
            assert method.score_T[t] == pytest.approx(float(kept[name][target]), abs=1e-5), (name, target)
    # Costs too: the table that was written when the ledger was whole is the one that its lines give.
    table = race_table(found, results)
    assert table is not None
    assert table.to_csv() == (folder / "race.csv").read_text()


def test_a_study_of_mixtures_is_read_back(repo: Path) -> None:
    lines = repo / "benchmarks" / "results" / "generic" / "cells.jsonl"
    results = collect_lines(lines, load_study("generic-spot-small"))
    assert len([run for run in results.runs if run.source]) == 50
    assert {run.source[0] for run in results.runs if run.source} == set(results.sources)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    for text in ("{", "[]", '{"kind": "source"}', '{"kind": 3, "cell": "a.0"}'):
        path.write_text('{"kind": "embedding", "cell": "a.0", "result": {}}\n' + text + "\n")
        with pytest.raises(DataError, match="line 2 is no cell of a ledger"):
            collect_lines(path, load_study("small"))


def test_the_analysis_needs_numpy_and_scipy_only(repo: Path) -> None:
    for file in sorted((repo / "src" / "softprompt" / "analysis").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert foreign <= {"numpy", "scipy", "softprompt"}, (file.name, foreign)


def _lines(ledger: Path, repo: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> str:
    script = repo / "benchmarks" / "ledger_lines.py"
    patch.setattr(sys, "argv", [str(script), str(ledger), "--command", "softprompt study run", "--answers"])
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def test_a_study_goes_on_from_lines_where_its_ledger_is_gone(
    finished: Path, backbone: Path, repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    study, ledger, noted = open_study(finished)
    grid = build_grid(study, facts_of(study, noted))
    lost = next(cell for cell in grid.of_kind("transfer"))
    children = [cell for cell in grid.of_kind("evaluation") if tuple(cell.spec["of"]) == lost.id]
    gone = {cell.key for cell in (lost, *children)}
    lines = tmp_path / "cells.jsonl"
    written = _lines(finished, repo, capsys, monkeypatch).splitlines()
    lines.write_text("".join(f"{line}\n" for line in written if json.loads(line)["key"] not in gone))
    restore = runpy.run_path(str(repo / "benchmarks" / "ledger_lines.py"))["restore"]
    restored, cells = restore(lines, study, tmp_path / "again")
    again = Ledger(tmp_path / "again")
    (start,) = lost.parents
    assert torch.equal(again.tensors(*start)["best"], ledger.tensors(*start)["best"])
    assert {cell.key for cell in grid.missing(again)} == gone
    assert restored == cells - len(gone)
    for cell in grid.cells.values():
        if again.has(*cell.id):
            assert again.read(*cell.id).result.keys() <= ledger.read(*cell.id).result.keys()
    summary = run_study(study, tmp_path / "again")
    assert summary.complete
    assert summary.made == len(gone)
    assert again.read(*lost.id).result["scores"] == ledger.read(*lost.id).result["scores"]
    assert (
        len(_lines(tmp_path / "again", repo, capsys, monkeypatch).splitlines()) == cells
    )  # a restored one can be kept again


def test_lines_of_one_study_leave_out_another_that_shares_its_ledger(
    finished: Path, repo: Path, tmp_path: Path
) -> None:
    study, _, _ = open_study(finished)
    shared = tmp_path / "shared"
    shutil.copytree(finished, shared)
    ledger = Ledger(shared)
    own = ledger.read("source", min(ledger.keys("source")))
    foreign = {**own.identity, "seed": 99}
    ledger.write("source", key_of(foreign), foreign, own.result, {}, own.provenance)
    lines_of = runpy.run_path(str(repo / "benchmarks" / "ledger_lines.py"))["lines_of"]
    every = {line["key"] for line in lines_of(shared, "softprompt study run")}
    for line in lines_of(finished, "softprompt study run"):
        assert line["processor"] == f"{levels.processor()}, {levels.in_force().name}"
    kept = {line["key"] for line in lines_of(shared, "softprompt study run", study=study)}
    assert every - kept == {key_of(foreign)}


def test_lines_with_answers_hold_all_that_a_report_needs(
    finished: Path, repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "cells.jsonl"
    lines.write_text(_lines(finished, repo, capsys, monkeypatch))
    study, ledger, noted = open_study(finished)
    facts = facts_of(study, noted)
    whole, back = collect(study, ledger, facts), collect_lines(lines, study)
    assert sorted(map(str, back.runs)) == sorted(map(str, whole.runs))
    by_name = [sorted(results.strategies, key=str) for results in (whole, back)]
    for ours, kept in zip(*by_name, strict=True):
        assert (ours.strategy, ours.k, ours.target, ours.seed, ours.score) == (
            kept.strategy, kept.k, kept.target, kept.seed, kept.score,
        )  # fmt: skip
        assert kept.cost.tokens == pytest.approx(ours.cost.tokens)
    for kind in ("average", "per_token"):
        for target in study.targets:
            similar = [target_similarities(results, target, kind) for results in (whole, back)]
            assert similar[1] == pytest.approx(similar[0], abs=1e-3)
    kept_lines = KeptLines(lines, study)
    answers, why = answers_of(study, kept_lines, kept_lines.facts)
    assert why == {}
    assert {target: set(gold.answers) for target, gold in answers.items()} == {
        target: set(gold.answers) for target, gold in answers_of(study, ledger, facts)[0].items()
    }
