"""Every method of a study by one yardstick: its score on rows that had no part in a choice, and its cost on the target.

Letters: T target tasks, R runs on a target, M source prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.analysis.choice import Choices
from softprompt.analysis.predictors import AVERAGED, all_rankings, rankings
from softprompt.analysis.records import Cost, Floats, Results, RunScore
from softprompt.analysis.similarity import SHORT_NAMES, SIMILARITIES
from softprompt.analysis.tables import Cell, summary
from softprompt.methods.spot.predictors import order_of

Found = tuple[float, Cost | None]
Value = Callable[[int, int], Found]
"""Score and cost of one target and run, by their places."""

RACE, ORACLE, BASELINE, TOP_K, RANDOM = "race", "oracle", "baseline", "best_of_top_k", "random"
PAPER_K, PAPER_PROMPTS = 9, 48
"""SPoT tries 9 of 48 source prompts (section 3.3)."""


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """One method over all targets and runs; NaN where unfinished.

    Attributes:
        strategy: ``baseline``, ``best_of_top_k``, ``random``, ``race``, ``oracle``, or a method's own name.
        ranking: what ordered the source prompts; empty where nothing did.
        k: source prompts drawn on; 0 for none.
        tunings: runs on the target it chooses among: what as many runs from scratch are held against.
        score_TR: percent on the reporting rows.
        steps_TR: tuning steps on the target, task embedding included where the method needs one.
        tokens_TR: forward-token equivalents, likewise.
        seconds_TR: likewise.
        parameters: numbers tuned on the target; NaN where not known.
        source_steps: steps on the sources that one use rests on, made once for all targets.
    """

    strategy: str
    ranking: str = ""
    k: int = 0
    tunings: int = 1
    score_TR: Floats
    steps_TR: Floats
    tokens_TR: Floats
    seconds_TR: Floats
    parameters: float = float("nan")
    source_steps: float = 0.0

    @property
    def name(self) -> str:
        """For tables: ``best_of_top_k (k = 3, per token)``."""
        words = {BASELINE: "prompt tuning", RANDOM: "random choice"}.get(self.strategy, self.strategy)
        details = [f"k = {self.k}"] if self.k and self.strategy not in (ORACLE, RACE) else []
        details += [SHORT_NAMES.get(self.ranking, self.ranking)] if self.ranking else []
        return f"{words} ({', '.join(details)})" if details else words

    @property
    def score_T(self) -> Floats:
        """Percent by target, mean over its runs."""
        return np.asarray(self.score_TR.mean(axis=1))

    @property
    def repeated(self) -> bool:
        """Whether all runs on a target have one number: no run of the target had a part in the choice."""
        return self.strategy in (ORACLE, RANDOM) or (self.strategy == TOP_K and self.ranking not in SIMILARITIES)

    def cell(self, target: int | None = None, mark: str = "") -> Cell:
        """Mean and spread over the runs on a target, or on their average over targets; no spread where `repeated`."""
        score_R = self.score_TR.mean(axis=0) if target is None else self.score_TR[target]
        return summary(score_R[:1] if self.repeated else score_R, mark=mark)

    @property
    def finished(self) -> bool:
        """Whether every target and run is there."""
        return not np.isnan(self.score_TR).any()

    def cost_share(self, oracle: MethodScores) -> float:
        """Its forward tokens over the oracle's, both averaged over targets and runs; NaN while either is unfinished."""
        whole = float(oracle.tokens_TR.mean()) if oracle.tokens_TR.size else float("nan")
        return float(self.tokens_TR.mean()) / whole if whole > 0 else float("nan")


def paper_k(prompts: int) -> int:
    """As large a share of the source prompts as SPoT's 9 of 48, at least one."""
    return max(1, round(prompts * PAPER_K / PAPER_PROMPTS))


def default_ks(prompts: int) -> tuple[int, ...]:
    """Numbers of tries that searches are judged at: one, SPoT's share, and nine where there are more than nine."""
    return tuple(sorted({1, paper_k(prompts), *((PAPER_K,) if prompts > PAPER_K else ())}))


@dataclass(frozen=True, kw_only=True)
class Methods:
    """All methods of a study.

    Attributes:
        baseline: prompt tuning from scratch, all its seeds.
        oracle: every source prompt tried.
        race: successive halving over all of them, where it was run; else None.
        searches: best_of_top_k by every ranking, and random choice.
        others: what tunes on its own (weighted_average, SharPT, model tuning, ...).
        choices: how choice and report were kept apart.
    """

    baseline: MethodScores
    oracle: MethodScores
    race: MethodScores | None
    searches: tuple[MethodScores, ...]
    others: tuple[MethodScores, ...]
    choices: Choices

    @classmethod
    def of(
        cls, results: Results, ks: Sequence[int] | None = None, *, apart: bool = True, averaged: bool = False
    ) -> Methods:
        """Read off a study's records.

        Args:
            results: of the study.
            ks: tries of best_of_top_k; `default_ks` where None.
            apart: False to choose and report on the same rows, as the papers do.
            averaged: whether similarities averaged over seeds rank too.
        """
        made = _Maker(results, Choices.of(results, apart=apart), averaged)
        total = len(results.prompts)
        return cls(
            baseline=made.baseline(),
            oracle=made.oracle(),
            race=made.race(),
            searches=tuple(made.searches([k for k in (ks or default_ks(total)) if k <= total])),
            others=tuple(made.others()),
            choices=made.choices,
        )

    def gain_T(self, method: MethodScores) -> Floats:
        """Points over the mean of all runs from scratch, by target."""
        return method.score_T - self.choices.scratch_T()

    def named(self, strategy: str, ranking: str | None = None, k: int | None = None) -> MethodScores | None:
        """The first such method; None where the study has none."""
        race = [self.race] if self.race is not None else []
        for method in (self.baseline, self.oracle, *race, *self.searches, *self.others):
            if method.strategy == strategy and ranking in (None, method.ranking) and k in (None, method.k):
                return method
        return None

    @property
    def shown(self) -> list[MethodScores]:
        """The methods that stand side by side: prompt tuning, oracle, race, SPoT's retrieval, and what tunes on its own.

        Retrieval is by the per-token similarity, SPoT's, or by the first ranking there is.
        """
        searched = [m for m in self.searches if m.strategy == TOP_K]
        names = [m.ranking for m in searched]
        chosen = "per_token" if "per_token" in names else next(iter(names), "")
        race = [self.race] if self.race is not None else []
        return [self.baseline, self.oracle, *race, *(m for m in searched if m.ranking == chosen), *self.others]


class _Maker:
    """Makes the methods of one study."""

    def __init__(self, results: Results, choices: Choices, averaged: bool = False) -> None:
        self.results = results
        self.tables = all_rankings(results) if averaged else rankings(results)
        self.choices = choices
        self.shape = len(results.targets), len(results.seeds)
        self.moved: list[dict[int, RunScore]] = []  # by target: place among the source prompts -> run
        place = {prompt: m for m, prompt in enumerate(results.prompts)}
        for target in results.targets:
            runs = [run for run in results.runs if run.target == target and run.source in place]
            self.moved.append({place[run.source]: run for run in runs if run.source is not None})
        self.own = float(results.prompt_parameters) or float("nan")

    def _filled(self, value: Value, columns: int | None = None, **facts: object) -> MethodScores:
        shape = self.shape[0], self.shape[1] if columns is None else columns
        arrays = {name: np.full(shape, np.nan) for name in ("score_TR", "steps_TR", "tokens_TR", "seconds_TR")}
        for t, r in np.ndindex(*shape):
            score, cost = value(t, r)
            arrays["score_TR"][t, r] = score
            if cost is not None and not np.isnan(score):
                arrays["steps_TR"][t, r] = cost.steps
                arrays["tokens_TR"][t, r] = cost.tokens
                arrays["seconds_TR"][t, r] = cost.seconds
        return MethodScores(**{"parameters": self.own, **arrays, **facts})  # type: ignore[arg-type]

    def baseline(self) -> MethodScores:
        runs = [self.results.scratch(target) for target in self.results.targets]
        columns = max((len(own) for own in runs), default=0) or self.shape[1]

        def value(t: int, r: int) -> Found:
            scores = self.choices.scratch_runs(t)
            if len(scores) <= r or np.isnan(
                scores[r]
            ):  # fewer further seeds than other targets have: their mean stands in
                return float(scores.mean()), None if np.isnan(scores).any() else runs[t][0].cost
            return float(scores[r]), runs[t][r].cost

        return self._filled(value, columns, strategy=BASELINE)

    def _tried(self, t: int, members: Sequence[int]) -> Found:
        """The best of some source prompts and what trying them takes."""
        if not members or any(m not in self.moved[t] for m in members):
            return float("nan"), None
        return self.choices.best(t, members), sum((self.moved[t][m].cost for m in members), Cost())

    def oracle(self) -> MethodScores:
        total = len(self.results.prompts)
        found = [self._tried(t, range(total)) for t in range(self.shape[0])]
        return self._filled(
            lambda t, r: found[t], strategy=ORACLE, k=total, tunings=total, source_steps=self.results.source_steps
        )

    def race(self) -> MethodScores | None:
        """The races that were run; None where none is finished."""
        results, total = self.results, len(self.results.prompts)
        runs: dict[tuple[str, int], Found] = {
            (run.target, run.seed): (self.choices.reported(run.score, run.halves), run.cost)
            for run in results.strategies
            if run.strategy == RACE
        }
        if not runs:
            return None
        return self._filled(self._known(runs), strategy=RACE, k=total, tunings=total, source_steps=results.source_steps)

    def searches(self, ks: Sequence[int]) -> list[MethodScores]:
        shared = self.results.source_steps
        found = [
            self._filled(
                self._ranked(name, table, k), strategy=TOP_K, ranking=name, k=k, tunings=k, source_steps=shared
            )
            for name, table in self.tables.items()
            for k in ks
        ]
        return found + [self._filled(self._drawn(k), strategy=RANDOM, k=k, tunings=k, source_steps=shared) for k in ks]

    def _ranked(self, name: str, table: Mapping[str, Floats], k: int) -> Value:
        def value(t: int, r: int) -> Found:
            target, seed = self.results.targets[t], self.results.seeds[r]
            values_RM = table[target]
            if len(values_RM) != self.shape[1]:
                return float("nan"), None
            chosen = order_of(values_RM[r])[:k]
            if len(chosen) < k:
                return float("nan"), None
            score, cost = self._tried(t, chosen)
            price = self.price(name, target, seed)
            return score, None if cost is None or price is None else cost + price

        return value

    def price(self, ranking: str, target: str, seed: int) -> Cost | None:
        """What a ranking costs on a target; None where that is not known."""
        if ranking.removesuffix(AVERAGED) in SIMILARITIES:
            return self.results.embedding_costs.get((target, seed))
        return self.results.predictor_costs.get(ranking, {}).get(target)

    def _drawn(self, k: int) -> Value:
        def value(t: int, r: int) -> Found:
            score, cost = self._tried(t, range(len(self.results.prompts)))
            if cost is None:
                return score, None
            return self.choices.random(t, k), cost.times(k / len(self.results.prompts))

        return value

    def others(self) -> list[MethodScores]:
        """What tunes on its own, one a method, ranking and k."""
        results = self.results
        groups: dict[tuple[str, str, int], dict[tuple[str, int], Found]] = {
            place: {} for place in results.planned if place[0] != RACE
        }
        facts: dict[tuple[str, str, int], tuple[float, float]] = {}
        for run in results.strategies:
            if run.strategy == RACE:
                continue
            key = run.strategy, run.similarity, run.k
            price = self.price(run.similarity, run.target, run.seed) if run.similarity else Cost()
            cost = None if price is None else run.cost + price
            groups.setdefault(key, {})[run.target, run.seed] = self.choices.reported(run.score, run.halves), cost
            tuned = self.own if run.tuned_parameters is None else float(run.tuned_parameters)
            facts[key] = tuned, float(run.source_steps)
        nothing = float("nan"), float("nan")
        return [
            self._filled(
                self._known(runs), strategy=key[0], ranking=key[1], k=key[2], parameters=facts.get(key, nothing)[0],
                source_steps=facts.get(key, nothing)[1],
            )
            for key, runs in sorted(groups.items())
        ]  # fmt: skip

    def _known(self, runs: Mapping[tuple[str, int], Found]) -> Value:
        results = self.results
        nothing: Found = (float("nan"), None)
        return lambda t, r: runs.get((results.targets[t], results.seeds[r]), nothing)
