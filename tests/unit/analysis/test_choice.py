"""Choice and report apart: expectations against enumeration, and what each protocol allows."""

import dataclasses
from itertools import combinations

import numpy as np
import pytest

from softprompt.analysis.choice import Choices, expected_honest_best, honest_best, search_noise
from softprompt.analysis.records import Results, RunScore


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
    choices = Choices.of(study(report_half=1))
    assert (choices.apart, len(choices.directions)) == (True, 1)
    assert choices.best(0, [0, 1]) == 60.0  # a looks best on half 0
    assert choices.scratch(0, 3) == 70.0
    assert choices.scratch(0, 9) == 70.0  # no more than there are
    assert choices.scratch(0, 1) == pytest.approx((40 + 70 + 45) / 3)
    assert choices.fewest_scratch == 3


def test_checkpoints_chosen_on_everything_are_reported_both_choices() -> None:
    choices = Choices.of(study())
    assert len(choices.directions) == 2
    assert choices.best(0, [0, 1]) == (60.0 + 80.0) / 2
    assert choices.random(0, 2) == choices.best(0, [0, 1])
    assert choices.random(0, 1) == pytest.approx(np.mean([90, 60, 80, 100]))


def test_without_halves_choice_and_report_are_the_same() -> None:
    choices = Choices.of(study(halves=False))
    assert not choices.apart
    assert choices.best(0, [0, 1]) == 90.0
    assert Choices.of(study(), apart=False).best(0, [0, 1]) == 90.0  # as the papers count


def test_scratch_waits_for_every_seed_of_the_study() -> None:
    part = dataclasses.replace(study(report_half=1), seeds=(0, 7))
    assert np.isnan(Choices.of(part).scratch(0))


def test_a_search_is_held_again_with_the_runs_drawn_anew() -> None:
    random = np.random.default_rng(0)
    runs = [RunScore(target="x", seed=s, score=60.0, halves=tuple(60 + 3 * random.normal(size=2))) for s in range(8)]
    runs += [
        RunScore(target="x", seed=r, score=60.0, halves=tuple(60 + 3 * random.normal(size=2)), source=(f"s{i}", r))
        for i in range(4)
        for r in range(3)
    ]
    results = Results(
        sources=tuple(f"s{i}" for i in range(4)), targets=("x",), seeds=(0, 1, 2), runs=tuple(runs), report_half=1
    )
    drawn = search_noise(Choices.of(results), 0, 4, draws=4000)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert low < 0 < high  # nothing transfers: the best of twelve on the choosing half is no better on the other
    assert 1.0 < drawn.std() < 6.0
    assert np.isnan(search_noise(Choices.of(dataclasses.replace(results, runs=results.runs[:-1])), 0, 4, draws=5)).all()
