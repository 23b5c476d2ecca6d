"""Plain records of a transfer study: what the analysis reads, whoever made the numbers (SPoT section 3.1).

Letters: S source tasks, T target tasks, R runs (seeds), M source prompts (S x R), N runs from scratch, P prompt tokens,
H width.
Scores are percents; a score that is not there yet is NaN in arrays and absent from records, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from softprompt.methods.spot.race import KEEP, LOOK_ROWS

Floats = NDArray[np.float64]
PromptId = tuple[str, int]
"""A source prompt or a task embedding: (task, seed of its run)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What something took on the target.

    Attributes:
        steps: tuning steps.
        tokens: forward-token equivalents of training and of the validation that choices were made on
            (`softprompt.methods.method`); the final measurement is no part of the search and not counted.
        seconds: of training and validation, as measured.
    """

    steps: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            steps=self.steps + other.steps, tokens=self.tokens + other.tokens, seconds=self.seconds + other.seconds
        )

    def times(self, factor: float) -> Cost:
        """A share or a multiple of it."""
        return Cost(steps=self.steps * factor, tokens=self.tokens * factor, seconds=self.seconds * factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """One validation of a training.

    Attributes:
        step: after how many steps.
        score: on the selecting rows, percent.
        loss: mean training loss since the validation before; None where it was not finite.
    """

    step: int
    score: float
    loss: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunScore:
    """One finished tuning run on a target task.

    Attributes:
        target: the target task.
        seed: seed of the run on the target.
        score: percent, the checkpoint with the highest validation score.
        source: the source prompt it started from; None for a start from scratch.
        halves: scores on the two halves of validation; None where they were not measured.
        seconds: of training.
        steps: prompt tuning steps taken.
        diverged: whether it met a loss that is not finite; its last good checkpoint counts then.
        curve: its validations; empty where they are not known.
        train_tokens: forward-token equivalents of training.
        validation_tokens: forward tokens of the validations of the curve.
    """

    target: str
    seed: int
    score: float
    source: PromptId | None = None
    halves: tuple[float, float] | None = None
    seconds: float = 0.0
    steps: int = 0
    diverged: bool = False
    curve: tuple[Validation, ...] = ()
    train_tokens: float = 0.0
    validation_tokens: float = 0.0

    @property
    def cost(self) -> Cost:
        """What the whole run took."""
        return Cost(steps=self.steps, tokens=self.train_tokens + self.validation_tokens, seconds=self.seconds)

    def cost_until(self, step: int, validations: int) -> Cost:
        """What it took up to a step, with so many validations: shares of the whole run."""
        share = step / self.steps if self.steps else 0.0
        seen = validations / len(self.curve) if self.curve else 0.0
        tokens = self.train_tokens * share + self.validation_tokens * seen
        whole = self.train_tokens + self.validation_tokens
        return Cost(steps=step, tokens=tokens, seconds=self.seconds * (tokens / whole if whole else share))


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyScore:
    """One finished run of a method that needs its own tuning (weighted_average, multitask_mixture, SharPT, ...).

    Attributes:
        strategy: its name.
        similarity: the ranking it used, e.g. ``"per_token"``.
        k: how many source prompts it drew on.
        target: the target task.
        seed: seed of the run on the target.
        score: percent.
        halves: scores on the two halves of validation; None where they were not measured.
        cost: on the target, with what is tuned for this target alone (a mixture); not its task embedding.
        tuned_parameters: numbers tuned on the target; None where they are a prompt's.
        source_steps: steps on the sources that one such run rests on and that all targets share.
        survivor: of a race, the start that won: a source prompt, or ``scratch``.
        race_field: of a race, the runs before each rung and after the last.
    """

    strategy: str
    similarity: str
    k: int
    target: str
    seed: int
    score: float
    halves: tuple[float, float] | None = None
    cost: Cost = Cost()
    tuned_parameters: int | None = None
    source_steps: int = 0
    survivor: str = ""
    race_field: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Results:
    """All finished results of a study, and the grid they belong to.

    Attributes:
        sources: the S source tasks, in the order of the tables.
        targets: the T target tasks.
        seeds: the R seeds that sources, transfers and baselines were run with.
        runs: finished runs on targets, from source prompts and from scratch (also with further seeds).
        embeddings: task embeddings float [P, H] of sources and targets at the study's embedding step.
        other_embeddings: the same at other steps, by label (``"1000"``, ``"best"``), for the ablation (footnote 13).
        strategies: finished runs of strategies that tune on their own.
        planned: (strategy, similarity, k) of all that the study asks for, finished or not.
        report_half: 1 where checkpoints were chosen on half 0 of validation and ``score`` is that of half 1; None where
            both were done on all of it, as in the papers.
        predictors: further rankings of sources, by name: (source, seed) -> target -> predicted value, higher is better.
        embedding_costs: cost of a target's task embedding, by (target, seed), as if it were made on its own.
        predictor_costs: cost of ranking all source prompts for a target, by predictor and target.
        source_steps: tuning steps of all source prompts together.
        prompt_parameters: numbers in a prompt; 0 where not known.
        race_keep: share of a race's field that survives a rung.
        race_rows: most rows that rank its field there; 0 for all.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[RunScore, ...]
    embeddings: Mapping[PromptId, Floats] = field(default_factory=dict)
    other_embeddings: Mapping[str, Mapping[PromptId, Floats]] = field(default_factory=dict)
    strategies: tuple[StrategyScore, ...] = ()
    planned: tuple[tuple[str, str, int], ...] = ()
    predictors: Mapping[str, Mapping[PromptId, Mapping[str, float]]] = field(default_factory=dict)
    report_half: int | None = None
    embedding_costs: Mapping[PromptId, Cost] = field(default_factory=dict)
    predictor_costs: Mapping[str, Mapping[str, Cost]] = field(default_factory=dict)
    source_steps: int = 0
    prompt_parameters: int = 0
    race_keep: float = KEEP
    race_rows: int = LOOK_ROWS

    @property
    def prompts(self) -> tuple[PromptId, ...]:
        """The M source prompts, sources outermost."""
        return tuple((source, seed) for source in self.sources for seed in self.seeds)

    def transfers_STR(self, half: int | None = None) -> Floats:
        """Float [S, T, R], scores by the source prompt's seed; NaN where unfinished.

        A source prompt that was transferred with several target seeds counts with their mean.

        Args:
            half: 0 or 1 for the score on that half of validation; None for the whole.
        """
        cells: dict[tuple[int, int, int], list[float]] = {}
        rows = {name: i for i, name in enumerate(self.sources)}
        columns = {name: i for i, name in enumerate(self.targets)}
        depth = {seed: i for i, seed in enumerate(self.seeds)}
        for run in self.runs:
            if run.source is None or run.source[0] not in rows or run.target not in columns:
                continue
            if run.source[1] in depth:
                place = rows[run.source[0]], columns[run.target], depth[run.source[1]]
                cells.setdefault(place, []).append(_value(run, half))
        out = np.full((len(self.sources), len(self.targets), len(self.seeds)), np.nan)
        for place, values in cells.items():
            out[place] = float(np.mean(values))
        return out

    def scratch_N(self, target: str, half: int | None = None) -> Floats:
        """Float [N], scores of every run from scratch on a target; one NaN while a seed of the study lacks its run."""
        runs = self.scratch(target)
        if set(self.seeds) - {run.seed for run in runs}:
            return np.array([np.nan])
        return np.array([_value(run, half) for run in runs], dtype=np.float64)

    @property
    def base_T(self) -> Floats:
        """Float [T], mean of all runs from scratch; NaN while a seed of the study lacks its run."""
        return np.array([self.scratch_N(target).mean() for target in self.targets], dtype=np.float64)

    def scratch(self, target: str) -> list[RunScore]:
        """Every run from scratch on a target, further seeds included, by seed."""
        return sorted((r for r in self.runs if r.source is None and r.target == target), key=lambda r: r.seed)


def _value(run: RunScore, half: int | None) -> float:
    if half is None:
        return run.score
    return run.halves[half] if run.halves is not None else float("nan")
