"""Intervals and tests over target tasks, as a reviewer accepts them.

The unit is the target: seeds of one target, and seeds of one source, are averaged first, for they are not independent
evidence. Scores and differences are in points (percent); NaN marks what is not finished and makes the whole pending.

Letters: T target tasks, R runs on a target, S source tasks, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.analysis.records import Floats
from softprompt.analysis.tables import PENDING, Cell, Table, fixed

LEVEL = 0.95
NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its interval.

    Attributes:
        mean: NaN while anything is unfinished.
        low: lower end; NaN where the units are too few to tell.
        high: upper end, likewise.
        level: coverage, e.g. 0.95.
        units: how many independent units it rests on; 0 where not known.
    """

    mean: float
    low: float = NAN
    high: float = NAN
    level: float = LEVEL
    units: int = 0

    @property
    def above(self) -> bool:
        """Whether all of it is above zero."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether all of it is below zero."""
        return self.high < 0

    def text(self, digits: int = 1, sign: bool = False) -> str:
        """``71.2 [69.0, 73.1]``; ``71.2 [-]`` over one unit; ``pending`` while anything is unfinished."""
        if np.isnan(self.mean):
            return PENDING
        plus = "+" if sign else ""
        mean = f"{round(self.mean, digits) + 0.0:{plus}.{digits}f}"
        if np.isnan(self.low):
            return f"{mean} [-]"
        low, high = (f"{v:{plus}.{digits}f}" for v in (self.low, self.high))  # -0.0 tells on which side of zero it ends
        return f"{mean} [{low}, {high}]"


def t_interval(values_T: Floats | Sequence[float], level: float = LEVEL) -> Interval:
    """Student's interval of the mean over targets; without ends over one."""
    values = np.asarray(values_T, dtype=np.float64).ravel()
    if not values.size or np.isnan(values).any():
        return Interval(mean=NAN, level=level, units=values.size)
    mean, n = float(values.mean()), values.size
    if n < 2:
        return Interval(mean=mean, level=level, units=n)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / n**0.5
    return Interval(mean=mean, low=mean - half, high=mean + half, level=level, units=n)


def ratio_interval(part_T: Floats, whole_T: Floats, level: float = LEVEL) -> Interval:
    """Fieller's interval of mean(part) / mean(whole), paired by target.

    All NaN where the whole's own t interval is not above zero: a share of what may well be nothing says nothing. Exactly
    then Fieller's interval is bounded.
    """
    if not t_interval(whole_T, level).above or np.isnan(part_T).any():
        return Interval(mean=NAN, level=level, units=len(part_T))
    from scipy.stats import t

    n = len(part_T)
    x, y = float(whole_T.mean()), float(part_T.mean())
    (xx, xy), (_, yy) = np.cov(whole_T, part_T) * float(t.ppf((1 + level) / 2, n - 1)) ** 2 / n
    a, b, c = x * x - xx, x * y - xy, y * y - yy
    root = max(b * b - a * c, 0.0) ** 0.5
    return Interval(mean=y / x, low=(b - root) / a, high=(b + root) / a, level=level, units=n)


def sign_flip_test(differences_T: Floats | Sequence[float], draws: int = 20_000, seed: int = 0) -> float:
    """Two-sided p of the sign-flip permutation test of a mean of zero: exact up to 14 differences."""
    differences = np.asarray(differences_T, dtype=np.float64)
    if not differences.size or np.isnan(differences).any():
        return NAN
    if differences.size == 1:
        return 1.0
    from scipy.stats import permutation_test

    found = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=draws, vectorized=True,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(min(1.0, found.pvalue))


def smallest_p(targets: int) -> float:
    """The least two-sided p that the sign-flip test over so many targets can give."""
    return min(1.0, 2.0 ** (1 - targets)) if targets else 1.0


def what_targets_can_show(targets: int) -> str:
    """In a sentence: how strong the evidence of so many targets can be."""
    if targets < 2:
        return "One target task: nothing here says how other tasks would fare, so no interval or test is given."
    least = smallest_p(targets)
    able = "so no difference can be significant at 5 %" if least > 0.05 else "so 5 % can be reached"
    return (
        f"{targets} target tasks: the sign-flip test cannot give a p below {least:.2g}, {able}. Intervals are Student's over "
        "targets; seeds are averaged first."
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that may be compared with one level for the whole family. NaN stays out."""
    known = [(p, i) for i, p in enumerate(p_values) if not np.isnan(p)]
    out = [NAN] * len(p_values)
    worst = 0.0
    for place, (p, i) in enumerate(sorted(known)):
        worst = max(worst, min(1.0, p * (len(known) - place)))
        out[i] = worst
    return out


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing against another, paired by target.

    Attributes:
        name: of the thing.
        points: mean difference over targets with its t interval.
        p: two-sided, of the sign-flip test over targets.
        p_holm: the same after Holm's correction over the family.
        better: targets with a difference above zero.
        targets: T.
    """

    name: str
    points: Interval
    p: float
    p_holm: float
    better: int
    targets: int


def family(named_T: Sequence[tuple[str, Floats]]) -> list[Difference]:
    """Differences by target as one family of tests; unfinished ones are pending and do not count in it."""
    p_values = [sign_flip_test(values) for _, values in named_T]
    return [
        Difference(
            name=name, points=t_interval(values), p=p, p_holm=corrected, better=int((values > 0).sum()), targets=len(values)
        )
        for (name, values), p, corrected in zip(named_T, p_values, holm(p_values), strict=True)
    ]  # fmt: skip


def family_table(rows: Sequence[Difference], name: str, title: str, notes: Sequence[str] = ()) -> Table:
    """A family of differences with interval, test and count."""
    body: list[tuple[str | float | Cell | None, ...]] = [
        (d.name, d.points.text(sign=True), p_text(d.p), p_text(d.p_holm), _count(d)) for d in rows
    ]
    targets = max((d.targets for d in rows), default=0)
    return Table(
        name=name,
        title=title,
        columns=("start", "points [95% interval]", "p", "p (Holm)", "targets better"),
        rows=tuple(body),
        notes=(*notes, what_targets_can_show(targets)),
    )


def _count(d: Difference) -> str:
    return PENDING if np.isnan(d.points.mean) else f"{d.better}/{d.targets}"


def p_text(value: float) -> str:
    """A p-value for a table."""
    return PENDING if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def share_text(share: Interval, finished: bool = True) -> str:
    """``93% [71, 108]``; ``no clear gain`` where the whole is not clear of zero."""
    if not finished:
        return PENDING
    if np.isnan(share.mean):
        return "no clear gain"
    mean, low, high = (fixed(100 * value, 0) for value in (share.mean, share.low, share.high))
    return f"{mean}% [{low}, {high}]"


def resampled(
    draw: Callable[[np.random.Generator], float], draws: int = 2000, level: float = LEVEL, seed: int = 0
) -> tuple[float, float, float]:
    """(low, high, share of draws not above zero) of what `draw` gives with runs and rows drawn anew."""
    random = np.random.default_rng(seed)
    values = np.array([draw(random) for _ in range(draws)])
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), float(np.mean(values <= 0))
