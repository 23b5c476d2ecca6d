"""Statistics of transfer that do not flatter it: choice and report apart, luck taken off, intervals, corrected tests.

Letters: T target tasks, R runs, M source prompts, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from softprompt.study.analysis import Gains, relative_error_reduction
from softprompt.study.choosing import honest_best
from softprompt.study.records import Floats, Results
from softprompt.study.retrieval import expected_best_of_random
from softprompt.study.tables import Cell, Table, summary


@dataclass(frozen=True, kw_only=True)
class HalvesRow:
    """The oracle of one target, with and without its luck.

    Attributes:
        target: the target task.
        base: percent, mean from scratch over both halves.
        same_half: percent, best prompt chosen and reported on the same half, mean of both halves.
        other_half: percent, chosen on one half and reported on the other, mean of both ways.
    """

    target: str
    base: float
    same_half: float
    other_half: float

    @property
    def luck(self) -> float:
        """Points of the searched best that were chance: same half minus other half."""
        return self.same_half - self.other_half


def split_halves(results: Results) -> list[HalvesRow]:
    """Choice and report on different halves of validation, for every target; NaN where halves were not measured."""
    first, second = Gains.of(results, half=0), Gains.of(results, half=1)
    rows = []
    for t, target in enumerate(results.targets):
        a, b = first.scores_STR[:, t].ravel(), second.scores_STR[:, t].ravel()
        if results.report_half is not None:  # checkpoints were chosen on half 0: only half 1 is clean
            base, same, other = float(second.base_TR[t].mean()), honest_best(b, b), honest_best(a, b)
        else:
            base = (float(first.base_TR[t].mean()) + float(second.base_TR[t].mean())) / 2
            same = (honest_best(a, a) + honest_best(b, b)) / 2
            other = (honest_best(a, b) + honest_best(b, a)) / 2
        rows.append(HalvesRow(target=target, base=base, same_half=same, other_half=other))
    return rows


def halves_table(results: Results) -> Table:
    """`split_halves` as a table, with the average over targets."""
    rows = split_halves(results)
    body: list[tuple[str | float | Cell | None, ...]] = [
        (row.target, _float(row.base), _float(row.same_half), _float(row.other_half), _float(row.luck)) for row in rows
    ]
    means = [_float(float(np.mean([getattr(row, name) for row in rows]))) for name in _HALVES] if rows else [None] * 4
    body.append(("average", *means))
    return Table(
        name="halves",
        title="The best source prompt, chosen and reported on the same and on different halves of validation",
        columns=("target", "from scratch", "same half", "other half", "luck of the search"),
        rows=tuple(body),
    )


_HALVES = ("base", "same_half", "other_half", "luck")


@dataclass(frozen=True, kw_only=True)
class ExcessRow:
    """Best of k source prompts over best of k seeds from scratch, on one target.

    Attributes:
        target: the target task.
        k: how many runs each side may try.
        transfer: percent, expected best of k randomly chosen source prompts.
        scratch: percent, expected best of k runs from scratch.
    """

    target: str
    k: int
    transfer: float
    scratch: float

    @property
    def excess(self) -> float:
        """Points that trying k prompts gives beyond trying k seeds."""
        return self.transfer - self.scratch


def excess_over_scratch(results: Results, k: int) -> list[ExcessRow]:
    """What is left of transfer's gain when tuning from scratch may try as many times (expectations over draws of k).

    NaN for a target with fewer than k finished runs from scratch: give the study more ``scratch_seeds``.
    """
    scores_STR = results.transfers_STR()
    rows = []
    for t, target in enumerate(results.targets):
        scratch = np.array([run.score for run in results.scratch(target)])
        rows.append(
            ExcessRow(
                target=target,
                k=k,
                transfer=expected_best_of_random(scores_STR[:, t].ravel(), k),
                scratch=expected_best_of_random(scratch, k),
            )
        )
    return rows


def excess_table(results: Results) -> Table:
    """`excess_over_scratch` for one try and for as many as every target has runs from scratch."""
    fewest = min((len(results.scratch(target)) for target in results.targets), default=0)
    most = min(fewest, len(results.prompts))
    ks = sorted({1, most}) if most else [1]
    by_k = [excess_over_scratch(results, k) for k in ks]
    body = [
        (target, *(_float(v) for rows in by_k for v in (rows[t].transfer, rows[t].scratch, rows[t].excess)))
        for t, target in enumerate(results.targets)
    ]
    columns = tuple(f"{name}, k = {k}" for k in ks for name in ("prompts", "seeds", "excess"))
    note = f"{len(results.prompts)} source prompts against {fewest} seeds from scratch: more need more scratch_seeds."
    return Table(
        name="excess",
        title="Best of k source prompts against best of k seeds from scratch (expected, percent)",
        columns=("target", *columns),
        rows=tuple(body),
        notes=(note,),
    )


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its percentile bootstrap interval.

    Attributes:
        mean: of the data.
        low: lower end.
        high: upper end.
        level: coverage, e.g. 0.95.
    """

    mean: float
    low: float
    high: float
    level: float = 0.95


def bootstrap(values_TR: Floats, *, draws: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the mean over targets and seeds: targets are drawn with replacement, then seeds within each.

    Args:
        values_TR: one number a target and run, e.g. relative error reductions; NaN in any makes all NaN.
        draws: D.
        level: coverage.
        seed: of the draws.
    """
    nan = float("nan")
    if not values_TR.size or np.isnan(values_TR).any():
        return Interval(mean=nan, low=nan, high=nan, level=level)
    random = np.random.default_rng(seed)
    targets, runs = values_TR.shape
    rows_DT = random.integers(targets, size=(draws, targets))
    columns_DTR = random.integers(runs, size=(draws, targets, runs))
    means = values_TR[rows_DT[:, :, None], columns_DTR].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float(values_TR.mean()), low=float(low), high=float(high), level=level)


def sign_flip_test(differences: Floats, *, draws: int = 20_000, seed: int = 0) -> float:
    """Two-sided p-value of a paired permutation test: the sign of each difference is as good as random.

    Exact up to 16 differences, else with ``draws`` random sign patterns (the observed one counted).
    """
    differences = np.asarray(differences, dtype=np.float64)
    if not differences.size or np.isnan(differences).any():
        return float("nan")
    observed = abs(differences.sum())
    tolerance = 1e-9 * max(1.0, np.abs(differences).sum())
    if differences.size <= 16:
        signs = np.array(list(product((1.0, -1.0), repeat=differences.size)))
        return float((np.abs(signs @ differences) >= observed - tolerance).mean())
    signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(draws, differences.size))
    hits = int((np.abs(signs @ differences) >= observed - tolerance).sum())
    return (hits + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that may be compared with one level for the whole family. NaN stays out."""
    known = [(p, i) for i, p in enumerate(p_values) if not np.isnan(p)]
    out = [float("nan")] * len(p_values)
    worst = 0.0
    for place, (p, i) in enumerate(sorted(known)):
        worst = max(worst, min(1.0, p * (len(known) - place)))
        out[i] = worst
    return out


def effect_size(differences: Floats) -> float:
    """Standardised mean of paired differences (Cohen's d_z) with Hedges' correction for few pairs; NaN below two."""
    differences = np.asarray(differences, dtype=np.float64)
    n = differences.size
    if n < 2 or np.isnan(differences).any():
        return float("nan")
    spread = differences.std(ddof=1)
    if spread == 0:
        return 0.0 if differences.mean() == 0 else float(np.copysign(np.inf, differences.mean()))
    return float(differences.mean() / spread * (1 - 3 / (4 * n - 5)))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One way of starting against the start from scratch, paired by target.

    Attributes:
        name: the source task or strategy.
        difference: mean difference in score, points, with its bootstrap interval over targets and seeds.
        p: two-sided p of the sign-flip test over targets.
        p_holm: the same after Holm's correction over the family.
        effect: Hedges-corrected d_z over targets.
        improved: targets whose mean rose.
        targets: T.
    """

    name: str
    difference: Interval
    p: float
    p_holm: float
    effect: float
    improved: int
    targets: int


def compare(named_TR: Sequence[tuple[str, Floats]], base_TR: Floats) -> list[Comparison]:
    """Each score array against the baseline, as one family of tests; unfinished ones have NaN throughout.

    Targets are the units of the test: seeds of one target are averaged first, since they are not independent evidence.
    """
    differences = [(name, scores - base_TR) for name, scores in named_TR]
    p_values = [sign_flip_test(d.mean(axis=1)) for _, d in differences]
    return [
        Comparison(
            name=name,
            difference=bootstrap(d),
            p=p,
            p_holm=corrected,
            effect=effect_size(d.mean(axis=1)),
            improved=int((d.mean(axis=1) > 0).sum()),
            targets=len(base_TR),
        )
        for (name, d), p, corrected in zip(differences, p_values, holm(p_values), strict=True)
    ]


def compare_sources(results: Results) -> list[Comparison]:
    """Every source task against the start from scratch, Holm-corrected over the sources."""
    gains = Gains.of(results)
    return compare([(name, gains.scores_STR[s]) for s, name in enumerate(results.sources)], gains.base_TR)


def comparison_table(comparisons: Sequence[Comparison], name: str, title: str) -> Table:
    """Comparisons with interval, test and effect size."""
    body = [
        (
            c.name,
            _float(c.difference.mean),
            _interval(c.difference),
            _p(c.p),
            _p(c.p_holm),
            "pending" if np.isnan(c.effect) else f"{c.effect:.2f}",
            f"{c.improved}/{c.targets}",
        )
        for c in comparisons
    ]
    return Table(
        name=name,
        title=title,
        columns=("start", "difference", "95% interval", "p", "p (Holm)", "effect size", "targets improved"),
        rows=tuple(body),
        notes=(
            "Difference in points against scratch with the same seeds; bootstrap over targets, then seeds.",
            "p: sign-flip permutation test over targets; effect size: d_z with Hedges' correction.",
        ),
    )


def gain_interval(results: Results) -> Interval:
    """Bootstrap interval of the mean relative error reduction of the best source of each target (chosen by its mean)."""
    gains = Gains.of(results)
    if not results.sources or np.isnan(gains.scores_STR).any():
        return bootstrap(np.full((1, 1), np.nan))
    winner_T = gains.scores_STR.mean(axis=2).argmax(axis=0)
    best_TR = np.stack([gains.scores_STR[s, t] for t, s in enumerate(winner_T)])
    return bootstrap(relative_error_reduction(best_TR, gains.base_TR.mean(axis=1)[:, None]))


def stability_table(results: Results) -> Table:
    """Mean and spread over seeds of average scores, by start: source tasks and mixtures, and how steady tuning is (Table 1).

    Where all tasks of GLUE or SuperGLUE are among the targets, their averages stand in columns of their own.
    """
    from softprompt.tasks.mixture import MIXTURES

    gains = Gains.of(results)
    groups = {"all targets": list(range(len(results.targets)))}
    for name, words in (("glue", "GLUE"), ("superglue", "SuperGLUE")):
        tasks = MIXTURES[name].tasks
        if set(tasks) <= set(results.targets):
            groups[words] = [results.targets.index(task) for task in tasks]
    starts = [("from scratch", gains.base_TR), *zip(results.sources, gains.scores_STR, strict=True)]
    rows: list[tuple[str | float | Cell | None, ...]] = []
    for name, scores_TR in starts:
        rows.append((name, *(summary(scores_TR[chosen].mean(axis=0)) for chosen in groups.values())))
    return Table(
        name="mixtures",
        title="Average score over the target tasks, by source (mean and spread over seeds)",
        columns=("source", *groups),
        rows=tuple(rows),
    )


def _interval(interval: Interval) -> str:
    return "pending" if np.isnan(interval.mean) else f"[{interval.low:.1f}, {interval.high:.1f}]"


def _p(value: float) -> str:
    return "pending" if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _float(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
