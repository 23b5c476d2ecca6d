"""What came of a transfer: outcomes by strategy, the guard's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.errors import one_line
from softprompt.library.store import Library
from softprompt.methods.deliver import verdict_of
from softprompt.methods.method import Result, best_of, forward_tokens, result_of
from softprompt.methods.sharpt.method import AdaptedPrompt
from softprompt.methods.spot.settings import RANKING, TransferSettings
from softprompt.methods.spot.target import TransferTarget, match_row
from softprompt.training.runs import RunResult


@dataclass(kw_only=True)
class TargetReport:
    """A target after its transfer.

    Attributes:
        target: task name.
        outcomes: one a strategy, ``scratch`` first.
        ranking: source prompts by similarity: name, task, both similarities.
        delivered: strategy whose prompt is delivered; ``scratch`` where no transfer beat it beyond noise.
        verdict: one sentence on why.
        prompt_PH: the delivered prompt, float32 [P, H]; None where SharPT's generator is delivered.
        adapted: that generator, in its space; None where a prompt is delivered.
        embedding_PH: the target's task embedding of its first seed.
        facts: rows, fingerprints, seeds.
        refused: strategies that could not be tried, and why.
        prompt: what is delivered, as `softprompt.predict` takes it; made by ``softprompt.transfer``.
    """

    target: str
    outcomes: list[Result]
    ranking: list[dict[str, Any]]
    delivered: str
    verdict: str
    prompt_PH: Tensor | None
    embedding_PH: Tensor | None
    facts: dict[str, Any]
    refused: dict[str, str] = field(default_factory=dict)
    adapted: AdaptedPrompt | None = None
    prompt: Any = None

    def __repr__(self) -> str:
        return one_line(f"<TargetReport {self.target}: {self.delivered} delivered>")

    def plain(self) -> dict[str, Any]:
        """Everything but tensors, as JSON."""
        return {
            "target": self.target,
            "delivered": self.delivered,
            "verdict": self.verdict,
            "outcomes": [outcome.plain() for outcome in self.outcomes],
            "ranking": self.ranking,
            "refused": self.refused,
            "facts": self.facts,
        }

    def outcome(self, strategy: str) -> Result:
        """The outcome of one strategy."""
        return next(o for o in self.outcomes if o.strategy == strategy)


def target_report(
    target: TransferTarget, backbone: Backbone, library: Library, settings: TransferSettings
) -> TargetReport:
    """Outcomes by strategy, and what is delivered."""
    base = max(target.scratch, key=lambda r: r.best_score)
    outcomes = [_result(target, "scratch", target.scratch, base, backbone, settings.level)]
    for strategy in settings.strategies:
        if strategy in ("scratch", "race"):
            continue
        results = [target.transferred[n] for n, s in target.starts.items() if s.strategy == strategy]
        if results:
            outcomes.append(_result(target, strategy, results, base, backbone, settings.level))
    if target.raced and not any(r.best and r.status != "dropped" for r in target.raced.values()):
        target.refused["race"] = "the last survivor met a loss that is not finite before its first validation."
    elif target.raced:
        outcomes.append(_result(target, "race", list(target.raced.values()), base, backbone, settings.level))
    adapted = {made.result.name: made for made in target.adapted}
    if adapted and not any(made.result.best for made in target.adapted):
        target.refused["sharpt"] = "every run met a loss that is not finite before its first validation."
    elif adapted:
        outcomes.append(_result(target, "sharpt", [a.result for a in target.adapted], base, backbone, settings.level))
    delivered, verdict = verdict_of(outcomes)
    chosen = next(o for o in outcomes if o.strategy == delivered)
    first = target.embeddings[0].embedding if target.embeddings else None
    return TargetReport(
        target=target.name, outcomes=outcomes, ranking=[match_row(match) for match in target.ranking],
        refused=target.refused, delivered=delivered, verdict=verdict, prompt_PH=chosen.prompt_PH,
        embedding_PH=first["prompt"] if first else None, facts=_facts(target, backbone, library, settings),
        adapted=adapted.get(chosen.run),
    )  # fmt: skip


def _facts(target: TransferTarget, backbone: Backbone, library: Library, settings: TransferSettings) -> dict[str, Any]:
    """What a report says it was made with."""
    rows = len(target.data.validation)
    return {
        "train_rows": len(target.data.train),
        "train_fingerprint": target.data.train.fingerprint,
        "validation_fingerprint": target.data.validation.fingerprint,
        "select_rows": rows if target.select is None else len(target.select),
        "report_rows": rows if target.report is None else len(target.report),
        "seeds": list(settings.scratch_seeds),
        "embedding_seeds": list(settings.embedding_seeds),
        "embedding_cost": target.embedding_cost,
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "library": library.location,
        "metric": settings.metric,
        **({"space": target.adapted[0].space.training["space"]} if target.adapted else {}),
        **({"predictor": settings.predictor, "predicted": target.predicted} if settings.predictor else {}),
    }


def _result(
    target: TransferTarget,
    strategy: str,
    results: Sequence[RunResult],
    base: RunResult,
    backbone: Backbone,
    level: float,
) -> Result:
    """What a strategy gave; the comparison with scratch is left out for the run from scratch itself."""
    start = target.starts.get(best_of(results).name)
    sources = tuple(zip(start.sources, start.weights, strict=True)) if start else ()
    notes = list(target.notes.get(strategy, []))
    cost = 0
    if strategy == "multitask_mixture" and target.mixture is not None:
        cost += forward_tokens([target.mixture])
    if strategy == "best_of_top_k" and target.predicted:
        cost += target.prediction_cost
    elif strategy in RANKING:
        cost += target.embedding_cost
    if strategy == "sharpt":
        sources = ((str(target.adapted[0].space.training["space"]), 1.0),)
        notes = ["the tokens of its instance encoder are in the cost.", *notes]
    if strategy == "race":
        chosen = best_of(results)
        sources = ((chosen.name.removeprefix(f"{target.name}-race-"), 1.0),)
        notes = [_race_note(results, chosen), *notes]
    found = result_of(
        strategy, target, results, backbone, base=base, level=level, extra_cost=cost, sources=sources, notes=notes
    )
    if strategy == "sharpt":
        found.tuned = target.adapted[0].tuned
    if strategy == "race":  # of its runs all but one were left behind
        found.spread = None
    return found


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
