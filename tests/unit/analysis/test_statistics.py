"""The statistics on cases whose answers are known, and against the libraries that have them."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from softprompt.analysis.statistics import (
    Interval,
    family,
    family_table,
    holm,
    p_text,
    ratio_interval,
    resampled,
    share_text,
    sign_flip_test,
    smallest_p,
    t_interval,
    what_targets_can_show,
)


def test_the_interval_is_students() -> None:
    values = np.array([1.0, 2.5, -0.5, 3.0, 4.0])
    ours, scipys = t_interval(values), stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high))
    assert (ours.mean, ours.units) == (2.0, 5)
    assert t_interval([3.0]).text() == "3.0 [-]"
    assert not t_interval([3.0]).above
    assert t_interval([1.0, np.nan]).text() == t_interval([]).text() == "pending"


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = [t_interval(5 + random.normal(size=5)) for _ in range(400)]
    assert 0.92 < np.mean([i.low < 5 < i.high for i in inside]) < 0.98


def test_texts_of_intervals_tell_on_which_side_of_zero_they_end() -> None:
    assert Interval(mean=1.6, low=-0.02, high=3.2).text(sign=True) == "+1.6 [-0.0, +3.2]"
    assert Interval(mean=-0.01, low=-2, high=2).text() == "0.0 [-2.0, 2.0]"


def test_sign_flips_are_exact() -> None:
    assert sign_flip_test([1.0, 2.0, 3.0]) == 0.25  # only +++ and --- reach 6
    assert sign_flip_test(np.zeros(4)) == 1.0
    assert sign_flip_test([2.0]) == 1.0
    assert np.isnan(sign_flip_test([1.0, np.nan]))
    values = np.random.default_rng(2).normal(0.4, 1.0, size=9)
    signs = np.array(list(product((1.0, -1.0), repeat=9)))
    by_hand = (np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean()
    assert sign_flip_test(values) == pytest.approx(by_hand)
    assert sign_flip_test(np.ones(30), draws=999) < 0.005


def test_what_few_targets_can_show() -> None:
    for targets in (3, 5, 8):
        assert sign_flip_test(np.arange(1.0, targets + 1)) == pytest.approx(smallest_p(targets))
    assert "no difference can be significant" in what_targets_can_show(5)
    assert "0.0078, so 5 % can be reached" in what_targets_can_show(8)
    assert "One target" in what_targets_can_show(1)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([0.01, float("nan")])[1])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_a_family_is_corrected_together() -> None:
    lift = np.linspace(1, 2, 8)
    good, none, pending = family([("good", lift), ("none", np.zeros(8)), ("open", np.full(8, np.nan))])
    assert good.p == pytest.approx(2 / 256)
    assert good.p_holm == pytest.approx(4 / 256)
    assert (good.better, good.points.above) == (8, True)
    assert none.p == 1.0
    assert np.isnan(pending.p_holm)
    table = family_table([good, none, pending], "t", "t")
    assert table.rows[0][1:] == ("+1.5 [+1.2, +1.8]", "0.008", "0.016", "8/8")
    assert table.rows[2][1:] == ("pending",) * 4
    assert p_text(0.0001) == "<0.001"


def test_a_share_is_fiellers_and_only_of_a_clear_whole() -> None:
    random = np.random.default_rng(3)
    inside = []
    for _ in range(300):
        whole = 4 + random.normal(size=8)
        inside.append(ratio_interval(0.5 * whole + 0.5 * random.normal(size=8), whole))
    known = [i for i in inside if not np.isnan(i.mean)]
    assert len(known) > 290
    assert 0.91 < np.mean([i.low < 0.5 < i.high for i in known]) < 0.99
    same = ratio_interval(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]) + 0.0)
    assert np.isnan(same.mean)  # 2 [-0.5, 4.5] is not clear of zero
    assert share_text(same) == "no clear gain"
    assert share_text(ratio_interval(np.array([2.0, 2.1, 2.2]), np.array([4.0, 4.2, 4.4]))) == "50% [50, 50]"
    assert share_text(same, finished=False) == "pending"


def test_runs_and_rows_are_drawn_anew() -> None:
    low, high, not_above = resampled(lambda random: float(random.normal(1.0, 1.0)), draws=4000)
    assert (low, high) == pytest.approx((1 - 1.96, 1 + 1.96), abs=0.15)
    assert not_above == pytest.approx(stats.norm.cdf(-1), abs=0.03)
