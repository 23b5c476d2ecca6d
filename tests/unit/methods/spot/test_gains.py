"""Predicted gains: coefficients that are found again, and intervals that hold what they promise on targets never seen."""

import numpy as np
import pytest

from softprompt.errors import UnknownNameError, UsageError
from softprompt.methods.spot.gains import (
    AVERAGE,
    LEVEL,
    LOSS,
    PER_TOKEN,
    SIZE,
    fit_gains,
    fit_models,
    hierarchical_quantile,
)

NAMES = (PER_TOKEN, AVERAGE)


def standard(values):
    return (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)


def study(targets=8, sources=12, noise=0.3, shift=0.5, seed=0):
    """Features [T, M, 2] and gains [T, M]: 1.5, and 2 for a deviation of the first feature; noise by target and pair."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(targets, sources, 2)) * [0.01, 0.2] + [0.7, 0.1]
    gain = 1.5 + 2.0 * standard(features[..., 0]) + shift * draw.normal(size=(targets, 1))
    return features, gain + noise * draw.normal(size=gain.shape)


def test_the_quantile_weighs_targets_not_pairs():
    errors = [np.array([1.0, -1.0, 1.0, 1.0]), np.array([2.0]), np.array([-3.0]), np.array([4.0, 0.0])]
    # A fifth each: 0.1 at 0, 0.2 at 1, 0.2 at 2, 0.2 at 3, 0.1 at 4, and 0.2 at infinity.
    assert hierarchical_quantile(errors, 0.09) == 0.0
    assert hierarchical_quantile(errors, 0.3) == 1.0
    assert hierarchical_quantile(errors, 0.5) == 2.0
    assert hierarchical_quantile(errors, 0.8) == 4.0
    assert hierarchical_quantile(errors, 0.81) == float("inf")


def test_known_coefficients_are_found_again():
    found = fit_gains(NAMES, *study(noise=0.05, shift=0.0))
    assert found.intercept == pytest.approx(1.5, abs=0.05)
    assert found.weights == pytest.approx((2.0, 0.0), abs=0.08)
    assert found.error < 0.1
    assert found.error_of_mean > 1.0
    assert 0.0 < found.half_width(LEVEL) < 0.2
    assert (found.targets, found.pairs) == (8, 96)
    np.testing.assert_allclose(found.predict([[0.0, 0.0], [1.0, np.nan]]), [1.5, 3.5], atol=0.12)


def test_intervals_hold_on_targets_that_were_not_there():
    held, stated = [], []
    for seed in range(60):
        features, gain = study(targets=9, sources=6, noise=0.5, shift=1.0, seed=seed)
        fitted = fit_gains(NAMES, features[:8], gain[:8])
        error = gain[8] - fitted.predict(standard(features)[8])
        held.append(np.mean(np.abs(error) <= fitted.half_width(LEVEL)))
        stated.append(fitted.coverage[str(LEVEL)])
    # 60 targets, whose pairs go up and down together: the share is known to about 0.05.
    assert 0.7 < np.mean(held) < 0.95
    # What a study says of itself, from its own targets left out, is what new targets show.
    assert np.mean(stated) == pytest.approx(np.mean(held), abs=0.1)


def test_wider_levels_are_wider_and_absent_where_targets_are_few():
    found = fit_gains(NAMES, *study(targets=5))
    assert found.half_widths["0.5"] < found.half_widths["0.8"]
    assert found.half_widths["0.9"] is None
    with pytest.raises(UsageError, match=r"has 0\.5, 0\.8"):
        found.half_width(0.9)


def test_too_few_targets_are_refused_and_unfinished_pairs_left_out():
    features, gain = study(targets=4)
    gain[0, 1:] = np.nan
    with pytest.raises(UsageError, match=r"at least 4 targets .* has 3"):
        fit_gains(NAMES, features, gain)
    features, gain = study(targets=5)
    gain[0, 2:] = np.nan
    assert fit_gains(NAMES, features, gain).pairs == 4 * 12 + 2


def test_models_are_nested_and_what_never_varies_is_no_feature():
    features, gain = study()
    size = np.full((*gain.shape, 1), 9.0)
    loss = -features[..., :1] + np.random.default_rng(3).normal(size=(*gain.shape, 1))
    names = [PER_TOKEN, SIZE, LOSS]
    (free, full) = fit_models(names, np.concatenate([features[..., :1], size, loss], axis=2), gain, gain * np.nan)
    assert free.features == (PER_TOKEN,)
    assert full.features == (PER_TOKEN, LOSS)
    assert free.relative is None
    (only,) = fit_models([PER_TOKEN], features[..., :1], gain, 2 * gain)
    assert only.relative is not None
    assert only.relative.intercept == pytest.approx(2 * only.points.intercept)
    with pytest.raises(UnknownNameError, match="similarity-per-token"):
        fit_models(["similarity-per-tokn"], features[..., :1], gain, gain)
    with pytest.raises(UsageError, match="none that varies"):
        fit_models([SIZE], size, gain, gain)
