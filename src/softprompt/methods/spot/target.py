"""A target on its way through a transfer's phases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from softprompt.library.search import Match
from softprompt.methods.method import Start, Target, halved
from softprompt.methods.sharpt.method import AdaptedPrompt
from softprompt.training.runs import RunResult


@dataclass(kw_only=True, eq=False)
class TransferTarget(Target):
    """What is known of a target so far.

    Attributes:
        scratch: runs from scratch.
        embeddings: the runs that give its task embeddings, one a seed; runs from scratch may be among them.
        embedding_cost: forward-token equivalents of their training up to the embedding step.
        ranking: source prompts by similarity.
        predicted: what the predictor says of source prompts, by name, best first; empty without one.
        prediction_cost: forward-token equivalents of that.
        starts: by run name.
        mixture: source tuning of its multitask mixture.
        transferred: by run name.
        raced: the same of a race.
        adapted: SharPT's generator tuned on it, one a run.
        notes: by strategy, what a reader should know.
        refused: by strategy, why it could not be tried.
    """

    scratch: list[RunResult] = field(default_factory=list)
    embeddings: list[RunResult] = field(default_factory=list)
    embedding_cost: int = 0
    ranking: list[Match] = field(default_factory=list)
    predicted: dict[str, float] = field(default_factory=dict)
    prediction_cost: int = 0
    starts: dict[str, Start] = field(default_factory=dict)
    mixture: RunResult | None = None
    transferred: dict[str, RunResult] = field(default_factory=dict)
    raced: dict[str, RunResult] = field(default_factory=dict)
    adapted: list[AdaptedPrompt] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def started(target: Target) -> TransferTarget:
    """A target before the first phase; its validation rows are halved where nothing says which choose.

    Raises:
        UsageError: fewer than two validation rows.
    """
    rows = (target.select, target.report)
    select, report = halved(target.data) if rows == (None, None) else rows
    return TransferTarget(data=target.data, select=select, report=report, label=target.label)


def match_row(match: Match) -> dict[str, Any]:
    """A line of a ranking as plain JSON."""
    return {
        "rank": match.rank,
        "name": match.name,
        "task": match.task,
        "per_token": match.per_token,
        "average": match.average,
        "similarity_std": match.similarity_std,
        "agreement": match.agreement,
    }
