"""SPoT Table 1: which targets stand for which benchmark, and that nothing is averaged over an incomplete set."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.analysis.benchmarks import benchmark_table, benchmark_targets, joint_table, ledger_table
from softprompt.analysis.records import Results, RunScore
from softprompt.analysis.tables import Cell
from softprompt.errors import UsageError
from softprompt.report.page import write_table
from softprompt.report.study import Findings, write_report
from softprompt.study.plan import plan_study
from softprompt.study.run import run_study
from softprompt.study.settings import load_study
from softprompt.tasks.mixture import MIXTURES

TARGETS = ("cola", "sst2", "rte", "boolq", "cb")


def results(missing: set[tuple[str | None, str, int]] = frozenset()) -> Results:  # type: ignore[assignment]
    """Scores 10 t + s + 2 r for target number t, source number s (0 from scratch) and seed r."""
    starts = [None, "glue", "mnli"]
    runs = tuple(
        RunScore(target=target, seed=r, score=10.0 * t + s + 2.0 * r, source=None if start is None else (start, r))
        for s, start in enumerate(starts)
        for t, target in enumerate(TARGETS)
        for r in (0, 1)
        if (start, target, r) not in missing
    )
    return Results(sources=("glue", "mnli"), targets=TARGETS, seeds=(0, 1), runs=runs)


def test_rte_is_in_both_benchmarks() -> None:
    assert benchmark_targets(TARGETS) == {"GLUE": ("cola", "sst2", "rte"), "SuperGLUE": ("rte", "boolq", "cb")}
    assert benchmark_targets([*TARGETS, "glue_rte"])["GLUE"] == ("cola", "sst2", "glue_rte")
    assert benchmark_targets(["cola", "sst2", "boolq", "cb"]) == {}
    for name in ("generic-spot", "generic-spot-30k"):
        whole = benchmark_targets(load_study(name).targets)
        assert {benchmark: len(own) for benchmark, own in whole.items()} == {"GLUE": 8, "SuperGLUE": 8}


def test_the_scaled_down_study_is_what_its_first_lines_say(repo: Path) -> None:
    study = load_study("generic-spot-small")
    (trainings,) = {4250, sum(row.steps for row in plan_study(study).rows)}
    text = (repo / "recipes" / "studies" / "generic-spot-small.toml").read_text()
    assert f"{trainings:,} run-steps" in text
    assert {name: len(own) for name, own in benchmark_targets(study.targets).items()} == {"GLUE": 5, "SuperGLUE": 6}
    assert all(int(name.rsplit("_", 1)[1]) == len(tasks) for name, tasks in study.mixtures.items())
    assert set(study.mixtures) == set(study.sources)
    assert set(study.tasks_of("glue_8")) == (set(MIXTURES["glue"].tasks) - {"glue_rte"}) | {"rte"}
    for name in ("nli", "paraphrase_similarity", "sentiment"):
        (own,) = [tasks for mixture, tasks in study.mixtures.items() if mixture.startswith(name)]
        assert set(own) < set(MIXTURES[name].tasks)


def test_averages_by_hand() -> None:
    table = benchmark_table(results())
    assert table is not None
    assert table.columns == ("start", "GLUE (3 of 8 tasks)", "SuperGLUE (3 of 8 tasks)")
    assert [row[0] for row in table.rows] == ["from scratch", "from glue", "from mnli"]
    for s, (_, glue, superglue) in enumerate(table.rows):
        assert isinstance(glue, Cell)
        assert isinstance(superglue, Cell)
        # Means over targets 0..2 and 2..4, then over seeds 0 and 1, whose scores differ by 2.
        assert (glue.value, superglue.value) == (pytest.approx(10 + s + 1), pytest.approx(30 + s + 1))
        assert glue.std == pytest.approx(2**0.5)
        assert (glue.mark, superglue.mark) == (("best", "best") if s == 2 else ("", ""))
    assert table.notes == ("GLUE: cola, sst2, rte.", "SuperGLUE: rte, boolq, cb.")


def test_a_seed_that_lacks_a_target_is_not_averaged_over_the_rest() -> None:
    table = benchmark_table(results({("glue", "cola", 1), (None, "boolq", 0), (None, "boolq", 1)}))
    assert table is not None
    scratch, glue, mnli = table.rows
    assert [cell.text() for cell in glue[1:] if isinstance(cell, Cell)] == ["11.0 (1 of 2)", "32.0 ±1.4"]
    assert [cell.text() for cell in scratch[1:] if isinstance(cell, Cell)] == ["11.0 ±1.4", "pending"]
    assert all(not cell.mark for row in table.rows for cell in row[1:] if isinstance(cell, Cell))
    assert "pending" in table.to_text()
    assert mnli[0] == "from mnli"


def test_the_studies_of_a_ledger_side_by_side(tmp_path: Path) -> None:
    from tests.support.small_study import RUNNER, made

    targets = ["cola", "sst2", "rte", "boolq", "cb"]
    train = {"recipe": "spot", "steps": 8, "eval_every": 4}
    for name, steps in (("long", 8), ("short", 4)):
        study = made(name=name, targets=targets, source=train, target={**train, "steps": steps})
        assert run_study(study, tmp_path, runner=RUNNER).complete
    table = ledger_table(tmp_path, ["long", "short"])
    assert len(table.rows) == 6
    assert "pending" not in table.to_text()
    assert [path.name for path in write_table(table, tmp_path / "out")] == ["benchmarks.csv", "benchmarks.tex"]
    with pytest.raises(UsageError, match="say which one"):
        ledger_table(tmp_path)
    with pytest.raises(UsageError, match="holds no study 'middle'"):
        ledger_table(tmp_path, ["long", "middle"])


def test_longer_tuning_and_its_ablation_stand_in_one_table() -> None:
    table = joint_table({"": results(), "short": results({("mnli", "rte", 1)})})
    assert [row[0] for row in table.rows] == [
        "from scratch", "from glue", "from mnli", "from scratch (short)", "from glue (short)", "from mnli (short)",
    ]  # fmt: skip
    last = table.rows[-1][1]
    assert isinstance(last, Cell)
    assert last.text() == "12.0 (1 of 2)"
    other = Results(sources=(), targets=("cola", "sst2", "mrpc"), seeds=(0,), runs=())
    with pytest.raises(UsageError, match="study other has other benchmark targets"):
        joint_table({"": results(), "other": other})
    with pytest.raises(UsageError, match="fewer than 3 targets"):
        joint_table({"": Results(sources=(), targets=("cola", "x"), seeds=(0,), runs=())})


def test_the_report_has_the_table_where_the_targets_are_the_benchmarks(tmp_path: Path) -> None:
    found = results()
    report = write_report(Findings.of(found), tmp_path, figures=False)
    page = report.page.read_text()
    assert "Generic SPoT: average score" in page
    assert "GLUE (3 of 8 tasks)" in page
    assert (tmp_path / "tables" / "benchmarks.csv") in report.tables
    other = Results(sources=("a",), targets=("x",), seeds=(0,), runs=(RunScore(target="x", seed=0, score=1.0),))
    assert benchmark_table(other) is None
