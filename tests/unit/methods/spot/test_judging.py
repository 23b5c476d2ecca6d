"""Measures of predictors, by hand, and the combination."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.errors import UsageError
from softprompt.methods.spot.judging import (
    bootstrap_interval,
    fit_combination,
    judge,
    kept_at_k,
    leave_one_target_out,
    ndcg_at_k,
    rank_correlation,
    regret_at_k,
)

NAN = float("nan")


def test_regret_by_hand() -> None:
    predicted, gain = [0.9, 0.1, 0.5, 0.4], [1.0, 4.0, -2.0, 3.0]
    assert [regret_at_k(predicted, gain, k) for k in (1, 2, 3, 4)] == [3.0, 3.0, 1.0, 0.0]
    assert [kept_at_k(predicted, gain, k) for k in (1, 2, 3, 4)] == [0.25, 0.25, 0.75, 1.0]
    assert math.isnan(kept_at_k(predicted, [-1.0, -2.0, -3.0, -4.0], 1)), "an oracle without gain"
    assert regret_at_k([NAN, 0.2, 0.1, NAN], gain, 2) == 0.0, "no prediction comes last"
    assert regret_at_k(predicted, [1.0, NAN, -2.0, 3.0], 1) == 2.0, "what was not measured does not count"
    with pytest.raises(UsageError, match="k is at least 1"):
        regret_at_k(predicted, gain, 0)
    with pytest.raises(UsageError, match="nothing to judge by"):
        regret_at_k(predicted, [NAN] * 4, 1)
    with pytest.raises(UsageError, match="one number a candidate"):
        regret_at_k(predicted, gain[:3], 1)


def test_ndcg_by_hand() -> None:
    predicted, gain = [3.0, 2.0, 1.0], [0.0, 2.0, 1.0]
    # relevances in predicted order 0, 2, 1; ideal 2, 1, 0
    found = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert ndcg_at_k(predicted, gain) == pytest.approx(found / ideal)
    assert ndcg_at_k(predicted, gain, 1) == 0.0
    assert ndcg_at_k(predicted, gain, 2) == pytest.approx((2 / math.log2(3)) / ideal)
    assert ndcg_at_k(predicted, [g - 5 for g in gain]) == pytest.approx(found / ideal), "negative gains shift"
    assert ndcg_at_k(predicted, [1.0, 1.0, 1.0]) == 1.0


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=12), st.integers(1, 12), st.integers(0, 1000))
def test_bounds_and_the_perfect_order(gain: list[float], k: int, seed: int) -> None:
    predicted = np.random.default_rng(seed).normal(size=len(gain))
    assert 0.0 <= ndcg_at_k(predicted, gain, k) <= 1.0 + 1e-12
    assert regret_at_k(predicted, gain, k) >= 0.0
    assert ndcg_at_k(gain, gain, k) == pytest.approx(1.0)
    assert regret_at_k(gain, gain, k) == 0.0
    assert regret_at_k(predicted, gain, len(gain)) == 0.0


def test_rank_correlations_by_hand() -> None:
    rho, tau = rank_correlation([1, 2, 3, 4], [10, 30, 20, 40])
    assert rho == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert tau == pytest.approx((5 - 1) / 6)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx((-1, -1))
    for predicted, gain in (([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1, NAN, 3], [1, 2, 3])):
        assert all(math.isnan(v) for v in rank_correlation(predicted, gain))


def test_intervals() -> None:
    assert bootstrap_interval([2.0, 2.0, NAN]) == (2.0, 2.0, 2.0)
    mean, low, high = bootstrap_interval(list(range(20)))
    assert low < mean == 9.5 < high
    assert all(math.isnan(v) for v in bootstrap_interval([NAN]))


def made(targets: int = 12, candidates: int = 15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gains that follow two predictors, a third that is noise; each target has its own level and scale."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(targets, candidates, 3)) * draw.uniform(0.5, 20, size=(targets, 1, 3)) + 100
    standard = (features - features.mean(1, keepdims=True)) / features.std(1, keepdims=True)
    gain = (
        2 * standard[..., 0]
        + standard[..., 1]
        + draw.normal(size=(targets, 1)) * 5
        + 0.5 * draw.normal(size=(targets, candidates))
    )
    return features, gain


def test_the_combination_finds_what_matters() -> None:
    features, gain = made()
    fitted = fit_combination(["a", "b", "noise"], features, gain, penalty=1e-6)
    assert fitted.weights_F == pytest.approx((2.0, 1.0, 0.0), abs=0.12)
    strong = fit_combination(["a", "b", "noise"], features, gain, penalty=1e6)
    assert max(abs(w) for w in strong.weights_F) < 0.01
    predictions = leave_one_target_out(["a", "b", "noise"], features, gain)
    together = judge("together", predictions, gain, ks=(1, 3))
    for f, name in enumerate(("a", "b", "noise")):
        alone = judge(name, features[..., f], gain, ks=(1, 3))
        assert together.regret[3][0] < alone.regret[3][0]
        assert together.spearman[0] > alone.spearman[0]
    assert together.targets == 12
    assert together.kept[3][1] <= together.kept[3][0] <= together.kept[3][2]


def test_a_target_is_never_in_its_own_fit() -> None:
    features, gain = made(targets=4)
    before = leave_one_target_out(["a", "b", "noise"], features, gain)
    changed = gain.copy()
    changed[2] = -changed[2] * 50
    after = leave_one_target_out(["a", "b", "noise"], features, changed)
    assert np.array_equal(before[2], after[2])
    assert not np.allclose(before[0], after[0])
    with pytest.raises(UsageError, match="two targets"):
        leave_one_target_out(["a", "b", "noise"], features[:1], gain[:1])


def test_unknown_and_constant_predictions_say_nothing() -> None:
    features, gain = made()
    features[..., 2] = 7.0
    features[0, 3, 0] = NAN
    gain[1, 2] = NAN
    fitted = fit_combination(["a", "b", "constant"], features, gain)
    assert fitted.weights_F[2] == 0.0
    assert np.isfinite(fitted.predict(features[0])).all()
    by_rank = fit_combination(["a", "b", "constant"], features, gain, by_rank=True)
    outlier = features.copy()
    outlier[5, np.nanargmax(outlier[5, :, 0]), 0] = 1e9  # stays the largest, so its rank stays
    again = fit_combination(["a", "b", "constant"], outlier, gain, by_rank=True)
    assert again.weights_F == pytest.approx(by_rank.weights_F)
    with pytest.raises(UsageError, match="belong together"):
        fit_combination(["a"], features, gain)
    with pytest.raises(UsageError, match="two measured gains"):
        fit_combination(["a", "b", "c"], features, np.full_like(gain, NAN))
