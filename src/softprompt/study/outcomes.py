"""Every method of a study by one yardstick: its score on rows that had no part in a choice, and its cost on the target.

Letters: T target tasks, R runs on a target, M source prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.study.choosing import Ways, reported
from softprompt.study.embeddings import SHORT_NAMES, SIMILARITIES
from softprompt.study.judged import COMBINED
from softprompt.study.records import Cost, Floats, Results, RunScore
from softprompt.study.replay import Race, replay_races
from softprompt.study.retrieval import rank, rankings
from softprompt.study.tables import Cell, summary

Found = tuple[float, Cost | None]
Value = Callable[[int, int], Found]
"""Score and cost of one target and run, by their places."""

RACE, REPLAYED = "race", "race, replayed"
"""A race that was run, and one replayed from the curves of the transfers, which stands in where none was run."""
PAPER_K, PAPER_PROMPTS = 9, 48
"""SPoT's bargain: 9 of 48 source prompts are tried (section 3.3)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One method over all targets and runs; NaN where unfinished.

    Attributes:
        strategy: ``baseline``, ``best_of_top_k``, ``random``, ``race``, ``race, replayed``, ``oracle``, or a method's own name.
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
        known = {"baseline": "prompt tuning", "best_of_top_k": "best_of_top_k", "random": "random choice"}
        words = known.get(self.strategy, self.strategy)
        details = [f"k = {self.k}"] if self.k and self.strategy not in ("oracle", RACE, REPLAYED) else []
        details += [SHORT_NAMES.get(self.ranking, self.ranking)] if self.ranking else []
        return f"{words} ({', '.join(details)})" if details else words

    @property
    def repeated(self) -> bool:
        """Whether all runs on a target have one number: no run of the target had a part in the choice."""
        searched = self.strategy in ("oracle", REPLAYED, "random")
        return searched or (self.strategy == "best_of_top_k" and self.ranking not in SIMILARITIES)

    def cell(self, target: int | None = None, mark: str = "") -> Cell:
        """Mean and spread over the runs on a target, or on their average over targets; no spread where `repeated`."""
        score_R = self.score_TR.mean(axis=0) if target is None else self.score_TR[target]
        return summary(score_R[:1] if self.repeated else score_R, mark=mark)

    @property
    def finished(self) -> bool:
        """Whether every target and run is there."""
        return not np.isnan(self.score_TR).any()


def paper_k(prompts: int) -> int:
    """As large a share of the source prompts as SPoT's 9 of 48, at least one."""
    return max(1, round(prompts * PAPER_K / PAPER_PROMPTS))


def bargain_ks(prompts: int) -> tuple[int, ...]:
    """Numbers of tries that the bargain is judged at: one, SPoT's share, and nine where there are more than nine."""
    return tuple(sorted({1, paper_k(prompts), *((PAPER_K,) if prompts > PAPER_K else ())}))


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """All methods of a study.

    Attributes:
        baseline: prompt tuning from scratch.
        oracle: every source prompt tried.
        race: successive halving over all of them, as it was run; else replayed; None where neither can be told.
        searches: best_of_top_k by every ranking, and random choice.
        methods: what tunes on its own (weighted_average, SharPT, model tuning, ...).
        races: by target, as they are replayed.
        ways: how choice and report were kept apart.
    """

    baseline: Outcome
    oracle: Outcome
    race: Outcome | None
    searches: tuple[Outcome, ...]
    methods: tuple[Outcome, ...]
    races: tuple[Race | None, ...]
    ways: Ways

    @classmethod
    def of(cls, results: Results, ks: Sequence[int] | None = None) -> Outcomes:
        """Read off a study's records; `ks` are the tries of best_of_top_k, `bargain_ks` where None."""
        made = _Maker(results)
        races = replay_races(results)
        total = len(results.prompts)
        chosen = [k for k in (ks or bargain_ks(total)) if k <= total]
        return cls(
            baseline=made.baseline(),
            oracle=made.oracle(),
            race=made.measured_race() or made.race(races),
            searches=tuple(made.searches(chosen)),
            methods=tuple(made.methods()),
            races=tuple(races),
            ways=made.ways,
        )


class _Maker:
    """Makes outcomes of one study."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.ways = Ways.of(results)
        self.shape = len(results.targets), len(results.seeds)
        self.moved: list[dict[int, RunScore]] = []  # by target: place among the source prompts -> run
        place = {prompt: m for m, prompt in enumerate(results.prompts)}
        for target in results.targets:
            runs = [run for run in results.runs if run.target == target and run.source in place]
            self.moved.append({place[run.source]: run for run in runs if run.source is not None})
        self.own = float(results.prompt_parameters) or float("nan")

    def _filled(self, value: Value, **facts: object) -> Outcome:
        arrays = {name: np.full(self.shape, np.nan) for name in ("score_TR", "steps_TR", "tokens_TR", "seconds_TR")}
        for t, r in np.ndindex(*self.shape):
            score, cost = value(t, r)
            arrays["score_TR"][t, r] = score
            if cost is not None and not np.isnan(score):
                arrays["steps_TR"][t, r] = cost.steps
                arrays["tokens_TR"][t, r] = cost.tokens
                arrays["seconds_TR"][t, r] = cost.seconds
        return Outcome(**{"parameters": self.own, **arrays, **facts})  # type: ignore[arg-type]

    def baseline(self) -> Outcome:
        base_TR = self.ways.base_TR
        runs = {(run.target, run.seed): run for run in self.results.runs if run.source is None}

        def value(t: int, r: int) -> Found:
            run = runs.get((self.results.targets[t], self.results.seeds[r]))
            return float(base_TR[t, r]), None if run is None else run.cost

        return self._filled(value, strategy="baseline")

    def _tried(self, t: int, members: Sequence[int]) -> Found:
        """The best of some source prompts and what trying them takes."""
        if not members or any(m not in self.moved[t] for m in members):
            return float("nan"), None
        return self.ways.best(t, members), sum((self.moved[t][m].cost for m in members), Cost())

    def oracle(self) -> Outcome:
        total = len(self.results.prompts)
        found = [self._tried(t, range(total)) for t in range(self.shape[0])]
        return self._filled(
            lambda t, r: found[t], strategy="oracle", k=total, tunings=total, source_steps=self.results.source_steps
        )

    def measured_race(self) -> Outcome | None:
        """The races that were run; None where none is finished."""
        results, total = self.results, len(self.results.prompts)
        runs: dict[tuple[str, int], Found] = {
            (run.target, run.seed): (reported(run.score, run.halves, results, self.ways.apart), run.cost)
            for run in results.strategies
            if run.strategy == RACE
        }
        if not runs:
            return None
        return self._filled(self._known(runs), strategy=RACE, k=total, tunings=total, source_steps=results.source_steps)

    def race(self, races: Sequence[Race | None]) -> Outcome | None:
        """The race that the transfers' curves tell."""
        if self.results.runs and not any(run.curve for run in self.results.runs):
            return None
        total = len(self.results.prompts)

        def value(t: int, r: int) -> Found:
            race = races[t]
            return (float("nan"), None) if race is None else (self.ways.reported(race.winner, self.results), race.cost)

        return self._filled(value, strategy=REPLAYED, k=total, tunings=total, source_steps=self.results.source_steps)

    def searches(self, ks: Sequence[int]) -> list[Outcome]:
        found = []
        for name, table in rankings(self.results).items():
            for k in ks:
                found.append(
                    self._filled(
                        self._ranked(name, table, k), strategy="best_of_top_k", ranking=name, k=k, tunings=k,
                        source_steps=self.results.source_steps,
                    )
                )  # fmt: skip
        for k in ks:
            found.append(
                self._filled(self._drawn(k), strategy="random", k=k, tunings=k, source_steps=self.results.source_steps)
            )
        return found

    def _ranked(self, name: str, table: Mapping[str, Floats], k: int) -> Value:
        def value(t: int, r: int) -> Found:
            target, seed = self.results.targets[t], self.results.seeds[r]
            values_RM = table[target]
            if len(values_RM) != self.shape[1]:
                return float("nan"), None
            chosen = rank(values_RM[r])[:k]
            if len(chosen) < k:
                return float("nan"), None
            score, cost = self._tried(t, chosen)
            price = self.price(name, target, seed)
            return score, None if cost is None or price is None else cost + price

        return value

    def price(self, ranking: str, target: str, seed: int) -> Cost | None:
        """What a ranking costs on a target; None where that is not known."""
        embedding = self.results.embedding_costs.get((target, seed))
        if ranking in SIMILARITIES:
            return embedding
        if ranking == COMBINED:  # it asks everyone
            measured = [name for name in self.results.predictors if name != COMBINED]
            own = [self.results.predictor_costs.get(name, {}).get(target) for name in measured]
            parts = [embedding, *own] if self.results.embeddings else own
            return None if any(part is None for part in parts) else sum((p for p in parts if p is not None), Cost())
        return self.results.predictor_costs.get(ranking, {}).get(target)

    def _drawn(self, k: int) -> Value:
        def value(t: int, r: int) -> Found:
            score, cost = self._tried(t, range(len(self.results.prompts)))
            if cost is None:
                return score, None
            return self.ways.random(t, k), cost.times(k / len(self.results.prompts))

        return value

    def methods(self) -> list[Outcome]:
        """What tunes on its own, one outcome a method, ranking and k."""
        results = self.results
        groups: dict[tuple[str, str, int], dict[tuple[str, int], Found]] = {
            place: {} for place in results.planned if place[0] != RACE
        }
        facts: dict[tuple[str, str, int], tuple[float, float]] = {}
        for run in results.strategies:
            if run.strategy == RACE:
                continue
            key = run.strategy, run.similarity, run.k
            cost: Cost | None = run.cost
            if run.similarity:
                price = self.price(run.similarity, run.target, run.seed)
                cost = None if price is None else run.cost + price
            score = reported(run.score, run.halves, results, self.ways.apart)
            groups.setdefault(key, {})[run.target, run.seed] = score, cost
            tuned = self.own if run.tuned_parameters is None else float(run.tuned_parameters)
            facts[key] = tuned, float(run.source_steps)
        found = []
        for key, runs in sorted(groups.items()):
            strategy, ranking, k = key
            parameters, shared = facts.get(key, (float("nan"), float("nan")))

            found.append(
                self._filled(
                    self._known(runs),
                    strategy=strategy,
                    ranking=ranking,
                    k=k,
                    parameters=parameters,
                    source_steps=shared,
                )
            )
        return found

    def _known(self, runs: Mapping[tuple[str, int], Found]) -> Value:
        results = self.results
        nothing: Found = (float("nan"), None)
        return lambda t, r: runs.get((results.targets[t], results.seeds[r]), nothing)
