"""SPoT and SharPT on one page: every method's score beside its cost (SPoT Table 3).

Letters: T target tasks, R runs on a target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from softprompt.study.analysis import finished_mean
from softprompt.study.outcomes import Outcome, Outcomes
from softprompt.study.records import Floats
from softprompt.study.statistics import Interval, bootstrap, compare, comparison_table
from softprompt.study.tables import Cell, Table


def on_the_page(found: Outcomes) -> list[Outcome]:
    """The methods that stand side by side: prompt tuning, oracle, race, SPoT's retrieval, and what tunes on its own.

    Retrieval is by the per-token similarity, SPoT's best, or by the first ranking there is; the bargain table has the rest.
    """
    searched = [o for o in found.searches if o.strategy == "best_of_top_k"]
    names = [o.ranking for o in searched]
    chosen = "per_token" if "per_token" in names else next(iter(names), "")
    race = [found.race] if found.race is not None else []
    return [found.baseline, found.oracle, *race, *(o for o in searched if o.ranking == chosen), *found.methods]


def cost_table(found: Outcomes) -> Table:
    """Score and cost of every method, averaged over targets, with intervals over targets and seeds."""
    base_TR, oracle = found.baseline.score_TR, found.oracle
    body: list[tuple[str | float | Cell | None, ...]] = []
    for o in on_the_page(found):
        difference = "–" if o is found.baseline else with_interval(bootstrap(o.score_TR - base_TR), sign=True)
        body.append(
            (
                o.name,
                with_interval(bootstrap(o.score_TR)),
                difference,
                _count(o.steps_TR),
                _percent(cost_share(o, oracle)),
                _count(o.seconds_TR),
                "–" if np.isnan(o.parameters) else f"{o.parameters:,.0f}",
                "pending" if np.isnan(o.source_steps) else f"{o.source_steps:,.0f}",
            )
        )
    return Table(
        name="methods_cost",
        title="Methods: score (percent) beside cost, averaged over target tasks",
        columns=(
            "method", "score [95% interval]", "points over prompt tuning", "steps", "share of the oracle's cost", "seconds",
            "tuned parameters", "source steps",
        ),
        rows=tuple(body),
        notes=(
            choice_note(found),
            "Intervals: bootstrap over targets, then seeds. Steps: of tuning on the target, prompts or weights, for one use, "
            "with task embeddings and the tuning of a target's own mixture. Cost: forward-token equivalents of training (two "
            "a position for prompts, three for model tuning) and of the validation that choices are made on; the final "
            "measurement is not counted, and neither is SharPT's frozen encoder, which reads each row once.",
            "Tuned parameters: on the target. Source steps are taken once and serve every target; they are not part of the "
            "cost. Seconds are as measured on the machine of the study, a run's part of the batches it trained in.",
        ),
    )  # fmt: skip


def against_scratch_table(found: Outcomes) -> Table:
    """Every method against prompt tuning as one family of tests: interval, p with Holm's correction, effect size."""
    rows = [(o.name, o.score_TR) for o in on_the_page(found) if o is not found.baseline]
    return comparison_table(
        compare(rows, found.baseline.score_TR), "methods_tested", "Each method against prompt tuning from scratch"
    )


def cost_points(found: Outcomes) -> list[tuple[str, float, float, Interval]]:
    """(method, share of the oracle's cost, mean points over prompt tuning, interval) of finished methods of known cost.

    Differences are paired by target and seed: how targets differ from each other is no part of the interval.
    """
    points = []
    for o in on_the_page(found):
        share = cost_share(o, found.oracle)
        interval = bootstrap(o.score_TR - found.baseline.score_TR)
        if not np.isnan(interval.mean) and not np.isnan(share):
            points.append((o.name, share, interval.mean, interval))
    return points


def cost_share(outcome: Outcome, oracle: Outcome) -> float:
    """The method's forward tokens over the oracle's, both averaged over targets and runs; NaN while either is unfinished."""
    whole = float(oracle.tokens_TR.mean()) if oracle.tokens_TR.size else float("nan")
    return float(outcome.tokens_TR.mean()) / whole if whole > 0 else float("nan")


def choice_note(found: Outcomes) -> str:
    """How choice and report were kept apart, in a sentence."""
    if not found.ways.apart:
        return "Halves of validation are not known: what is chosen among is chosen on the data it is reported on."
    if len(found.ways.ways) == 1:
        return "Checkpoints and prompts are chosen on one half of validation; scores are those of the other half."
    return (
        "Prompts are chosen on one half of validation and reported on the other, both ways; checkpoints were chosen on "
        "all of it."
    )


def with_interval(interval: Interval, digits: int = 1, sign: bool = False) -> str:
    """``71.2 [69.0, 73.1]``; ``pending`` while anything is unfinished."""
    if np.isnan(interval.mean):
        return "pending"
    numbers = (round(value, digits) + 0.0 for value in (interval.mean, interval.low, interval.high))  # no -0.0
    mean, low, high = (f"{value:{'+' if sign else ''}.{digits}f}" for value in numbers)
    return f"{mean} [{low}, {high}]"


def _count(values_TR: Floats) -> str:
    mean = float(finished_mean(values_TR)) if values_TR.size else float("nan")
    if np.isnan(values_TR).any() or np.isnan(mean):
        return "pending"
    return f"{mean:,.0f}" if mean >= 10 else f"{mean:.1f}"


def _percent(share: float) -> str:
    return "pending" if np.isnan(share) else f"{100 * share:.1f}%"


def differences(found: Outcomes, name: str, others: Sequence[Outcome]) -> list[tuple[str, Interval]]:
    """One method against others, paired by target and seed; empty where it was not run."""
    own = next((o for o in found.methods if o.strategy == name), None)
    return [] if own is None else [(o.name, bootstrap(own.score_TR - o.score_TR)) for o in others]
