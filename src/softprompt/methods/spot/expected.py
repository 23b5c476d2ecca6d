"""Predicted gain of each source prompt on a target, with an interval, before it is tuned; and beside it what came out.

What is predicted is one run's: its score minus the mean score of runs from scratch (`softprompt.methods.spot.gains`).
The best of several runs gains more than that, from scratch as well.

Letters: M source prompts, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from softprompt.backbones.base import Backbone
from softprompt.library.search import Match, Spread
from softprompt.library.store import Library
from softprompt.methods.spot.calibration import Calibration
from softprompt.methods.spot.gains import AVERAGE, LEVEL, LOSS, PER_TOKEN, SIZE, GainFit
from softprompt.methods.spot.judging import Floats
from softprompt.methods.spot.predictors import ROWS, chosen_rows, prompt_losses
from softprompt.tasks.encoded import EncodedSplit

MOST_LOSSES = 100
"""Source prompts whose untuned loss is measured on its own accord; with more of them it is left out."""


@dataclass(frozen=True, kw_only=True)
class ExpectedGain:
    """What one source prompt is expected to gain over scratch, and what it did.

    Attributes:
        name: of the source prompt.
        task: it was tuned on.
        points: expected gain, points.
        low: lower end of the interval, points.
        high: its upper end.
        relative: expected relative error reduction, percent; None where the study gives none.
        relative_low: lower end of its interval.
        relative_high: its upper end.
        level: coverage of the intervals, in (0, 1).
        features: what it was predicted from.
        realised: points the run gained over the mean of the runs from scratch, on the reporting rows; None before it is
            tuned, or where it was not.
    """

    name: str
    task: str
    points: float
    low: float
    high: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    level: float
    features: tuple[str, ...]
    realised: float | None = None

    @property
    def held(self) -> bool | None:
        """Whether what came out lies in the interval; None where nothing did."""
        return None if self.realised is None else self.low <= self.realised <= self.high

    @property
    def text(self) -> str:
        """``"+1.2 (-5.0 to +7.5)"``: points, with their interval."""
        return f"{self.points:+.1f} ({self.low:+.1f} to {self.high:+.1f})"

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "held": self.held}


def expected_gains(
    calibration: Calibration, matches: Sequence[Match], spread: Spread, losses: Mapping[str, float] | None = None
) -> list[ExpectedGain]:
    """The expected gain of each match, in their order.

    Args:
        calibration: of the matches' backbone; the caller has checked that.
        matches: from ``search``; they may be the first of many candidates.
        spread: of all candidates (`softprompt.library.search.similarity_spread`).
        losses: loss of every candidate, untuned, on the target's training rows, nats a target token; None where not
            measured.

    Raises:
        UsageError: the calibration needs a feature that is not known.
    """
    standard = {
        PER_TOKEN: _standard([match.per_token for match in matches], spread.per_token),
        AVERAGE: _standard([match.average for match in matches], spread.average),
        SIZE: _standard([_log(match.entry.train_rows) for match in matches], spread.log_rows),
    }
    if losses is not None:
        all_losses = np.asarray(list(losses.values()), np.float64)
        mean, deviation = (float(all_losses.mean()), float(all_losses.std())) if len(all_losses) else (0.0, 0.0)
        standard[LOSS] = -_standard([losses.get(match.name, math.nan) for match in matches], (mean, deviation))
    model = calibration.model(standard.keys())
    features_MF = np.stack([standard[name] for name in model.features], axis=1)
    points_M = _interval(model.points, features_MF)
    relative_M = _interval(model.relative, features_MF) if model.relative is not None else None
    found = []
    for i, match in enumerate(matches):
        point, low, high = points_M[i].tolist()
        relative = (None, None, None) if relative_M is None else relative_M[i].tolist()
        found.append(
            ExpectedGain(
                name=match.name, task=match.task, points=point, low=low, high=high, relative=relative[0],
                relative_low=relative[1], relative_high=relative[2], level=LEVEL, features=model.features,
            )
        )  # fmt: skip
    return found


def with_realised(
    expected: Sequence[ExpectedGain], scores: Mapping[str, Sequence[float]], scratch: Sequence[float]
) -> list[ExpectedGain]:
    """The expectations with what came out beside them.

    Args:
        expected: in any order.
        scores: of the runs from each source prompt on the reporting rows, percent.
        scratch: the same of the runs from scratch.
    """
    if not scratch:
        return list(expected)
    base = sum(scratch) / len(scratch)
    return [
        replace(gain, realised=sum(scores[gain.name]) / len(scores[gain.name]) - base) if gain.name in scores else gain
        for gain in expected
    ]


def spread_of(matches: Sequence[Match]) -> Spread:
    """The spread of matches that are all the candidates there are."""

    def over(values: Sequence[float]) -> tuple[float, float]:
        known = np.asarray([v for v in values if not math.isnan(v)], np.float64)
        return (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)

    return Spread(
        count=len(matches),
        per_token=over([match.per_token for match in matches]),
        average=over([match.average for match in matches]),
        log_rows=over([_log(match.entry.train_rows) for match in matches]),
    )


def untuned_losses(
    backbone: Backbone, library: Library, names: Sequence[str], train: EncodedSplit, *, rows: int = ROWS, seed: int = 0
) -> tuple[dict[str, float], int]:
    """The loss of library prompts on the same training rows of a target, before any tuning.

    Args:
        backbone: frozen.
        library: holds the prompts.
        names: which.
        train: the target's training rows.
        rows: how many of them.
        seed: chooses them.

    Returns:
        nats a target token by name, and the forward-token equivalents it took.
    """
    prompts = [library.load(name, backbone).float() for name in names]
    found = prompt_losses(backbone, prompts, train, chosen_rows(train, rows, seed))
    return dict(zip(names, found.per_token_S().tolist(), strict=True)), found.forward_tokens


def _interval(fit: GainFit, features_MF: Floats) -> Floats:
    """Float [M, 3]: expected, low, high."""
    expected_M, half = fit.predict(features_MF), fit.half_width(LEVEL)
    return np.stack([expected_M, expected_M - half, expected_M + half], axis=1)


def _standard(values: Sequence[float], spread: tuple[float, float]) -> Floats:
    """(value - mean) / deviation; 0 where all candidates are alike, NaN where a value is not known."""
    mean, deviation = spread
    array = np.asarray(values, np.float64)
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return np.where(np.isnan(array), np.nan, 0.0)
    return (array - mean) / deviation


def _log(rows: int | None) -> float:
    return math.log(rows) if rows else math.nan
