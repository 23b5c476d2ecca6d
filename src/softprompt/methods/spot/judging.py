"""Predictors judged as in the transferability literature, and a combination of them fitted without the target at hand.

- regret at k: the best gain among all candidates minus the best among the k predicted best, in points (Poth et al. 2021).
- NDCG at k: the discounted gain of the predicted order over that of the ideal order, 0..1.
- rank correlation: Spearman's rho and Kendall's tau-b of predictions and gains, -1..1.

Gains are percent points over scratch; NaN marks what was not measured and is left out. Ties in a prediction keep the
candidates' order, so shuffle candidates first where many tie.

Letters: T targets, S candidates, F predictors (features), k how many candidates are tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softprompt.errors import UsageError

Floats = npt.NDArray[np.float64]


def _usable(predicted_S: npt.ArrayLike, gain_S: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Both as arrays, without the unmeasured candidates; those without a prediction come last."""
    predicted, gain = np.asarray(predicted_S, np.float64), np.asarray(gain_S, np.float64)
    if predicted.shape != gain.shape or predicted.ndim != 1:
        raise UsageError(f"predictions {predicted.shape} and gains {gain.shape} must be one number a candidate.")
    measured = ~np.isnan(gain)
    if not measured.any():
        raise UsageError("no gain was measured for any candidate; there is nothing to judge by.")
    predicted, gain = predicted[measured], gain[measured]
    return np.where(np.isnan(predicted), -np.inf, predicted), gain


def _order(predicted_S: Floats) -> npt.NDArray[np.int64]:
    return np.argsort(-predicted_S, kind="stable")


def regret_at_k(predicted_S: npt.ArrayLike, gain_S: npt.ArrayLike, k: int) -> float:
    """Points lost by trying only the k predicted best; 0 where the best is among them."""
    if k < 1:
        raise UsageError(f"regret at {k} was asked for; k is at least 1.")
    predicted, gain = _usable(predicted_S, gain_S)
    return float(gain.max() - gain[_order(predicted)[:k]].max())


def kept_at_k(predicted_S: npt.ArrayLike, gain_S: npt.ArrayLike, k: int) -> float:
    """The share of the oracle's gain that the k predicted best keep; NaN where the oracle gains nothing."""
    _, gain = _usable(predicted_S, gain_S)
    best = float(gain.max())
    return (best - regret_at_k(predicted_S, gain_S, k)) / best if best > 0 else float("nan")


def ndcg_at_k(predicted_S: npt.ArrayLike, gain_S: npt.ArrayLike, k: int | None = None) -> float:
    """Normalised discounted cumulative gain of the predicted order, 0..1.

    A candidate's relevance is its gain over the worst candidate's (gains can be negative), linear, divided by
    log2(rank + 1). 1 where all gains are equal: no order is wrong.

    Args:
        predicted_S: one a candidate, higher is better.
        gain_S: points.
        k: how many ranks count; all where None.
    """
    predicted, gain = _usable(predicted_S, gain_S)
    k = len(gain) if k is None else k
    if k < 1:
        raise UsageError(f"NDCG at {k} was asked for; k is at least 1.")
    relevance = gain - gain.min()
    discount = 1.0 / np.log2(np.arange(2, len(gain) + 2))[:k]
    ideal = float(np.sort(relevance)[::-1][:k] @ discount)
    found = float(relevance[_order(predicted)][:k] @ discount)
    return found / ideal if ideal > 0 else 1.0


def rank_correlation(predicted_S: npt.ArrayLike, gain_S: npt.ArrayLike) -> tuple[float, float]:
    """Spearman's rho and Kendall's tau-b; NaN where predictions or gains are all alike, or fewer than 3 are known."""
    from scipy.stats import kendalltau, spearmanr

    predicted, gain = np.asarray(predicted_S, np.float64), np.asarray(gain_S, np.float64)
    known = ~np.isnan(predicted) & ~np.isnan(gain)
    predicted, gain = predicted[known], gain[known]
    if len(gain) < 3 or np.ptp(predicted) == 0 or np.ptp(gain) == 0:
        return float("nan"), float("nan")
    return float(spearmanr(predicted, gain).statistic), float(kendalltau(predicted, gain).statistic)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A predictor over T targets; each measure is (mean, lower, upper): a 95 % bootstrap interval over targets.

    Attributes:
        name: of the predictor.
        targets: T.
        regret: points, by k.
        kept: share of the oracle's gain, by k, over the targets where it has any.
        ndcg: 0..1, by k.
        spearman: -1..1.
        kendall: -1..1.
    """

    name: str
    targets: int
    regret: Mapping[int, tuple[float, float, float]]
    kept: Mapping[int, tuple[float, float, float]]
    ndcg: Mapping[int, tuple[float, float, float]]
    spearman: tuple[float, float, float]
    kendall: tuple[float, float, float]


def judge(
    name: str, predicted_TS: npt.ArrayLike, gain_TS: npt.ArrayLike, ks: Sequence[int] = (1, 3, 9), *, seed: int = 0
) -> Judgement:
    """Judge one predictor on all targets.

    Args:
        name: of the predictor.
        predicted_TS: [T, S], higher is better within a row.
        gain_TS: [T, S], points over scratch, NaN where not measured.
        ks: numbers of candidates tried.
        seed: of the bootstrap.
    """
    rows = list(zip(np.asarray(predicted_TS, np.float64), np.asarray(gain_TS, np.float64), strict=True))
    correlations = [rank_correlation(p, g) for p, g in rows]

    def over(values: Sequence[float]) -> tuple[float, float, float]:
        return bootstrap_interval(values, seed=seed)

    return Judgement(
        name=name,
        targets=len(rows),
        regret={k: over([regret_at_k(p, g, k) for p, g in rows]) for k in ks},
        kept={k: over([kept_at_k(p, g, k) for p, g in rows]) for k in ks},
        ndcg={k: over([ndcg_at_k(p, g, k) for p, g in rows]) for k in ks},
        spearman=over([rho for rho, _ in correlations]),
        kendall=over([tau for _, tau in correlations]),
    )


def bootstrap_interval(values: Sequence[float], *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, 2.5 %, 97.5 %) of the mean under resampling; NaN values are left out."""
    known = np.asarray([v for v in values if not np.isnan(v)], np.float64)
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    index = np.random.default_rng(seed).integers(0, len(known), (draws, len(known)))
    low, high = np.quantile(known[index].mean(axis=1), [0.025, 0.975])
    return float(known.mean()), float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A linear combination of predictors.

    Attributes:
        names: F predictors.
        weights_F: points of gain for one standard deviation (within a target) of each.
        by_rank: whether predictions are turned into ranks within a target first.
    """

    names: tuple[str, ...]
    weights_F: tuple[float, ...]
    by_rank: bool

    def predict(self, features_SF: npt.ArrayLike) -> Floats:
        """Float [S], comparable within the target: predicted gain over the mean candidate, points."""
        found: Floats = _standard(np.asarray(features_SF, np.float64), self.by_rank) @ np.asarray(self.weights_F)
        return found


def fit_combination(
    names: Sequence[str],
    features_TSF: npt.ArrayLike,
    gain_TS: npt.ArrayLike,
    *,
    penalty: float = 1.0,
    by_rank: bool = False,
) -> Combination:
    """Ridge regression of gains on predictions, both centred within each target.

    Args:
        names: the F predictors.
        features_TSF: [T, S, F]; NaN where a predictor cannot say, which counts as its mean.
        gain_TS: [T, S], points; NaN where not measured, which is left out.
        penalty: of the squared weights, in units of measured candidates.
        by_rank: fit on ranks within a target, which outliers cannot bend.

    Raises:
        UsageError: shapes that do not belong together, or no measured gain.
    """
    features, gain = np.asarray(features_TSF, np.float64), np.asarray(gain_TS, np.float64)
    if features.ndim != 3 or features.shape[:2] != gain.shape or features.shape[2] != len(names):
        raise UsageError(
            f"features {features.shape}, gains {gain.shape} and {len(names)} names do not belong together."
        )
    left, right = [], []
    for feature_SF, gain_S in zip(features, gain, strict=True):
        measured = ~np.isnan(gain_S)
        if measured.sum() < 2:
            continue
        left.append(_standard(feature_SF[measured], by_rank))
        right.append(gain_S[measured] - gain_S[measured].mean())
    if not left:
        raise UsageError("no target has two measured gains; a combination cannot be fitted.")
    x, y = np.concatenate(left), np.concatenate(right)
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return Combination(names=tuple(names), weights_F=tuple(float(w) for w in weights), by_rank=by_rank)


def leave_one_target_out(
    names: Sequence[str],
    features_TSF: npt.ArrayLike,
    gain_TS: npt.ArrayLike,
    *,
    penalty: float = 1.0,
    by_rank: bool = False,
) -> Floats:
    """Float [T, S], each target's predictions by a combination fitted on all the others.

    Raises:
        UsageError: fewer than two targets.
    """
    features, gain = np.asarray(features_TSF, np.float64), np.asarray(gain_TS, np.float64)
    if len(gain) < 2:
        raise UsageError("leave-one-target-out needs at least two targets.")
    found = []
    for t in range(len(gain)):
        others = np.arange(len(gain)) != t
        fitted = fit_combination(names, features[others], gain[others], penalty=penalty, by_rank=by_rank)
        found.append(fitted.predict(features[t]))
    return np.stack(found)


def _standard(features_SF: Floats, by_rank: bool) -> Floats:
    """Each predictor with mean 0 and deviation 1 within a target; unknown and constant ones become 0."""
    columns = []
    for column in features_SF.T:
        known = ~np.isnan(column)
        values = column[known]
        if by_rank and len(values):
            from scipy.stats import rankdata

            values = rankdata(values)
        spread = float(values.std()) if len(values) else 0.0
        out = np.zeros(len(column))
        if spread > 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0))):
            out[known] = (values - values.mean()) / spread
        columns.append(out)
    return np.stack(columns, axis=1)
