"""A race as a cell of a study, on a tiny random T5: what it records, what it costs, and that it resumes."""

import os
import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tests.support.tuned_study import backbone, made

from softprompt.analysis.methods import Methods
from softprompt.analysis.read import collect
from softprompt.analysis.records import Results
from softprompt.errors import Interrupted, UsageError
from softprompt.report.study import report_study
from softprompt.study.build import build_grid
from softprompt.study.grid import Pack, packs, unresolved_facts
from softprompt.study.ledger import Ledger
from softprompt.study.plan import plan_study
from softprompt.study.run import facts_of, open_study, run_study
from softprompt.study.runner import PromptRunner
from softprompt.study.settings import Study

__all__ = ["backbone"]  # the fixture

STEPS = 8


def raced(backbone: Path, strategies: Mapping[str, object] | None = None, **changes: object) -> Study:
    train = {
        "recipe": "quick", "steps": STEPS, "batch_size": 4, "prompt_length": 4, "eval_every": 4, "max_input_tokens": 24,
        "warmup_steps": 0,
    }  # fmt: skip
    return made(
        backbone,
        name="raced",
        protocol="halves",
        sources=["gen_sentiment_film", "gen_paraphrase_sentence"],
        target=train,
        strategies=strategies or {"best_of_top_k": [1], "race": True},
        **changes,
    )


@pytest.fixture(scope="module")
def finished(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raced")
    summary = run_study(raced(backbone), folder)
    assert summary.complete, summary.failed
    return folder


def results_of(folder: Path) -> tuple[Study, Ledger, Results]:
    study, ledger, noted = open_study(folder)
    return study, ledger, collect(study, ledger, facts_of(study, noted))


def test_a_study_says_how_its_races_drop_runs(backbone: Path) -> None:
    facts = PromptRunner().facts(raced(backbone))
    races = {}
    for rule in ({}, {"race_keep": 0.5, "race_rows": 3}):
        study = raced(backbone, strategies={"race": True, **rule})
        (first, _) = build_grid(study, facts).of_kind("race")
        races[first.key] = (first.spec["keep"], first.spec["look_rows"], first.steps)
    assert list(races.values()) == [(0.3, 100, 16), (0.5, 3, 5 * 2 + 2 * 2 + 4)]  # four source prompts and scratch
    with pytest.raises(UsageError, match="race_keep must be"):
        raced(backbone, strategies={"race": True, "race_keep": 1.0})


@pytest.mark.slow
def test_a_race_records_all_its_runs(finished: Path) -> None:
    study, ledger, noted = open_study(finished)
    grid = build_grid(study, facts_of(study, noted))
    (cell, other) = grid.of_kind("race")
    assert (cell.spec["target"], cell.spec["seed"], other.spec["seed"]) == ("gen_sentiment_hotel", 0, 1)
    assert set(cell.parents) == {source.id for source in grid.of_kind("source")}
    told = ledger.read("race", cell.key).result
    # Four source prompts and one start from scratch: 5 > 1, dropped after 30 % of eight steps.
    assert (told["rungs"], told["fields"]) == ([2], [5, 1])
    racers = {row["name"]: row for row in told["racers"]}
    assert set(racers) == {
        "scratch", "gen_sentiment_film.0", "gen_sentiment_film.1", "gen_paraphrase_sentence.0", "gen_paraphrase_sentence.1",
    }  # fmt: skip
    assert sorted(row["steps"] for row in racers.values()) == [2, 2, 2, 2, STEPS]
    assert racers[told["survivor"]]["steps"] == STEPS
    assert told["steps"] == 4 * 2 + STEPS == cell.steps
    assert told["tokens"] == sum(row["tokens"] for row in racers.values())
    assert told["eval_tokens"] == sum(row["eval_tokens"] for row in racers.values())
    best = max(row["score"] for row in racers.values() if row["name"] != told["survivor"])
    assert told["curve"][0]["score"] >= best  # it stood first, or tied, at the rung
    assert told["curve"][0]["rows"] == 8  # half of the validation rows choose
    # The survivor is measured on all 16 rows, which is no part of the search; the dropped runs are not.
    own = racers[told["survivor"]]
    searched = told["validation_tokens"] - sum(r["eval_tokens"] for r in racers.values() if r["steps"] == 2)
    assert searched == pytest.approx(own["eval_tokens"] * 24 / 40)
    assert ledger.tensors("race", cell.key)["best"].shape[0] == 4


@pytest.mark.slow
def test_a_survivor_is_evaluated_and_stands_in_the_tables(finished: Path, tmp_path: Path) -> None:
    study, ledger, results = results_of(finished)
    runs = [run for run in results.strategies if run.strategy == "race"]
    assert [(run.seed, run.race_field) for run in runs] == [(0, (5, 1)), (1, (5, 1))]
    assert all(run.halves is not None and run.survivor for run in runs)
    found = Methods.of(results)
    assert found.race is not None
    assert found.race.name == "race"
    assert found.race.steps_TR.tolist() == [[16.0, 16.0]]
    told = [ledger.read("race", key).result for key in ledger.keys("race")]
    tokens = sorted(2 * one["tokens"] + one["validation_tokens"] for one in told)
    assert sorted(found.race.tokens_TR.flatten().tolist()) == pytest.approx(tokens)
    assert not np.isnan(found.race.score_TR).any()
    report = report_study(finished, tmp_path, figures=False)
    tables = {path.name: path.read_text() for path in report.tables}
    assert "race, replayed" not in tables["methods_cost.csv"]
    assert "5 > 1" in tables["race.csv"]
    assert study.strategies.race


@pytest.mark.slow
def test_a_race_goes_on_where_it_was_stopped(finished: Path, backbone: Path, tmp_path: Path) -> None:
    study, ledger, noted = open_study(finished)
    grid = build_grid(study, facts_of(study, noted))
    cell = grid.of_kind("race")[0]
    (pack,) = packs(grid, [cell], 8)
    assert [child.kind for child in pack.made] == ["evaluation"]
    expected, tensors = ledger.read("race", cell.key).result, ledger.tensors("race", cell.key)
    for stop in (1, 2, 5):  # before the rung, at it, and after
        other = again(study, ledger, cell.parents, tmp_path / f"ledger-{stop}")

        asked: list[int] = []

        def tell(step: int, steps: int, stop: int = stop, asked: list[int] = asked) -> None:
            if step == stop and not asked:  # a validation tells its step again, and a second Ctrl-C would stop at once
                asked.append(step)
                os.kill(os.getpid(), signal.SIGINT)

        folder = tmp_path / f"run-{stop}"
        with pytest.raises(Interrupted):
            PromptRunner("cpu").make(study, pack, other, folder, {}, tell)
        assert not other.has("race", cell.key)
        PromptRunner("cpu").make(study, Pack.of_plain(pack.plain()), other, folder, {})
        found = other.read("race", cell.key).result
        assert {**found, "seconds": 0} == {**expected, "seconds": 0}
        assert (other.tensors("race", cell.key)["final"] == tensors["final"]).all()


def again(study: Study, ledger: Ledger, parents: tuple[tuple[str, str], ...], folder: Path) -> Ledger:
    """A ledger with the parents alone."""
    other = Ledger(folder)
    for kind, key in parents:
        record = ledger.read(kind, key)
        other.write(kind, key, record.identity, record.result, ledger.tensors(kind, key), {})
    return other


def test_a_race_touches_no_other_key(backbone: Path) -> None:
    with_race, without = raced(backbone), raced(backbone)
    without = Study(**{**vars(without), "strategies": type(without.strategies)(best_of_top_k=(1,))})
    many, few = (build_grid(s, unresolved_facts(s)) for s in (with_race, without))
    assert set(few.cells) < set(many.cells)
    added = [cell for cell in many.cells.values() if cell.id not in few.cells]
    assert sorted(cell.kind for cell in added) == ["evaluation", "evaluation", "race", "race"]
    assert "race" in asdict(with_race)["strategies"]
    row = next(row for row in plan_study(with_race).rows if row.kind == "race")
    assert (row.cells, row.steps) == (2, 2 * 16)
    assert row.work.train > 0
    assert row.work.validation > 0
    with pytest.raises(UsageError, match="race takes true or false"):
        made(backbone, strategies={"race": 3})
