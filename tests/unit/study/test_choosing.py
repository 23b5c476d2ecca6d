"""Choice and report apart: expectations against enumeration, and what each protocol allows."""

from itertools import combinations

import numpy as np
import pytest

from softprompt.study.choosing import Ways, expected_honest_best, honest_best
from softprompt.study.records import Results, RunScore


def study(report_half: int | None = None, halves: bool = True) -> Results:
    """One target, two source prompts, three runs from scratch."""
    scratch = [(50.0, 40.0), (60.0, 70.0), (55.0, 45.0)]
    moved = [(90.0, 60.0), (80.0, 100.0)]
    runs = [
        RunScore(target="x", seed=seed, score=sum(pair) / 2, halves=pair if halves else None)
        for seed, pair in enumerate(scratch)
    ]
    runs += [
        RunScore(target="x", seed=0, score=sum(pair) / 2, halves=pair if halves else None, source=(name, 0))
        for name, pair in zip(("a", "b"), moved, strict=True)
    ]
    return Results(sources=("a", "b"), targets=("x",), seeds=(0,), runs=tuple(runs), report_half=report_half)


def test_expected_best_of_random_runs_is_exact_also_with_ties() -> None:
    random = np.random.default_rng(3)
    choose, report = random.integers(0, 4, size=7).astype(float), random.normal(size=7)
    assert len(np.unique(choose)) < 7
    for k in range(1, 8):
        draws = [honest_best(choose[list(c)], report[list(c)]) for c in combinations(range(7), k)]
        assert expected_honest_best(choose, report, k) == pytest.approx(np.mean(draws)), k
    assert np.isnan(expected_honest_best(choose, report, 8))
    assert np.isnan(expected_honest_best(np.array([1.0, np.nan]), report[:2], 1))


def test_checkpoints_chosen_on_half_0_leave_one_way() -> None:
    ways = Ways.of(study(report_half=1))
    assert (ways.apart, len(ways.ways)) == (True, 1)
    assert ways.best(0, [0, 1]) == 60.0  # a looks best on half 0
    assert ways.scratch(0, 3) == 70.0
    assert ways.scratch(0, 9) == 70.0  # no more than there are
    assert ways.scratch(0, 1) == pytest.approx((40 + 70 + 45) / 3)
    assert ways.base_TR.tolist() == [[40.0]]
    assert ways.fewest_scratch == 3


def test_checkpoints_chosen_on_everything_are_reported_both_ways() -> None:
    ways = Ways.of(study())
    assert len(ways.ways) == 2
    assert ways.best(0, [0, 1]) == (60.0 + 80.0) / 2
    assert ways.random(0, 2) == ways.best(0, [0, 1])
    assert ways.random(0, 1) == pytest.approx(np.mean([90, 60, 80, 100]))


def test_without_halves_choice_and_report_are_the_same() -> None:
    ways = Ways.of(study(halves=False))
    assert not ways.apart
    assert ways.best(0, [0, 1]) == 90.0
