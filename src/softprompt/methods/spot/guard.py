"""The guard: is a transferred prompt really better than one from scratch, beyond noise?

The best of many noisy runs beats the mean of few where nothing transfers at all. So the choice among candidates is
made on one half of the validation rows, and what is reported is measured on the other half, paired by row, against
the scratch run that the same half had chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from softprompt.tasks.example import Example
from softprompt.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A paired comparison of two runs on the same rows.

    Attributes:
        gain: score of the new minus the base, points (percent).
        low: lower end of the bootstrap interval of the gain, points.
        high: its upper end.
        level: coverage of the interval, in (0, 1).
        p_worse: share of resamples in which the new one is not better.
        rows: rows compared.
        error_reduction: gain relative to the base's distance from 100, percent; None where the base is perfect.
    """

    gain: float
    low: float
    high: float
    level: float
    p_worse: float
    rows: int
    error_reduction: float | None

    @property
    def better(self) -> bool:
        """Better beyond noise: the whole interval is above zero."""
        return self.low > 0.0

    @property
    def worse(self) -> bool:
        """Worse beyond noise: the whole interval is below zero."""
        return self.high < 0.0

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "better": self.better, "worse": self.worse}


def compare(
    task: Task,
    examples: Sequence[Example],
    new: Sequence[str],
    base: Sequence[str],
    *,
    canonical: Callable[[str], str] | None = None,
    level: float = 0.9,
    resamples: int = 500,
    seed: int = 0,
) -> Comparison:
    """Compare two runs' predictions on the same rows by a paired bootstrap over rows.

    Args:
        task: gives the score.
        examples: the rows.
        new: predictions of the new run, in their order.
        base: predictions of the run to beat.
        canonical: how gold texts look after the backbone's tokenizer.
        level: coverage of the interval.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """

    def score(predictions: Sequence[str], rows: np.ndarray) -> float:
        return task.score([predictions[r] for r in rows], [examples[r] for r in rows], canonical=canonical)["score"]

    everything = np.arange(len(examples))
    new_score, base_score = score(new, everything), score(base, everything)
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(examples), 3]))
    draws = (rng.integers(0, len(examples), len(examples)) for _ in range(resamples))
    gains = np.asarray([score(new, rows) - score(base, rows) for rows in draws])
    tail = (1.0 - level) / 2.0
    low, high = (float(np.nanquantile(gains, q)) for q in (tail, 1.0 - tail))
    return Comparison(
        gain=new_score - base_score, low=low, high=high, level=level, p_worse=float(np.mean(gains <= 0.0)),
        rows=len(examples),
        error_reduction=None if base_score >= 100.0 else 100.0 * (new_score - base_score) / (100.0 - base_score),
    )  # fmt: skip
