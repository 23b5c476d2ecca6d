"""A target on its way through a transfer's phases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softprompt.errors import UsageError
from softprompt.inference.evaluate import halves
from softprompt.library.search import Match
from softprompt.methods.spot.strategies import Start
from softprompt.training.data import TaskData
from softprompt.training.runs import Run, RunResult


@dataclass(kw_only=True)
class Target:
    """What is known of a target so far.

    Attributes:
        data: tokenised rows.
        select: int [.], the validation rows that choose.
        report: int [.], those that are reported on.
        scratch: runs from scratch.
        embeddings: the short runs that made its task embeddings.
        ranking: source prompts by similarity.
        starts: by run name.
        mixture: source tuning of its multitask mixture.
        transferred: by run name.
        raced: the same of a race.
        notes: by strategy, what a reader should know.
        refused: by strategy, why it could not be tried.
    """

    data: TaskData
    select: np.ndarray
    report: np.ndarray
    scratch: list[RunResult] = field(default_factory=list)
    embeddings: list[RunResult] = field(default_factory=list)
    ranking: list[Match] = field(default_factory=list)
    starts: dict[str, Start] = field(default_factory=dict)
    mixture: RunResult | None = None
    transferred: dict[str, RunResult] = field(default_factory=dict)
    raced: dict[str, RunResult] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.data.task.name

    def run(self, name: str, seed: int) -> Run:
        return self.data.run(name, seed, select_rows=self.select, report_rows=self.report)


def start_target(data: TaskData) -> Target:
    """A target before the first phase.

    Raises:
        UsageError: fewer than two validation rows.
    """
    # The halves are the same for every seed and strategy: what is compared is measured on the same rows.
    select, report = halves(len(data.validation), 0, data.task.groups(data.validation.examples))
    if not len(select) or not len(report):
        raise UsageError(
            f"task '{data.task.name}' has {len(data.validation)} validation rows; choosing and reporting need two."
        )
    return Target(data=data, select=select, report=report)


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
