"""Study files: the ready ones load, unknown keys and bad values are refused, resolved settings read back."""

import dataclasses
from pathlib import Path

import pytest

from softprompt.errors import DataError, SoftpromptError, UnknownNameError, UsageError
from softprompt.methods.spot.race import race_cost
from softprompt.study.build import build_grid
from softprompt.study.grid import unresolved_facts
from softprompt.study.recipes import sharpt_settings
from softprompt.study.settings import Study, load_study, ready_studies, study_of
from softprompt.tasks.catalog import task_names
from softprompt.tasks.mixture import MIXTURES

BASE = {"name": "x", "sources": ["a"], "targets": ["b"]}


@pytest.mark.parametrize("name", sorted(ready_studies()))
def test_ready_studies_load_and_name_known_tasks(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    assert set(study.all_tasks) <= set(task_names()), set(study.all_tasks) - set(task_names())
    assert dataclasses.asdict(study_of(study.plain())) == study.plain()


def test_there_are_the_promised_studies() -> None:
    assert {
        "paper",
        "sharpt",
        "cross-category",
        "small",
        "demo",
        "generic-spot",
        "generic-spot-30k",
        "stability",
    } <= set(ready_studies())


def test_the_paper_study_is_the_papers() -> None:
    study = load_study("paper")
    assert (len(study.sources), len(study.targets), len(study.seeds)) == (16, 10, 3)
    assert (study.source.steps, study.target.steps, study.embedding.step) == (262_144, 100_000, 10_000)
    assert study.source.batch_size == 32
    grid = build_grid(study, unresolved_facts(study))
    assert len(grid.of_kind("source")) == 48
    assert len(grid.of_kind("transfer")) == 480
    assert len(grid.of_kind("baseline")) == 30
    assert set(load_study("sharpt").sources) == set(study.sources) - {"c4"}
    generic = load_study("generic-spot")
    assert (generic.source.steps, load_study("generic-spot-30k").target.steps) == (262_144, 30_000)
    assert generic.tasks_of("glue") == MIXTURES["glue"].tasks
    assert len(load_study("stability").seeds) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sorces": ["a"]}, r"unknown key .* 'sorces': did you mean sources"),
        ({"source": {"recipe": "spot", "step": 3}}, r"\[source\] 'step': did you mean steps"),
        ({"target": {"recipe": "spott"}}, "did you mean spot"),
        ({"strategies": {"best_of_topk": [1]}}, "best_of_top_k"),
        ({"strategies": {"similarities": ["per-token"]}}, "per_token"),
        ({"strategies": {"best_of_top_k": 3}}, r"\[strategies\]: best_of_top_k takes a list"),
        ({"embedding": {"step": 0}}, "at least 1"),
        ({"protocol": "halfs"}, "halves"),
        ({"sources": []}, "names no source"),
        ({"targets": "rte"}, "a list is needed"),
        ({"seeds": [0, 0]}, "twice"),
        ({"seeds": 3}, "a list is needed"),
        ({"group": "many"}, "whole number"),
        ({"name": "../x"}, "cannot be a folder"),
        ({"source": {"recipe": "spot", "prompt_length": 20}}, "keeps its length"),
        ({"source": {"recipe": "spot", "steps": 0}}, "at least 1"),
        ({"mixtures": {"a": []}}, "has no tasks"),
    ],
)
def test_bad_values_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SoftpromptError, match=message):
        study_of({**BASE, **change})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('name = "x"\nsources = a\n')
    with pytest.raises(DataError, match="line"):
        load_study(path)
    with pytest.raises(UnknownNameError, match="did you mean paper"):
        load_study("papr")
    path.write_text('name = "x"\ntargets = ["b"]\n')
    with pytest.raises(UsageError, match="has no 'sources'"):
        load_study(path)


def test_source_mixtures() -> None:
    assert not set(MIXTURES) & set(task_names())  # a source's name means one thing
    study = study_of({**BASE, "sources": ["mix", "nli", "mnli"], "mixtures": {"mix": ["a", "b"]}})
    assert study.tasks_of("mix") == ("a", "b")
    assert study.tasks_of("nli") == MIXTURES["nli"].tasks
    assert study.tasks_of("mnli") == ("mnli",)
    assert study.all_tasks[:2] == ("a", "b")
    assert study_of({**BASE, "seeds": [1, 4], "scratch_seeds": 3}).further_seeds == (0, 2, 3)


def test_targets_of_few_rows_keep_the_sources_whole() -> None:
    study = study_of({**BASE, "train_rows": 800, "target_train_rows": 64})
    assert (study.rows_of("a")["train"], study.rows_of("b")["train"]) == (800, 64)
    assert study_of({**BASE, "target_train_rows": 64}).rows_of("a")["train"] is None
    assert study_of({**BASE, "train_rows": 800}).rows_of("b")["train"] == 800
    with pytest.raises(UsageError, match="b is a source too"):
        study_of({**BASE, "sources": ["a", "b"], "target_train_rows": 64})


def test_targets_are_measured_on_rows_of_their_own_number() -> None:
    study = study_of(
        {
            **BASE,
            "targets": ["b", "c"],
            "validation_rows": 400,
            "target_validation_rows": 200,
            "rows": {"c": {"validation": 50}},
        }
    )
    assert [study.rows_of(task)["validation"] for task in ("a", "b", "c")] == [400, 200, 50]
    assert study_of({**BASE, "validation_rows": 400}).rows_of("b")["validation"] == 400
    with pytest.raises(UsageError, match="target_validation_rows = 200, and b is a source too"):
        study_of({**BASE, "sources": ["a", "b"], "target_validation_rows": 200})


def _only_scratch_of_twice_the_steps(longer: Study, regime: Study) -> None:
    assert longer.target == regime.target.having(steps=2 * regime.target.steps)
    alike = (
        "targets", "seeds", "scratch_seeds", "protocol", "target_train_rows", "train_rows", "validation_rows",
        "target_validation_rows", "rows", "backbone",
    )  # fmt: skip
    assert [getattr(longer, name) for name in alike] == [getattr(regime, name) for name in alike]
    assert {cell.kind for cell in build_grid(longer, unresolved_facts(longer)).cells.values() if cell.steps} == {
        "baseline"
    }


def test_the_preregistered_study_is_what_its_plan_says() -> None:
    few, full = load_study("smollm2"), load_study("smollm2-full")
    assert (len(few.sources), len(few.targets), len(few.seeds)) == (6, 8, 3)
    assert len(few.seeds) + few.scratch_seeds == 5
    assert set(few.sources).isdisjoint(few.targets)
    assert (few.protocol, few.target_train_rows, full.target_train_rows) == ("halves", 64, 0)
    same = dataclasses.replace(
        full, name=few.name, title=few.title, target_train_rows=64, target=few.target, sharpt=few.sharpt,
        model_tuning=few.model_tuning, source=few.source, strategies=few.strategies,
    )  # fmt: skip
    assert same == few  # the regimes differ in rows and steps, and in mixtures
    again = load_study("smollm2-long-sources")
    assert (again.source, again.strategies) == (full.source, full.strategies)
    assert again.source == few.source.having(steps=800, batch_size=8, eval_every=200)
    cheaper = {"race_keep": few.strategies.race_keep, "race_rows": few.strategies.race_rows}
    assert dataclasses.replace(full.strategies, multitask_mixture=(3,), **cheaper) == few.strategies
    rule = {"keep": full.strategies.race_keep, "look_rows": full.strategies.race_rows, "select_rows": 100}
    assert [race_cost(18, one.target, **rule).share <= 0.145 for one in (full, again)] == [True, True]
    same = dataclasses.replace(
        again, name=few.name, title=few.title, source=few.source, strategies=few.strategies, methods=few.methods,
        sharpt=few.sharpt, model_tuning=few.model_tuning,
    )  # fmt: skip
    assert same == few  # and the repetition in its sources
    assert (
        sharpt_settings(few).target.batch_size == few.target.batch_size
    )  # SharPT sees no more rows than the other prompts
    for regime, name in ((few, "smollm2-long-scratch"), (full, "smollm2-full-long-scratch")):
        _only_scratch_of_twice_the_steps(load_study(name), regime)
    shared = [cell.key for cell in build_grid(few, unresolved_facts(few)).of_kind("source")]
    assert shared != [cell.key for cell in build_grid(full, unresolved_facts(full)).of_kind("source")]
    for kind, other in (("source", full), ("baseline", few)):
        keys = [cell.key for cell in build_grid(again, unresolved_facts(again)).of_kind(kind)]
        assert keys == [cell.key for cell in build_grid(other, unresolved_facts(other)).of_kind(kind)]
