"""Methods, their costs and the searches on a study whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.results import STEPS, TARGETS, ladder, noise_study

from softprompt.analysis.comparison import against_scratch_table, by_target_table, cost_points, cost_table, sharpt_table
from softprompt.analysis.methods import Methods, default_ks, paper_k
from softprompt.analysis.records import Results
from softprompt.analysis.searches import luck_table, paper_table, race_table, search_table, searches
from softprompt.analysis.sizes import averages
from softprompt.analysis.verdict import verdicts


def test_how_many_prompts_a_search_tries() -> None:
    assert [paper_k(n) for n in (1, 4, 12, 18, 48)] == [1, 1, 2, 3, 9]
    assert default_ks(48) == (1, 9)
    assert default_ks(18) == (1, 3, 9)
    assert default_ks(4) == (1,)


def test_scores_and_costs_by_method() -> None:
    found = Methods.of(ladder())
    assert found.oracle.score_TR[0].tolist() == [70.1, 70.1]
    assert (found.oracle.steps_TR[0, 0], found.oracle.tokens_TR[0, 0]) == (12 * STEPS, 12 * 990)
    assert found.baseline.score_TR.tolist() == [[60.0, 61.0]] * 3
    best = found.named("best_of_top_k", "per_token", 2)
    assert best is not None
    # The two nearest are both of f, whose best run is the second.
    assert best.score_TR[0].tolist() == [70.1, 70.1]
    assert best.steps_TR[0, 0] == 2 * STEPS + 30  # with the target's embedding
    assert best.cost_share(found.oracle) == pytest.approx((2 * 990 + 300) / (12 * 990))
    worst = found.named("best_of_top_k", "backwards", 1)
    assert worst is not None
    assert (worst.score_TR[0, 0], worst.steps_TR[0, 0]) == (60.0, STEPS)  # this ranking is free
    sharpt = found.named("sharpt")
    assert sharpt is not None
    assert (sharpt.steps_TR[0, 0], sharpt.parameters, sharpt.source_steps) == (45, 99, 80)
    assert found.baseline.parameters == 640
    drawn = found.named("random", k=1)
    assert drawn is not None
    assert drawn.score_TR[0, 0] == pytest.approx(np.mean([60 + 2 * i + 0.1 * s for i in range(6) for s in (0, 1)]))


def test_all_seeds_from_scratch_are_the_baseline() -> None:
    found = Methods.of(ladder(scratch=5))
    assert found.baseline.score_TR.shape == (3, 5)
    assert found.gain_T(found.baseline) == pytest.approx(np.zeros(3))
    assert found.choices.scratch_T().tolist() == [62.0] * 3
    unpriced = Methods.of(replace(ladder(), predictor_costs={}))
    lost = unpriced.named("best_of_top_k", "backwards", 1)
    assert lost is not None
    assert np.isnan(lost.tokens_TR).all()  # what is not known is not taken for nothing
    assert not np.isnan(lost.score_TR).any()


def test_a_race_that_was_run() -> None:
    results = ladder(race=True)
    found = Methods.of(results)
    assert found.race is not None
    assert (found.race.name, found.race.tunings) == ("race", 12)
    assert [m.name for m in found.others] == ["sharpt"]
    row = next(s for s in searches(found) if s.method.strategy == "race")
    assert row.cost == pytest.approx(1 / 12)
    assert row.kept.mean == pytest.approx((69.0 - 60.5) / (70.2 - 60.5))
    table = race_table(found, results)
    assert table is not None
    assert table.rows[0][1:3] == ("13 > 3 > 1", "f.0, f.0")
    assert table.rows[0][5:] == (f"{100 * 100 / (12 * STEPS):.1f}%", "8.3%")
    part = replace(results, strategies=results.strategies[:-1])
    table = race_table(Methods.of(part), part)
    assert table is not None
    assert table.rows[-1][-1] == "pending"
    assert race_table(Methods.of(ladder()), ladder()) is None


def test_shares_only_of_a_gain_that_is_clear_of_zero() -> None:
    clear = {str(row[0]): row for row in search_table(Methods.of(ladder()), ladder()).rows}
    assert str(clear["oracle"][6]) == "100% [100, 100]"
    noise = noise_study()
    unclear = search_table(Methods.of(noise), noise)
    assert {row[6] for row in unclear.rows} == {"no clear gain"}


def test_luck_is_taken_off() -> None:
    results = noise_study()
    average = luck_table(Methods.of(results), results).rows[-1]
    assert isinstance(average[4], float)
    assert isinstance(average[5], float)
    assert average[4] > 0.5  # what the search seems better by where it was chosen
    assert abs(average[5]) < 1.0  # nothing is left against as many seeds from scratch


def test_the_papers_table_chooses_and_reports_on_the_same_rows() -> None:
    results = noise_study()
    table = paper_table(results, (1, 3))
    oracle = next(row for row in table.rows if row[0] == "oracle")
    best = np.mean([max(r.score for r in results.runs if r.target == t and r.source) for t in ("x", "y", "z")])
    assert oracle[2] == pytest.approx(best)
    assert table.name == "strategies"
    assert "on the same rows" in table.notes[0]


def test_tables_of_methods() -> None:
    results = ladder()
    found = Methods.of(results)
    table = by_target_table(found, results)
    # SharPT's Table 1: what tunes several prompts a target stands above, what tunes one below.
    several = [f"best_of_top_k (k = {k}, per token)" for k in (2, 9)]
    assert [row[0] for row in table.rows[: table.rules[0]]] == ["oracle", *several]
    assert [row[0] for row in table.rows[table.rules[0] :]] == [
        "prompt tuning", "best_of_top_k (k = 1, per token)", "sharpt",
    ]  # fmt: skip
    costs = {str(row[0]): row for row in cost_table(found).rows}
    assert costs["oracle"][4] == "100.0%"
    assert str(costs["sharpt"][2]).startswith("+8.5 [+6.0")
    assert costs["sharpt"][3:] == ("45", f"{100 * 400 / (12 * 990):.1f}%", "5.0", "99", "80")
    points = {point.name: point for point in cost_points(found)}
    assert points["prompt tuning"].share == pytest.approx(1 / 12)
    assert points["prompt tuning"].gain.mean == 0.0
    tested = {str(row[0]): row for row in against_scratch_table(found).rows}
    assert "prompt tuning" not in tested
    assert tested["sharpt"][2] == "0.250"  # three targets: no sign pattern is rarer
    assert tested["sharpt"][-1] == "3/3"
    assert "cannot give a p below 0.25" in against_scratch_table(found).notes[-1]
    assert list(averages(results)) == ["prompt tuning", "sharpt"]
    assert averages(results)["prompt tuning"].value == pytest.approx(found.baseline.cell().value)


def test_verdicts_come_from_the_intervals() -> None:
    told = {v.question: v for v in verdicts(Methods.of(ladder(scratch=4)), ladder(scratch=4))}
    best = told["Does the best of all source prompts beat it?"]
    assert best.answer == "yes"
    assert "better on 3 of 3 targets" in best.told
    assert told["Does the guard hold harm back?"].answer == "pending"
    noise = verdicts(Methods.of(noise_study()), noise_study())
    assert {v.answer for v in noise} <= {"not shown", "pending"}
    empty = Results(sources=("a", "b"), targets=("x",), seeds=(0,), runs=())
    assert {v.answer for v in verdicts(Methods.of(empty), empty)} == {"pending"}
    table = sharpt_table(Methods.of(ladder()))
    assert table is not None
    assert {str(row[0]): row[1] for row in table.rows}[
        "oracle"
    ] == "-1.2 [-3.4, +1.0]"  # 69 on average, the oracle 70.2
    assert sharpt_table(Methods.of(noise_study())) is None


def test_one_target_has_no_interval() -> None:
    results = ladder()
    single = replace(results, targets=("x",), runs=tuple(r for r in results.runs if r.target == "x"))
    rows = {str(row[0]): row for row in search_table(Methods.of(single), single).rows}
    assert rows["oracle"][3] == "+9.6 [-]"
    assert rows["oracle"][6] == "no clear gain"


def test_unfinished_is_pending_never_zero() -> None:
    results = ladder(race=True)
    part = replace(results, runs=results.runs[:-1], strategies=results.strategies[:-1])
    found = Methods.of(part)
    assert np.isnan(found.oracle.score_TR[2]).all()
    assert not np.isnan(found.oracle.score_TR[0]).any()
    costs = {str(row[0]): row for row in cost_table(found).rows}
    assert costs["oracle"][2] == costs["race"][2] == costs["oracle"][4] == "pending"
    assert {row[-1] for row in search_table(found, part).rows} == {"pending"}
    empty = Results(sources=("a",), targets=("x",), seeds=(0,), runs=())
    nothing = Methods.of(empty)
    # What is planned and not begun stands in the tables, as pending.
    begun = replace(results, strategies=(), planned=(("sharpt", "", 0), ("weighted_average", "per_token", 3)))
    rows = {str(row[0]): row for row in cost_table(Methods.of(begun)).rows}
    for name in ("sharpt", "weighted_average (k = 3, per token)"):
        assert rows[name][2] == rows[name][3] == rows[name][4] == "pending", name
    for table in (cost_table(nothing), search_table(nothing, empty), luck_table(nothing, empty)):
        assert "0.0" not in table.to_csv(), table.name
    assert results.targets == TARGETS
