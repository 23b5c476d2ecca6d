"""The race's schedule, rule and cost."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.errors import UsageError
from softprompt.methods.spot.race import KEEP, fields, halving, losers, race_cost, race_rungs
from softprompt.methods.spot.settings import TransferSettings
from softprompt.training.recipes import recipe
from softprompt.training.runs import RunResult


def racer(name: str, *scores: float, loss: float = 1.0) -> RunResult:
    curve = [{"step": i, "loss": loss, "score": score} for i, score in enumerate(scores, 1)]
    return RunResult(name=name, seed=0, curve=curve)


def test_the_worst_of_each_target_leave_and_ties_go_to_the_lower_loss() -> None:
    target_of = {"t-a": "t", "t-b": "t", "t-c": "t", "u-a": "u", "u-b": "u"}
    field = [
        racer("t-a", 50, loss=1.0),
        racer("t-b", 50, loss=0.5),
        racer("t-c", 40, loss=0.1),
        racer("u-a", 1),
        racer("u-b", 2),
    ]
    rule = halving(target_of, 0.5, (10, 20))
    assert sorted(rule(10, field)) == ["t-a", "t-c", "u-a"]
    assert rule(15, field) == []  # no rung
    assert rule(20, [field[1]]) == []  # the last one stays
    assert rule(10, [racer("other", 0), field[1]]) == []


def test_the_best_score_so_far_counts() -> None:
    rule = halving({"a": "t", "b": "t"}, 0.5, (1,))
    assert rule(1, [racer("a", 70, 10), racer("b", 60, 60)]) == ["b"]
    assert rule(1, [racer("a", 70, loss=math.inf), racer("b", 70, loss=2.0)]) == ["a"]


def test_rungs_are_spaced_geometrically() -> None:
    assert fields(49, 0.3) == [49, 14, 4, 1]
    assert race_rungs(100_000, 49, 0.3) == (2_700, 9_000, 30_000)
    assert race_rungs(100, 16, 0.25) == (6, 25)
    assert race_rungs(100_000, 1) == ()
    assert race_rungs(4, 49, 0.3) == (1, 2, 3)  # hardly any room
    with pytest.raises(UsageError, match="no room for 3 rungs"):
        race_rungs(3, 49, 0.3)
    for keep in (0.0, 1.0):
        with pytest.raises(UsageError, match="between 0 and 1"):
            race_rungs(100, 9, keep)
        with pytest.raises(UsageError, match="race_keep must be in"):
            TransferSettings(train=recipe("quick"), race_keep=keep)


@given(st.integers(1, 100_000), st.integers(1, 500), st.floats(0.05, 0.9))
def test_rungs_rise_and_end_before_the_last_step(steps: int, candidates: int, keep: float) -> None:
    count = len(fields(candidates, keep)) - 1
    if count >= steps:
        return
    rungs = race_rungs(steps, candidates, keep)
    assert len(rungs) == count
    assert all(one < other for one, other in pairwise((0, *rungs, steps)))


def test_48_source_prompts_cost_at_most_a_tenth_of_the_oracle() -> None:
    spot = recipe("spot-target").having(eval_rows=1500)
    assert spot.steps == 100_000
    found = race_cost(48, spot, keep=TransferSettings(train=spot).race_keep)
    assert found.fields == (49, 14, 4, 1)
    assert found.steps == 49 * 2_700 + 14 * 6_300 + 4 * 21_000 + 70_000
    assert found.share <= 0.10
    # A validation set of a few dozen rows, and one of many: the share is still below a tenth.
    assert race_cost(48, spot.having(eval_rows=0), select_rows=40).share <= 0.10
    assert race_cost(48, spot.having(eval_rows=0), select_rows=20_000, look_rows=64).share <= 0.10
    # What it would be without halving.
    assert race_cost(1, spot, keep=KEEP).share > 1.0
    with pytest.raises(UsageError, match="select_rows"):
        race_cost(48, spot.having(eval_rows=0))


def test_the_cost_counts_every_row() -> None:
    settings = recipe("quick").having(steps=10, batch_size=2, eval_every=5, eval_rows=8)
    found = race_cost(3, settings, keep=0.3, look_rows=4)
    assert (found.fields, found.rungs) == ((4, 1), (3,))
    assert found.steps == 4 * 3 + 7
    assert found.rows == 4 * (4 * 3 + 7) + 4 * 4 + 2 * 8  # looks of four runs at step 3, two validations of one
    assert found.oracle_rows == 3 * (4 * 10 + 2 * 8)


def test_where_labels_are_scored_the_latest_label_loss_ranks() -> None:
    def told(name: str, *looks: tuple[float, float]) -> RunResult:
        result = racer(name, *(score for score, _ in looks))
        for record, (_, loss) in zip(result.curve, looks, strict=True):
            record["label_loss"] = loss
        return result

    lucky = told("lucky", (90.0, 0.2), (50.0, 0.9))  # the best score, and the least loss, were seen earlier
    steady = told("steady", (60.0, 0.7), (60.0, 0.6))
    lost = told("lost", (95.0, math.nan))
    assert losers([lucky, steady, lost], 0.4) == ["lucky", "lost"]
