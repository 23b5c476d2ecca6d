"""Reading studies back: from the lines that were kept of old ledgers, and what the analysis may lean on."""

import ast
import csv
from pathlib import Path

import pytest

from softprompt.analysis.methods import Methods
from softprompt.analysis.read import collect_lines
from softprompt.analysis.searches import race_table
from softprompt.errors import DataError
from softprompt.study.settings import load_study


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
    import sys

    for file in sorted((repo / "src" / "softprompt" / "analysis").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert foreign <= {"numpy", "scipy", "softprompt"}, (file.name, foreign)
