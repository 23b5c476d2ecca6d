"""SharPT's Tables 1 to 3 on a study whose answers are known: who stands where, and what is not measured is not filled in."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from tests.support.results import one

from softprompt.analysis.comparison import (
    ablation_table,
    by_target_table,
    categories_of,
    crossed_table,
    mark_best,
    restricted,
)
from softprompt.analysis.methods import Methods
from softprompt.analysis.records import Cost, Results, StrategyScore
from softprompt.analysis.tables import Cell, Table, show
from softprompt.study.settings import study_of

SOURCES, TARGETS, SEEDS = ("mnli", "qnli", "sst2"), ("rte", "cr"), (0, 1)
GAINS = {
    ("mnli", "rte"): 9.0, ("qnli", "rte"): 5.0, ("sst2", "rte"): 1.0,
    ("mnli", "cr"): 2.0, ("qnli", "cr"): 3.0, ("sst2", "cr"): 8.0,
}  # fmt: skip
ARMS = {
    "sharpt": 69.0, "sharpt, no-source-training": 55.0, "sharpt, no-latent-space": 58.0, "model_tuning": 72.0,
    "multitask_model_tuning": 73.0, "race": 68.5,
}  # fmt: skip


def arm(name: str, score: float) -> list[StrategyScore]:
    return [
        StrategyScore(
            strategy=name, similarity="", k=0, target=target, seed=seed, score=score + seed, halves=(score, score + seed),
            cost=Cost(steps=10, tokens=100, seconds=1), tuned_parameters=7,
        )
        for target in TARGETS
        for seed in SEEDS
    ]  # fmt: skip


def made(arms: Iterable[str] = ARMS, sources: tuple[str, ...] = SOURCES) -> Results:
    """From scratch 60; each pair gains what `GAINS` says, whatever the seed; SharPT and the others as in `ARMS`."""
    runs = [one(target, seed, (60.0, 60.0)) for target in TARGETS for seed in SEEDS]
    for (source, target), gain in GAINS.items():
        score = 60.0 + gain
        runs += [one(target, seed, (score, score), (source, seed)) for seed in SEEDS if source in sources]
    strategies = tuple(score for name in arms for score in arm(name, ARMS[name]))
    return Results(
        sources=sources, targets=TARGETS, seeds=SEEDS, runs=tuple(runs), strategies=strategies, report_half=1,
        planned=tuple((name, "", 0) for name in arms),
    )  # fmt: skip


def rows(table: Table) -> dict[str, tuple[object, ...]]:
    return {str(row[0]): row[1:] for row in table.rows}


def test_dear_methods_stand_above_and_ablations_apart() -> None:
    results = made()
    table = by_target_table(Methods.of(results), results)
    above = [str(row[0]) for row in table.rows[: table.rules[0]]]
    below = [str(row[0]) for row in table.rows[table.rules[0] :]]
    assert above == ["oracle", "race", "model_tuning", "multitask_model_tuning"]
    assert below == ["prompt tuning", "sharpt"]
    cells = rows(table)
    assert [show(cell) for cell in cells["sharpt"]] == ["69.5 ±0.7"] * 3  # type: ignore[arg-type]
    # The oracle has one number a target: what its runs have in common is no spread.
    assert cells["oracle"] == (Cell(value=69.0), Cell(value=68.0), Cell(value=68.5))
    best = cells["multitask_model_tuning"][2]
    assert isinstance(best, Cell)
    assert (best.value, best.mark) == (73.5, "best")
    assert {name for name, row in cells.items() if isinstance(row[2], Cell) and row[2].mark == "second"} == {
        "model_tuning"
    }


def test_latex_has_panels_and_marks() -> None:
    results = made()
    text = by_target_table(Methods.of(results), results).to_latex()
    assert text.count(r"\midrule") == 2
    assert r"\textbf{73.5}" in text
    assert r"\underline{72.5}" in text
    assert text.index("multitask") < text.rindex(r"\midrule") < text.index("prompt tuning")


def test_ablations_beside_the_whole() -> None:
    results = made()
    table = ablation_table(Methods.of(results), results)
    assert table is not None
    assert [row[0] for row in table.rows] == ["sharpt", "sharpt, no-latent-space", "sharpt, no-source-training"]
    assert [show(row[-1]) for row in table.rows] == ["69.5 ±0.7", "58.5 ±0.7", "55.5 ±0.7"]
    assert ablation_table(Methods.of(made(["sharpt"])), results) is None
    begun = replace(results, strategies=tuple(s for s in results.strategies if "," not in s.strategy))
    table = ablation_table(Methods.of(begun), begun)
    assert table is not None
    assert [show(row[-1]) for row in table.rows] == ["69.5 ±0.7", "pending", "pending"]


def test_across_categories_only_other_sources_count() -> None:
    results = made()
    table = crossed_table(Methods.of(results), results)
    assert table is not None
    assert table.columns == ("method", "rte", "cr")
    cells = rows(table)
    # rte is given sst2's prompts alone, cr those of mnli and qnli; with all of them the oracle has 69 and 68.
    assert [show(cell) for cell in cells["oracle"]] == ["61.0", "63.0"]  # type: ignore[arg-type]
    assert [show(cell) for cell in cells["prompt tuning"]] == ["60.0 ±0.0"] * 2  # type: ignore[arg-type]
    assert [show(cell) for cell in cells["model_tuning"]] == ["72.5 ±0.7"] * 2  # type: ignore[arg-type]
    for name in ("sharpt", "multitask_model_tuning", "race"):  # these drew on all sources
        assert cells[name] == ("–", "–"), name
    assert not any("no-" in name for name in cells)
    assert "nli: mnli, qnli, rte; sentiment: sst2, cr" in table.notes[0]
    assert "not measured" in table.notes[1]


def test_across_categories_everything_counts_where_none_is_shared() -> None:
    results = replace(made(sources=("mnli", "qnli")), targets=("cr",))
    table = crossed_table(Methods.of(results), results)
    assert table is not None
    cells = rows(table)
    assert [show(cell) for cell in cells["sharpt"]] == ["69.5 ±0.7"]  # type: ignore[arg-type]
    assert [show(cell) for cell in cells["race"]] == ["69.0 ±0.7"]  # type: ignore[arg-type]
    assert not any("not measured" in note for note in table.notes)
    mixed = replace(made(sources=("mnli", "qnli")), sources=("mnli", "qnli"))
    table = crossed_table(Methods.of(mixed), mixed)
    assert table is not None
    assert table.columns == ("method", "cr")  # rte shares its category with both
    assert table.notes[-1].endswith("every source shares it: rte.")


def test_unknown_categories_are_left_out() -> None:
    results = made()
    renamed = replace(results, targets=("mine", "yours"))
    assert crossed_table(Methods.of(renamed), renamed) is None
    assert categories_of("mine") == frozenset()
    assert categories_of("yelp") == categories_of("yelp_polarity") == {"sentiment"}
    study = study_of(
        {"name": "s", "sources": ["both"], "targets": ["cb"], "mixtures": {"both": ["sst2", "mnli"]}, "source": {}}
    )
    assert categories_of("both", study) == {"sentiment", "nli"}
    assert categories_of("both") == frozenset()


def test_restricted_records_have_no_trace_of_the_rest() -> None:
    part = restricted(made(), ("sst2",), ("rte",))
    assert {run.source[0] for run in part.runs if run.source is not None} == {"sst2"}
    assert {run.target for run in part.runs} == {run.target for run in part.strategies} == {"rte"}
    assert {run.strategy for run in part.strategies} == {"model_tuning", *(name for name in ARMS if "no-" in name)}
    assert ("race", "", 0) not in part.planned


@pytest.mark.parametrize(("values", "marks"), [
    ((70.0, 72.0, 71.0), ("", "best", "second")),
    ((70.04, 70.01, 60.0), ("best", "best", "second")),
    ((70.0, None, 71.0), ("second", "", "best")),
    ((70.0, None, None), ("", "", "")),
])  # fmt: skip
def test_marks(values: tuple[float | None, ...], marks: tuple[str, ...]) -> None:
    cells = [(str(i), (Cell(value=value, done=0 if value is None else 1),)) for i, value in enumerate(values)]
    assert tuple(getattr(row[1][0], "mark", None) for row in mark_best(cells)) == marks
    part = [("a", (Cell(value=99.0, done=1, planned=3),)), ("b", (Cell(value=1.0),)), ("c", (Cell(value=2.0),))]
    assert [row[1][0].mark for row in mark_best(part)] == ["", "second", "best"]  # type: ignore[union-attr]
