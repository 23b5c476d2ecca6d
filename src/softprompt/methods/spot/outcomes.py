"""What came of a transfer: outcomes by strategy, the guard's verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from softprompt.backbones.base import Backbone
from softprompt.inference.evaluate import canonical_text
from softprompt.library.store import Library
from softprompt.methods.spot.cost import forward_tokens
from softprompt.methods.spot.guard import compare
from softprompt.methods.spot.settings import Outcome, TargetReport, TransferSettings
from softprompt.methods.spot.target import Target, match_row
from softprompt.training.runs import RunResult


def target_report(target: Target, backbone: Backbone, library: Library, settings: TransferSettings) -> TargetReport:
    """Outcomes by strategy, and what is delivered."""
    base = max(target.scratch, key=lambda r: r.best_score)
    outcomes = [_outcome(target, "scratch", target.scratch, base, backbone, settings.level)]
    for strategy in settings.strategies:
        if strategy in ("scratch", "race"):
            continue
        results = [target.transferred[n] for n, s in target.starts.items() if s.strategy == strategy]
        if results:
            outcomes.append(_outcome(target, strategy, results, base, backbone, settings.level))
    if target.raced and not any(r.best and r.status != "dropped" for r in target.raced.values()):
        target.refused["race"] = "the last survivor met a loss that is not finite before its first validation."
    elif target.raced:
        outcomes.append(_outcome(target, "race", list(target.raced.values()), base, backbone, settings.level))
    delivered, verdict = verdict_of(outcomes)
    chosen = next(o for o in outcomes if o.strategy == delivered)
    first = target.embeddings[0].embedding if target.embeddings else None
    return TargetReport(
        target=target.name,
        outcomes=outcomes,
        ranking=[match_row(match) for match in target.ranking],
        refused=target.refused,
        delivered=delivered,
        verdict=verdict,
        prompt_PH=chosen.prompt_PH,
        embedding_PH=first["prompt"] if first else None,
        facts={
            "train_rows": len(target.data.train),
            "train_fingerprint": target.data.train.fingerprint,
            "validation_fingerprint": target.data.validation.fingerprint,
            "select_rows": len(target.select),
            "report_rows": len(target.report),
            "seeds": list(settings.scratch_seeds),
            "embedding_seeds": list(settings.embedding_seeds),
            "embedding_cost": forward_tokens(target.embeddings),
            "backbone": backbone.name,
            "fingerprint": backbone.fingerprint,
            "library": library.location,
            "metric": settings.metric,
        },
    )


def _outcome(
    target: Target, strategy: str, results: Sequence[RunResult], base: RunResult, backbone: Backbone, level: float
) -> Outcome:
    usable = [r for r in results if r.best]
    notes = [*target.notes.get(strategy, []), *(r.note for r in results if r.note)]
    survivors = [r for r in usable if r.status != "dropped"] if strategy == "race" else usable
    chosen = max(survivors, key=lambda r: r.best_score)
    start = target.starts.get(chosen.name)
    sources = tuple(zip(start.sources, start.weights, strict=True)) if start else ()
    if strategy == "race":
        sources = ((chosen.name.removeprefix(f"{target.name}-race-"), 1.0),)
        notes.insert(0, _race_note(results, chosen))
    cost = forward_tokens(results)
    if strategy == "multitask_mixture" and target.mixture is not None:
        cost += forward_tokens([target.mixture])
    if strategy in ("best_of_top_k", "weighted_average", "multitask_mixture"):
        cost += forward_tokens(target.embeddings)
    scores = [r.scores["score"] for r in usable if r.scores]
    versus = None
    if chosen is not base:
        versus = compare(
            target.data.task,
            [target.data.validation.examples[int(r)] for r in target.report],
            chosen.predictions,
            base.predictions,
            canonical=canonical_text(backbone),
            level=level,
        ).plain()
    return Outcome(
        strategy=strategy,
        run=chosen.name,
        step=chosen.best_step,
        sources=sources,
        runs=len(results),
        select_score=chosen.best_score,
        score=chosen.scores["score"],
        spread=float(np.std(scores, ddof=1)) if len(scores) > 1 and strategy != "race" else None,
        cost=cost,
        seconds=sum(r.seconds for r in results),
        versus_scratch=versus,
        prompt_PH=chosen.best["prompt"],
        curve=chosen.curve,
        notes=notes,
    )


def _race_note(results: Sequence[RunResult], chosen: RunResult) -> str:
    """How the race went, and its cost beside as many whole runs as there were source prompts in it."""
    left = len(results)
    told = [f"{left} runs"]
    for step in sorted({r.steps for r in results if r.status == "dropped"}):
        left -= sum(r.status == "dropped" and r.steps == step for r in results)
        told.append(f"{left} after step {step}")
    whole = max(1, (len(results) - 1) * forward_tokens([chosen]))
    return (
        f"{', '.join(told)}; {sum(r.steps for r in results)} steps in all, {100 * forward_tokens(results) / whole:.0f} % of "
        f"the cost of {len(results) - 1} whole runs."
    )


def verdict_of(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """Which strategy's prompt is delivered, and one sentence on why.

    The strategy is chosen by the selecting half; the reporting half then has to confirm that it beats scratch.
    """
    scratch = outcomes[0]
    others = list(outcomes[1:])
    if not others:
        return "scratch", "no transfer was tried; the prompt from scratch is delivered."
    best = max(others, key=lambda o: o.select_score)
    found = best.versus_scratch
    if found is None:
        return "scratch", f"{best.strategy} chose the same run as scratch; the prompt from scratch is delivered."
    what = (
        f"{best.strategy} scores {best.score:.1f} against {scratch.score:.1f} from scratch on {found['rows']} held-out "
        f"rows ({found['gain']:+.1f}, {100 * found['level']:.0f} % interval {found['low']:+.1f} to {found['high']:+.1f})"
    )
    if found["better"]:
        return best.strategy, f"{what}: better beyond noise, delivered."
    if found["worse"]:
        return "scratch", f"{what}: transfer hurts here, the prompt from scratch is delivered."
    return "scratch", f"{what}: not beyond noise, the prompt from scratch is delivered."
