"""What a study says, first: a plain answer to each question with its figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from softprompt.analysis.comparison import ABLATED
from softprompt.analysis.harm import BLIND, ByRows
from softprompt.analysis.methods import TOP_K, Methods
from softprompt.analysis.planned import K, default_predictors, default_score_T, kin_count, kin_of
from softprompt.analysis.predictors import judged
from softprompt.analysis.records import Floats, Results
from softprompt.analysis.searches import paper_search
from softprompt.analysis.similarity import SIMILARITIES
from softprompt.analysis.statistics import Interval, ratio_interval, share_text, t_interval, what_targets_can_show

Answer = Literal["yes", "no", "not shown", "pending"]
NEEDED = {
    "sharpt, no-source-training": "Does SharPT need its training on sources?",
    "sharpt, no-latent-space": "Does SharPT need its latent space?",
    "sharpt, generator-only": "Does SharPT beat as many tuned numbers without sources or skills?",
}
"""What each ablation of SharPT asks."""
NO_ROWS = "This is compared row by row, and the targets' rows were not found: set SOFTPROMPT_DATA to their folder."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to one question.

    Attributes:
        question: as a reader would ask it.
        answer: ``yes`` or ``no`` where an interval is clear of zero, ``not shown`` where it is not, ``pending``.
        told: the figures, in a sentence.
    """

    question: str
    answer: Answer
    told: str


def verdicts(found: Methods, results: Results, rows: ByRows | None = None) -> list[Verdict]:
    """Every question that the study can say something on, the most important first."""
    return [
        *_transfer(found, results),
        *_default_predictor(found, results),
        *_kin(results),
        *_choosing(results),
        *_racing(found),
        *_harm(rows, results),
        *_sharpt(found),
        *_weights(found),
    ]


def strength(results: Results) -> str:
    """What so many targets can show, in a sentence."""
    return what_targets_can_show(len(results.targets))


def _answer(interval: Interval) -> Answer:
    if np.isnan(interval.mean):
        return "pending"
    return "yes" if interval.above else "no" if interval.below else "not shown"


def _points(values_T: Floats, over: str) -> tuple[Interval, str]:
    interval = t_interval(values_T)
    if np.isnan(interval.mean):
        return interval, "Cells are missing"
    better, ends = int((values_T > 0).sum()), interval.text(sign=True)
    return interval, f"{ends} points {over}, better on {better} of {len(values_T)} targets"


def _transfer(found: Methods, results: Results) -> Iterator[Verdict]:
    search = paper_search(found, len(results.prompts))
    seeds = found.choices.fewest_scratch
    for method, question in (
        (search, "Does a retrieved source prompt beat a start from scratch?"),
        (found.oracle, "Does the best of all source prompts beat it?"),
    ):
        if method is not None:
            interval, told = _points(found.gain_T(method), f"over the mean of {seeds} runs from scratch")
            if method is found.oracle and not np.isnan(interval.mean):
                fair = t_interval(method.score_T - found.choices.scratch_T(method.tunings))
                told += f"; {fair.text(sign=True)} over the best of {min(seeds, method.tunings)} of them"
            yield Verdict(question=question, answer=_answer(interval), told=f"{method.name}: {told}.")


def _default_predictor(found: Methods, results: Results) -> Iterator[Verdict]:
    """The plan's primary question: each target's ranking is the one that is best on the other targets."""
    chosen = default_predictors(results)
    if not chosen or not results.predictors or len(results.targets) < 3:
        return
    interval, told = _points(
        default_score_T(results, chosen=chosen) - found.choices.scratch_T(), "over the mean of all runs from scratch"
    )
    names = [SIMILARITIES.get(name, name) for name in chosen.values()]
    counted = ", ".join(f"{name} for {names.count(name)}" for name in sorted(set(names)))
    yield Verdict(
        question=f"Does retrieval with {K} tries beat scratch, ranked by what is best on the other targets?",
        answer=_answer(interval),
        told=f"{told} (ranked by {counted}).",
    )


def _kin(results: Results) -> Iterator[Verdict]:
    known = {target: source for target, source in kin_of(results.targets).items() if source in results.sources}
    if len(known) < 2:
        return
    found = kin_count(results, known)
    question = "Does the known kin come out first or second among the source tasks?"
    if not found.ranks:
        yield Verdict(question=question, answer="pending", told="No target has all its transfers.")
        return
    yield Verdict(
        question=question,
        answer="yes" if found.p < 0.1 else "not shown",
        told=(
            f"For {found.among_first} of {len(found.ranks)} targets; chance would give {found.expected:.1f}, and as many or more with "
            f"probability {found.p:.2f}."
        ),
    )


def _choosing(results: Results) -> Iterator[Verdict]:
    if len(results.prompts) < 2:
        return
    predictors, random, targets = judged(results, (1,))
    known = [one for one in predictors if not np.isnan(one.regret[1].mean)]
    question = "Does any ranking choose better than chance?"
    if not known or not targets:
        yield Verdict(question=question, answer="pending", told="No ranking can be judged yet.")
        return
    best = min(known, key=lambda one: one.regret[1].mean)
    saved = best.against_random[1]
    clear = saved.points.above and saved.p_holm < 0.05
    yield Verdict(
        question=question,
        answer="yes" if clear else "not shown",
        told=(
            f"With one try, the best of {len(known)} rankings ({SIMILARITIES.get(best.name, best.name)}) loses "
            f"{best.regret[1].text()} points to the best source prompt, random choice {random[1].text()}; saved "
            f"{saved.points.text(sign=True)}, p {saved.p_holm:.3f} after correction for {len(known)} rankings."
        ),
    )


def _racing(found: Methods) -> Iterator[Verdict]:
    if found.race is None:
        return
    interval, told = _points(found.gain_T(found.race), "over scratch")
    share, cost = (
        ratio_interval(found.gain_T(found.race), found.gain_T(found.oracle)),
        found.race.cost_share(found.oracle),
    )
    kept = "the oracle's gain is not clear of zero, so no share of it is given"
    kept = kept if np.isnan(share.mean) else f"{share_text(share)} of the oracle's gain"
    price = "" if np.isnan(cost) else f" at {100 * cost:.0f} % of the oracle's cost"
    yield Verdict(question="Does a race beat scratch?", answer=_answer(interval), told=f"{told}{price}; {kept}.")


def _harm(rows: ByRows | None, results: Results) -> Iterator[Verdict]:
    question = "Does the guard hold harm back?"
    if rows is None or rows.blind(len(results.targets)):
        yield Verdict(question=question, answer="pending", told=NO_ROWS)
        return
    harm = rows.harm(BLIND)
    if harm is None:
        return
    share = 100 * harm.worse / harm.delivered
    told = f"Without it {share:.1f} % of {harm.delivered} delivered prompts are worse than scratch beyond noise"
    if not harm.kept:
        yield Verdict(question=question, answer="not shown", told=f"{told}; it lets none through.")
        return
    rest = 100 * harm.kept_worse / harm.kept
    few = "" if harm.kept >= 60 else " (too few to put a figure on harm)"
    answer: Answer = "not shown" if harm.kept < 60 else "yes" if rest <= 5 else "no"
    yield Verdict(
        question=question, answer=answer, told=f"{told}; of the {harm.kept:g} it lets through {rest:.1f} %{few}."
    )


def _sharpt(found: Methods) -> Iterator[Verdict]:
    own = found.named("sharpt")
    if own is None:
        return
    interval, told = _points(found.gain_T(own), "over prompt tuning from scratch")
    yield Verdict(question="Does SharPT beat prompt tuning?", answer=_answer(interval), told=f"{told}.")
    searches = [m for m in found.searches if m.strategy == TOP_K]
    price = own.cost_share(found.oracle)
    near = [m for m in searches if m.cost_share(found.oracle) <= max(0.1, price)] or searches[:1]
    if near:
        best = max(near, key=lambda m: float(np.nan_to_num(m.score_T.mean(), nan=-np.inf)))
        interval, told = _points(
            own.score_T - best.score_T, f"against {best.name}, the best of {len(near)} at its cost"
        )
        yield Verdict(
            question="Does SharPT beat SPoT's retrieval at its cost?", answer=_answer(interval), told=f"{told}."
        )
    parts = [(name, m) for name in ABLATED if (m := found.named(name)) is not None]
    for name, part in parts:
        interval, told = _points(own.score_T - part.score_T, f"over {name}")
        yield Verdict(question=NEEDED[name], answer=_answer(interval), told=f"{told}.")


def _weights(found: Methods) -> Iterator[Verdict]:
    tuned = found.named("model_tuning")
    if tuned is not None:
        interval, told = _points(found.gain_T(tuned), "over prompt tuning from scratch")
        yield Verdict(question="Does tuning all weights beat prompt tuning?", answer=_answer(interval), told=f"{told}.")
