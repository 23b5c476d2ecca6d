"""The statistics on cases whose answers are known."""

import numpy as np
import pytest

from softprompt.study.choosing import honest_best
from softprompt.study.records import Results, RunScore
from softprompt.study.statistics import (
    bootstrap,
    compare,
    compare_sources,
    comparison_table,
    effect_size,
    excess_over_scratch,
    excess_table,
    halves_table,
    holm,
    sign_flip_test,
    split_halves,
)


def noise_study(sources: int = 12, scratch: int = 12) -> Results:
    """Transfers that are nothing but fresh draws of the baseline: there is no gain to find."""
    random = np.random.default_rng(7)
    runs = []
    for target in ("x", "y", "z"):
        for seed in range(scratch):
            a, b = 70 + random.normal(size=2)
            runs.append(RunScore(target=target, seed=seed, score=(a + b) / 2, halves=(a, b)))
        for source in range(sources):
            a, b = 70 + random.normal(size=2)
            runs.append(RunScore(target=target, seed=0, score=(a + b) / 2, halves=(a, b), source=(f"s{source}", 0)))
    return Results(
        sources=tuple(f"s{i}" for i in range(sources)), targets=("x", "y", "z"), seeds=(0,), runs=tuple(runs)
    )


def test_choice_and_report_on_different_halves() -> None:
    assert honest_best(np.array([1.0, 5.0, 5.0]), np.array([9.0, 2.0, 4.0])) == 3.0
    assert np.isnan(honest_best(np.array([1.0, np.nan]), np.array([1.0, 1.0])))
    rows = split_halves(noise_study())
    # In pure noise the searched best looks more than a point better than it is.
    assert np.mean([row.luck for row in rows]) > 1.0
    assert abs(np.mean([row.other_half for row in rows]) - 70) < 1.0
    assert halves_table(noise_study()).rows[-1][0] == "average"


def test_only_the_second_half_is_reported_where_checkpoints_were_chosen_on_the_first() -> None:
    runs = [
        RunScore(target="x", seed=0, score=70.0, halves=(10.0, 70.0)),
        RunScore(target="x", seed=0, score=90.0, halves=(50.0, 90.0), source=("a", 0)),
        RunScore(target="x", seed=0, score=80.0, halves=(60.0, 80.0), source=("b", 0)),
    ]
    results = Results(sources=("a", "b"), targets=("x",), seeds=(0,), runs=tuple(runs), report_half=1)
    (row,) = split_halves(results)
    assert (row.base, row.same_half, row.other_half) == (70.0, 90.0, 80.0)


def test_excess_over_equally_many_scratch_seeds_vanishes_in_noise() -> None:
    results = noise_study()
    naive = np.mean([run.transfer - 70 for run in excess_over_scratch(results, 12)])
    fair = np.mean([run.excess for run in excess_over_scratch(results, 12)])
    assert naive > 0.8
    assert abs(fair) < 0.7 * naive
    few = noise_study(scratch=3)
    assert all(np.isnan(run.excess) for run in excess_over_scratch(few, 12))
    assert "12 source prompts against 3 seeds" in excess_table(few).notes[0]


def test_bootstrap_interval() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for trial in range(60):
        targets = random.normal(size=(12, 1)) + 0.3 * random.normal(size=(12, 3)) + 5.0
        interval = bootstrap(targets, draws=500, seed=trial)
        assert interval.low <= interval.mean <= interval.high
        inside += interval.low <= 5.0 <= interval.high
    assert 48 <= inside <= 60
    assert np.isnan(bootstrap(np.array([[1.0, np.nan]])).low)
    constant = bootstrap(np.full((4, 2), 3.0), draws=50)
    assert (constant.low, constant.high) == (3.0, 3.0)


def test_sign_flip_test_is_exact() -> None:
    assert sign_flip_test(np.array([1.0, 2.0, 3.0])) == 0.25  # only +++ and --- reach 6
    assert sign_flip_test(np.zeros(4)) == 1.0
    assert sign_flip_test(np.full(30, 1.0), draws=999) == pytest.approx(1 / 1000)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([0.01, float("nan")])[1])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_effect_size() -> None:
    differences = np.array([1.0, 2.0, 3.0, 4.0])
    assert effect_size(differences) == pytest.approx(2.5 / np.std(differences, ddof=1) * (1 - 3 / 11))
    assert effect_size(np.ones(3)) == np.inf
    assert np.isnan(effect_size(np.ones(1)))


def test_compare_sources() -> None:
    base = np.full((8, 2), 60.0)
    lift = base + np.linspace(1, 2, 8)[:, None]
    good, none = compare([("good", lift), ("none", base), ("open", np.full((8, 2), np.nan))], base)[:2]
    assert good.p == pytest.approx(2 / 256)
    assert good.p_holm == pytest.approx(4 / 256)
    assert good.improved == 8
    assert good.difference.low > 0
    assert none.p == 1.0
    table = comparison_table(compare_sources(noise_study(3)), "sources", "Sources")
    assert len(table.rows) == 3
