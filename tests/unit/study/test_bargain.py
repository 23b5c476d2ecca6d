"""Outcomes, the bargain, the methods' costs and the figures, on a study whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest

from softprompt.methods.spot.race import KEEP
from softprompt.study.bargain import bargain_table, bargains, race_table, ratio, share_text
from softprompt.study.headline import headline_table
from softprompt.study.judged import COMBINED, with_combination
from softprompt.study.methods import (
    against_scratch_table,
    cost_points,
    cost_share,
    cost_table,
    with_interval,
)
from softprompt.study.outcomes import Outcome, Outcomes, bargain_ks, paper_k
from softprompt.study.panels import by_target_table
from softprompt.study.records import Cost, Floats, Point, Results, RunScore, StrategyScore
from softprompt.study.schedules import schedule_table, schedules
from softprompt.study.statistics import Interval

SOURCES, TARGETS, SEEDS = tuple("abcdef"), ("x", "y", "z"), (0, 1)
STEPS = 90


def one(target: str, seed: int, pair: tuple[float, float], source: tuple[str, int] | None = None) -> RunScore:
    curve = tuple(Point(step=step, score=pair[0] - (STEPS - step) / 10, loss=1.0) for step in range(10, STEPS + 1, 10))
    return RunScore(
        target=target, seed=seed, score=pair[1], source=source, halves=pair, steps=STEPS, curve=curve, seconds=9.0,
        train_tokens=900.0, validation_tokens=90.0,
    )  # fmt: skip


def direction(degrees: float) -> Floats:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), np.sin(angle)]])


def made(*, scratch: int = 2, gain: float = 1.0) -> Results:
    """Six source tasks, three targets, two seeds; source i gains 2 i points, and embeddings say so."""
    runs = [one(t, seed, (60.0 + seed, 60.0 + seed)) for t in TARGETS for seed in range(scratch)]
    for target in TARGETS:
        for i, source in enumerate(SOURCES):
            for seed in SEEDS:
                score = 60.0 + gain * (2 * i + 0.1 * seed)
                runs.append(one(target, seed, (score, score), (source, seed)))
    embeddings = {(source, seed): direction(75 - 15 * i + seed) for i, source in enumerate(SOURCES) for seed in SEEDS}
    embeddings |= {(target, seed): direction(0) for target in TARGETS for seed in SEEDS}
    price = Cost(steps=30, tokens=300, seconds=3)
    return Results(
        sources=SOURCES,
        targets=TARGETS,
        seeds=SEEDS,
        runs=tuple(runs),
        embeddings=embeddings,
        predictors={"data-size": {(s, r): dict.fromkeys(TARGETS, -float(i)) for i, s in enumerate(SOURCES) for r in SEEDS}},
        report_half=1,
        embedding_costs={(target, seed): price for target in TARGETS for seed in SEEDS},
        predictor_costs={"data-size": dict.fromkeys(TARGETS, Cost())},
        source_steps=1200,
        prompt_parameters=640,
        strategies=tuple(
            StrategyScore(
                strategy="sharpt", similarity="", k=0, target=t, seed=seed, score=68.0, halves=(68.0, 68.0),
                cost=Cost(steps=45, tokens=400, seconds=5), tuned_parameters=99, source_steps=80,
            )
            for t in TARGETS
            for seed in SEEDS
        ),
    )  # fmt: skip


def named(found: Outcomes, name: str) -> Outcome:
    rows = [found.baseline, found.oracle, *([found.race] if found.race else []), *found.searches, *found.methods]
    return next(o for o in rows if o.name == name)


def test_how_many_prompts_the_bargain_tries() -> None:
    assert [paper_k(n) for n in (1, 4, 12, 18, 48)] == [1, 1, 2, 3, 9]
    assert bargain_ks(48) == (1, 9)
    assert bargain_ks(18) == (1, 3, 9)
    assert bargain_ks(4) == (1,)


def test_scores_and_costs_by_method() -> None:
    found = Outcomes.of(made())
    assert found.oracle.score_TR.tolist() == [[70.1, 70.1]] * 3
    assert (found.oracle.steps_TR[0, 0], found.oracle.tokens_TR[0, 0]) == (12 * STEPS, 12 * 990)
    assert found.baseline.score_TR.tolist() == [[60.0, 61.0]] * 3
    best = named(found, "best_of_top_k (k = 2, per token)")
    # The two nearest are both of f, whose best run is the second.
    assert best.score_TR.tolist() == [[70.1, 70.1]] * 3
    assert best.steps_TR[0, 0] == 2 * STEPS + 30  # with the target's embedding
    assert cost_share(best, found.oracle) == pytest.approx((2 * 990 + 300) / (12 * 990))
    worst = named(found, "best_of_top_k (k = 1, data-size)")
    assert (worst.score_TR[0, 0], worst.steps_TR[0, 0]) == (60.0, STEPS)  # data sizes are free
    sharpt = named(found, "sharpt")
    assert (sharpt.steps_TR[0, 0], sharpt.parameters, sharpt.source_steps) == (45, 99, 80)
    assert found.baseline.parameters == 640
    drawn = named(found, "random choice (k = 1)")
    assert drawn.score_TR[0, 0] == pytest.approx(np.mean([60 + 2 * i + 0.1 * s for i in range(6) for s in SEEDS]))


def test_the_race_keeps_the_gain_for_less() -> None:
    found = Outcomes.of(made())
    assert found.race is not None
    assert found.race.score_TR.tolist() == [[70.1, 70.1]] * 3
    # 13 candidates, rungs at 8 and 27: the first validation is at 10, so one rung is held, at 20, and the rest at the end.
    assert found.race.steps_TR[0, 0] == 10 * 20 + 3 * STEPS
    table = race_table(found, made())
    assert table is not None
    assert table.rows[0][1:4] == ("13 > 3 > 1", "2 of 2", "f, seed 1")
    row = next(b for b in bargains(found) if b.outcome.strategy == "race, replayed")
    assert row.gain_kept.mean == pytest.approx(1.0)
    assert row.cost == pytest.approx(found.race.tokens_TR[0, 0] / (12 * 990))


def test_a_race_that_was_run_stands_before_the_replay() -> None:
    results = made()
    price = Cost(steps=100, tokens=990.0, seconds=3)
    raced = tuple(
        StrategyScore(
            strategy="race", similarity="", k=0, target=t, seed=seed, score=69.0, halves=(71.0, 69.0), cost=price,
            survivor="f.0", race_field=(13, 3, 1),
        )
        for t in TARGETS
        for seed in SEEDS
    )  # fmt: skip
    planned = (("race", "", 0),)
    whole = replace(results, planned=planned, strategies=(*results.strategies, *raced))
    found = Outcomes.of(whole)
    assert found.race is not None
    assert (found.race.name, found.race.tunings) == ("race", 12)
    assert found.race.score_TR.tolist() == [[69.0, 69.0]] * 3
    assert [o.name for o in found.methods] == ["sharpt"]
    row = next(b for b in bargains(found) if b.outcome.strategy == "race")
    assert row.cost == pytest.approx(1 / 12)
    assert row.gain_kept.mean == pytest.approx((69.0 - 60.5) / (70.1 - 60.5))
    names = [row[0] for row in cost_table(found).rows]
    assert names.count("race") == 1
    assert "race, replayed" not in names
    table = race_table(found, whole)
    assert table is not None
    assert table.rows[0][1:3] == ("13 > 3 > 1", "f.0, f.0")
    assert table.rows[0][5:] == (f"{100 * 100 / (12 * STEPS):.1f}%", "8.3%")
    lines = {str(row[0]): str(row[1]) for row in headline_table(found, whole).rows}
    assert lines["cost of race, share of the oracle's"] == "8%"
    assert lines["gain kept by race"].startswith("89% [")
    # One race is missing: what was measured is not completed with what was replayed.
    part = replace(whole, strategies=whole.strategies[:-1])
    costs = {str(row[0]): row for row in cost_table(Outcomes.of(part)).rows}
    assert costs["race"][1] == "pending"
    table = race_table(Outcomes.of(part), part)
    assert table is not None
    assert table.rows[-1][-1] == "pending"
    # None is finished: the replay stands in, and the plan adds no empty line.
    begun = Outcomes.of(replace(results, planned=planned))
    assert begun.race is not None
    assert (begun.race.name, [o.name for o in begun.methods]) == ("race, replayed", ["sharpt"])


def test_excess_is_held_against_as_many_runs_from_scratch() -> None:
    found = Outcomes.of(made(scratch=4))  # 60, 61, 62, 63
    rows = {b.outcome.name: b for b in bargains(found)}
    assert rows["oracle"].excess.mean == pytest.approx(70.1 - 63)
    two = rows["best_of_top_k (k = 2, per token)"]
    expected = np.mean([61, 62, 63, 62, 63, 63])  # the best of every pair
    assert two.excess.mean == pytest.approx(70.1 - expected)
    assert two.gain_kept.mean == pytest.approx(1.0)
    assert two.excess_kept.mean == pytest.approx((70.1 - expected) / (70.1 - 63))
    note = " ".join(bargain_table(found, made(scratch=4)).notes)
    assert "there are 4 of them a target; a search over more than 4 is held against the best of 4" in note


def test_no_gain_has_no_share() -> None:
    found = Outcomes.of(made(gain=0.0))
    text = bargain_table(found, made(gain=0.0)).to_text()
    assert "no gain" in text
    assert "no gain to keep" in headline_table(found, made(gain=0.0)).to_text()
    assert np.isnan(ratio(np.ones((2, 2)), -np.ones((2, 2))).mean)
    # The whole is above zero on average, but half of the resamples have nothing to keep.
    wide = ratio(np.array([[1.0], [1.0]]), np.array([[5.0], [-4.0]]))
    assert (wide.mean, np.isnan(wide.low)) == (2.0, True)
    assert share_text(wide, True) == "open"
    sure = ratio(np.array([[1.0], [3.0]]), np.array([[2.0], [6.0]]))
    assert (sure.mean, sure.low, sure.high) == (0.5, 0.5, 0.5)


def test_the_combination_pays_for_all_it_asks() -> None:
    results = with_combination(made())
    assert COMBINED in results.predictors
    found = Outcomes.of(results)
    combined = next(o for o in found.searches if o.ranking == COMBINED and o.k == 1)
    assert combined.tokens_TR[0, 0] == 990 + 300 + 0
    unpriced = Outcomes.of(replace(results, predictor_costs={}))
    lost = next(o for o in unpriced.searches if o.ranking == COMBINED and o.k == 1)
    assert np.isnan(lost.tokens_TR).all()  # what is not known is not taken for nothing
    assert not np.isnan(lost.score_TR).any()


def test_tables_of_methods() -> None:
    results = made()
    found = Outcomes.of(results)
    table = by_target_table(found, results)
    # SharPT's Table 1: what tunes several prompts a target stands above, what tunes one below.
    several = [f"best_of_top_k (k = {k}, per token)" for k in (2, 9)]
    assert [row[0] for row in table.rows[: table.rules[0]]] == ["oracle", "race, replayed", *several]
    assert [row[0] for row in table.rows[table.rules[0] :]] == [
        "prompt tuning", "best_of_top_k (k = 1, per token)", "sharpt",
    ]  # fmt: skip
    costs = {str(row[0]): row for row in cost_table(found).rows}
    assert costs["oracle"][4] == "100.0%"
    assert str(costs["sharpt"][2]).startswith("+7.5 [+7.")
    assert costs["sharpt"][3:] == ("45", f"{100 * 400 / (12 * 990):.1f}%", "5.0", "99", "80")
    points = {name: (share, gain) for name, share, gain, _ in cost_points(found)}
    assert points["prompt tuning"][0] == pytest.approx(1 / 12)
    assert points["prompt tuning"][1] == 0.0
    tested = {str(row[0]): row for row in against_scratch_table(found).rows}
    assert "prompt tuning" not in tested
    assert tested["sharpt"][1] == pytest.approx(7.5)
    assert tested["sharpt"][3] == "0.250"  # three targets: no sign pattern is rarer
    assert tested["sharpt"][-1] == "3/3"
    assert with_interval(Interval(mean=float("nan"), low=0, high=0)) == "pending"


def test_figures() -> None:
    results = made(scratch=4)
    lines = {str(row[0]): str(row[1]) for row in headline_table(Outcomes.of(results), results).rows}
    assert lines["gain kept by best_of_top_k at 2 of 12, best ranking (average tokens)"] == "100% [100, 100]"
    assert lines["excess kept by best_of_top_k at 2 of 12, best ranking (average tokens)"]
    assert lines["gain kept by best_of_top_k at 9 of 12, best ranking (average tokens)"]
    assert lines["excess relative error reduction of the best source prompt"] == "+19.2 [+19.2, +19.2] %"
    assert lines["Spearman's rho of per-token similarity and gain, mean over targets"].startswith("+0.9")
    assert lines["SharPT against best_of_top_k (k = 2, per token), points"] == "-2.1 [-2.1, -2.1]"
    assert lines["SharPT against oracle, points"] == "-2.1 [-2.1, -2.1]"
    assert "were not at hand" in lines["delivered prompts that are worse than scratch beyond noise"]


def test_unfinished_is_pending_never_zero() -> None:
    results = made()
    part = replace(results, runs=results.runs[:-1], strategies=results.strategies[:-1])
    found = Outcomes.of(part)
    assert np.isnan(found.oracle.score_TR[2]).all()
    assert not np.isnan(found.oracle.score_TR[0]).any()
    costs = {str(row[0]): row for row in cost_table(found).rows}
    for name in ("oracle", "race, replayed", "sharpt"):
        assert costs[name][1] == "pending", name
        assert costs[name][3] == "pending", name
    assert {row[-1] for row in bargain_table(found, part).rows} == {"pending"}
    assert "pending" in headline_table(found, part).to_text()
    empty = Results(sources=("a",), targets=("x",), seeds=(0,), runs=())
    nothing = Outcomes.of(empty)
    table = race_table(nothing, empty)
    assert table is not None
    assert set(table.rows[0][1:]) == {"pending"}
    # Published tables have no curves: there is no race to wait for.
    without = replace(results, runs=tuple(replace(run, curve=()) for run in results.runs))
    assert Outcomes.of(without).race is None
    assert race_table(Outcomes.of(without), without) is None
    # What is planned and not begun stands in the tables, as pending.
    begun = replace(results, strategies=(), planned=(("sharpt", "", 0), ("weighted_average", "per_token", 3)))
    rows = {str(row[0]): row for row in cost_table(Outcomes.of(begun)).rows}
    for name in ("sharpt", "weighted_average (k = 3, per token)"):
        assert set(rows[name][1:6]) == {"pending"}, name
    for table in (cost_table(nothing), bargain_table(nothing, empty), headline_table(nothing, empty)):
        assert "0.0" not in table.to_csv()


def test_earlier_rungs_are_cheaper() -> None:
    results = made()
    found = Outcomes.of(results)
    assert found.race is not None
    rows = {(row.spread, row.keep): row for row in schedules(found, results)}
    assert rows["even", KEEP].at == (30, 60)
    own = rows["geometric", KEEP]
    assert own.at == (20, 90)
    assert own.cost == pytest.approx(found.race.tokens_TR[0, 0] / (12 * 990))
    early = rows["doubling", KEEP]  # with two rungs the first two validations too: given once
    assert early.at == (10, 20)
    assert ("early", KEEP) not in rows
    # Ten of thirteen leave at the first validation, two at the second; the last one has those at 40, 80 and 90 too.
    tokens = 10 * (100 + 10) + 2 * (200 + 20) + (900 + 5 * 10)
    assert early.cost == pytest.approx(tokens / (12 * 990))
    assert early.kept.mean == pytest.approx(1.0)  # here the first validation says it all
    assert rows["geometric", 0.5].at == (10, 20, 40)  # doubling too, given once
    table = schedule_table(found, results)
    assert table is not None
    assert [row[-1] for row in table.rows] == sorted((row[-1] for row in table.rows), key=lambda c: float(str(c)[:-1]))
    part = replace(results, runs=results.runs[:-1])
    assert schedule_table(Outcomes.of(part), part) is None
