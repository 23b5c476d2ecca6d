"""Gains of transfer predicted from what is known beforehand, with intervals from targets that were left out.

A gain is the score of a run that starts from a source prompt minus the mean score of runs from scratch, in points, or as
a relative error reduction (SPoT section 3.1). It is predicted by ridge regression on what is known beforehand, each
standardised among a target's candidates, plus the mean gain over targets.

The interval comes from targets that the coefficients never saw. Each target of the study is predicted from the others;
the half width is a conformal quantile of the absolute errors. Errors on one target are alike (they share its runs from
scratch), so targets are what is exchanged, not pairs: each of T targets weighs 1 / (T + 1), divided among its pairs, and
the last 1 / (T + 1) stands for the unseen target, at infinity (Lee, Barber and Willett 2023, hierarchical conformal
prediction). So an 80 % interval needs at least 4 targets. Their guarantee is for a fit on other data; here every target is
left out once, as in the jackknife, so that what the intervals held on left-out targets is stated beside them.

Letters: T targets, M source prompts, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softprompt.errors import UnknownNameError, UsageError
from softprompt.methods.spot.judging import Floats, fit_combination, leave_one_target_out

PER_TOKEN, AVERAGE, SIZE, LOSS = "similarity-per-token", "similarity-average", "data-size", "zero-shot-loss"
FREE = (PER_TOKEN, AVERAGE, SIZE)
"""Features that cost nothing once the target's task embedding is there; names as in `softprompt.methods.spot.predictors`."""
FEATURES = (*FREE, LOSS)
LEVEL = 0.8
"""Coverage of the interval that is shown."""
LEVELS = (0.5, LEVEL, 0.9)


@dataclass(frozen=True, kw_only=True)
class GainFit:
    """Predicts one kind of gain.

    Attributes:
        intercept: mean gain over targets, points or percent.
        weights: one a feature: gain for one standard deviation of it among a target's candidates.
        half_widths: of the interval, by level (``"0.8"``); None where the study has too few targets for it.
        coverage: share of the pairs of a left-out target that lie inside, averaged over targets, by level: each target's
            interval made from the others alone (the widest error among them where they are too few for the level).
        error: mean absolute error on left-out targets.
        error_of_mean: the same where every source is predicted the mean gain: what the features have to beat.
        targets: targets it was fitted on.
        pairs: measured pairs of source prompt and target.
    """

    intercept: float
    weights: tuple[float, ...]
    half_widths: Mapping[str, float | None]
    coverage: Mapping[str, float]
    error: float
    error_of_mean: float
    targets: int
    pairs: int

    def predict(self, standard_MF: npt.ArrayLike) -> Floats:
        """Float [M], expected gains from standardised features [M, F]; an unknown (NaN) feature counts as its mean."""
        known = np.nan_to_num(np.asarray(standard_MF, np.float64), nan=0.0)
        found: Floats = self.intercept + known @ np.asarray(self.weights)
        return found

    def half_width(self, level: float) -> float:
        """Half of the interval's width, points or percent.

        Raises:
            UsageError: the study has too few targets for this level, or it was not calibrated.
        """
        width = self.half_widths.get(str(level))
        if width is None:
            known = ", ".join(key for key, value in self.half_widths.items() if value is not None)
            raise UsageError(f"an interval of level {level} was asked for; this calibration has {known or 'none'}.")
        return width


@dataclass(frozen=True, kw_only=True)
class GainModel:
    """Predicts gains from some features.

    Attributes:
        features: names, of `FEATURES`.
        points: gain in points.
        relative: relative error reduction, percent; None where too few targets leave an error to reduce.
    """

    features: tuple[str, ...]
    points: GainFit
    relative: GainFit | None


def fit_models(
    names: Sequence[str], features_TMF: npt.ArrayLike, points_TM: npt.ArrayLike, relative_TM: npt.ArrayLike
) -> tuple[GainModel, ...]:
    """A model of the free features, and one with the untuned loss too where it was measured.

    Args:
        names: the F features, of `FEATURES`.
        features_TMF: [T, M, F], higher is better within a target; NaN where not known.
        points_TM: [T, M], gains in points; NaN where not measured.
        relative_TM: [T, M], relative error reductions in percent; NaN where not measured or undefined.

    Raises:
        UnknownNameError: a feature that nothing computes.
        UsageError: no free feature, or fewer than 4 targets with two measured gains.
    """
    for name in names:
        if name not in FEATURES:
            raise UnknownNameError("feature", name, FEATURES)
    features = np.asarray(features_TMF, np.float64)
    # Nothing can be learned of what was the same for all sources of every target (sources cut to equally many rows).
    varied = [name for f, name in enumerate(names) if _varies(features[:, :, f])]
    free = [name for name in FREE if name in varied]
    if not free:
        raise UsageError(f"a calibration needs {PER_TOKEN}, {AVERAGE} or {SIZE}; the study has none that varies.")
    models = []
    for chosen in [free, [*free, LOSS]] if LOSS in varied else [free]:
        part = features[:, :, [names.index(name) for name in chosen]]
        try:
            relative = fit_gains(chosen, part, relative_TM)
        except UsageError:  # targets without an error left have no relative gain
            relative = None
        models.append(GainModel(features=tuple(chosen), points=fit_gains(chosen, part, points_TM), relative=relative))
    return tuple(models)


def _varies(values_TM: Floats) -> bool:
    spread = [float(np.ptp(row[~np.isnan(row)])) for row in values_TM if (~np.isnan(row)).sum() > 1]
    return any(value > 0.0 for value in spread)


def fit_gains(names: Sequence[str], features_TMF: npt.ArrayLike, gain_TM: npt.ArrayLike) -> GainFit:
    """Fit one kind of gain, with intervals from left-out targets.

    Raises:
        UsageError: fewer than 4 targets with two measured gains.
    """
    features, gain = np.asarray(features_TMF, np.float64), np.asarray(gain_TM, np.float64)
    usable = (~np.isnan(gain)).sum(axis=1) >= 2
    features, gain = features[usable], gain[usable]
    needed = round(LEVEL / (1.0 - LEVEL))
    if len(gain) < needed:
        raise UsageError(
            f"an {100 * LEVEL:.0f} % interval needs a study with at least {needed} targets of two measured gains each; "
            f"this one has {len(gain)}. Give it more targets, or finish it."
        )
    fitted = fit_combination(names, features, gain)
    errors = _left_out(names, features, gain)
    widths = {level: hierarchical_quantile(errors, level) for level in LEVELS}
    return GainFit(
        intercept=float(np.mean([_mean(row) for row in gain])),
        weights=fitted.weights_F,
        half_widths={str(level): width if np.isfinite(width) else None for level, width in widths.items()},
        coverage=_coverage(names, features, gain, errors),
        error=float(np.mean([np.abs(row).mean() for row in errors])),
        error_of_mean=float(np.mean([np.abs(row).mean() for row in _left_out_means(gain)])),
        targets=len(gain),
        pairs=int((~np.isnan(gain)).sum()),
    )


def hierarchical_quantile(errors: Sequence[npt.ArrayLike], level: float) -> float:
    """The half width that holds a new target's pair with probability ``level``; infinite with too few targets.

    Args:
        errors: one array a target, its prediction errors.
        level: in (0, 1).
    """
    share = [np.full(np.size(row), 1.0 / ((len(errors) + 1) * np.size(row))) for row in errors]
    size, weight = np.abs(np.concatenate([np.ravel(row) for row in errors])), np.concatenate(share)
    order = np.argsort(size)
    reached = np.flatnonzero(np.cumsum(weight[order]) >= level - 1e-9)
    return float(size[order][reached[0]]) if len(reached) else float("inf")


def _left_out(names: Sequence[str], features: Floats, gain: Floats) -> list[Floats]:
    """Errors on each target, predicted from all the others; measured pairs only."""
    apart = leave_one_target_out(names, features, gain)
    errors = gain - apart - _means_of_others(gain)[:, None]
    return [row[~np.isnan(row)] for row in errors]


def _left_out_means(gain: Floats) -> list[Floats]:
    errors = gain - _means_of_others(gain)[:, None]
    return [row[~np.isnan(row)] for row in errors]


def _means_of_others(gain: Floats) -> Floats:
    means = np.asarray([_mean(row) for row in gain])
    found: Floats = (means.sum() - means) / (len(means) - 1)
    return found


def _mean(gains_M: Floats) -> float:
    return float(gains_M[~np.isnan(gains_M)].mean())


def _coverage(names: Sequence[str], features: Floats, gain: Floats, errors: Sequence[Floats]) -> dict[str, float]:
    """By level, how much of each target an interval made from the other targets alone held, averaged over targets."""
    held: dict[str, list[float]] = {str(level): [] for level in LEVELS}
    for t in range(len(gain)):
        others = np.arange(len(gain)) != t
        known = _left_out(names, features[others], gain[others])
        widest = max(float(np.abs(row).max()) for row in known)
        for level in LEVELS:
            width = min(hierarchical_quantile(known, level), widest)
            held[str(level)].append(float(np.mean(np.abs(errors[t]) <= width)))
    return {level: float(np.mean(shares)) for level, shares in held.items()}
