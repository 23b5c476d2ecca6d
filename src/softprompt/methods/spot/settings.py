"""What a transfer needs to be told, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from softprompt.errors import UnknownNameError, UsageError
from softprompt.library.metric import DEFAULT_METRIC, METRICS, Metric
from softprompt.methods.method import Result
from softprompt.methods.spot.predictor_names import MEASURED
from softprompt.methods.spot.race import KEEP, LOOK_ROWS, check_keep
from softprompt.methods.spot.strategies import STRATEGIES
from softprompt.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """Settings of a transfer.

    Attributes:
        train: of every target run (SPoT section 3.1: 100,000 steps, best checkpoint).
        strategies: which starts are tried; scratch always runs along.
        k: source prompts of best_of_top_k, at least 1.
        average_k: source prompts in weighted_average (the paper's best: 3).
        mixture_k: source prompts whose tasks enter multitask_mixture (the paper's best: 12).
        metric: similarity that ranks.
        predictor: what ranks for best_of_top_k instead, of `softprompt.methods.spot.predictor_names.MEASURED`; empty for the
            similarity.
        scratch_runs: runs from scratch to compare with; 0 for as many as there are transferred runs a target.
        embedding_runs: runs (seeds) the target's task embedding is averaged over.
        seed: first seed; runs take seed, seed + 1, ...
        generic: name of the one source prompt of the strategy ``generic``.
        race_keep: share of a race's field that survives each rung, in (0, 1); each rung is 1 / race_keep times as late as the
            one before (`softprompt.methods.spot.race`, with what it costs).
        race_rows: at most this many selecting rows rank a race's field at a rung, a seeded subset, by their mean label loss (by
            score, ties by training loss, where answers are generated); 0 for all. Checkpoints are chosen on all of them, at ``eval_every``.
        level: coverage of the guard's interval, in (0, 1).
    """

    train: TrainSettings
    strategies: tuple[str, ...] = ("best_of_top_k", "weighted_average")
    k: int = 3
    average_k: int = 3
    mixture_k: int = 12
    metric: Metric = DEFAULT_METRIC
    predictor: str = ""
    scratch_runs: int = 0
    embedding_runs: int = 3
    seed: int = 1
    generic: str = ""
    race_keep: float = KEEP
    race_rows: int = LOOK_ROWS
    level: float = 0.9

    def __post_init__(self) -> None:
        for strategy in self.strategies:
            if strategy not in STRATEGIES:
                raise UnknownNameError("strategy", strategy, STRATEGIES)
        for name in ("k", "average_k", "mixture_k", "embedding_runs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")
        check_keep(self.race_keep)
        if self.race_rows < 0:
            raise UsageError(f"race_rows must not be negative, got {self.race_rows}.")
        if self.metric not in METRICS:
            raise UnknownNameError("similarity", self.metric, METRICS)
        if self.predictor and self.predictor not in MEASURED:
            raise UnknownNameError("predictor", self.predictor, MEASURED)
        if "generic" in self.strategies and not self.generic:
            raise UsageError("strategy 'generic' needs the source prompt to start from: name one of the library.")
        if not 0.0 < self.level < 1.0:
            raise UsageError(f"level must be in (0, 1), got {self.level}.")

    @property
    def scratch_seeds(self) -> range:
        """Seeds of the runs from scratch."""
        count = self.scratch_runs
        if not count:
            count = max(1, self.k if "best_of_top_k" in self.strategies else 1)
        return range(self.seed, self.seed + count)

    @property
    def embedding_seeds(self) -> range:
        """Seeds of the target's task embeddings."""
        return range(self.seed, self.seed + self.embedding_runs)


@dataclass(kw_only=True)
class TargetReport:
    """A target after its transfer.

    Attributes:
        target: task name.
        outcomes: one a strategy, ``scratch`` first.
        ranking: source prompts by similarity: name, task, both similarities.
        delivered: strategy whose prompt is delivered; ``scratch`` where no transfer beat it beyond noise.
        verdict: one sentence on why.
        prompt_PH: the delivered prompt, float32 [P, H].
        embedding_PH: the target's task embedding of its first seed.
        facts: rows, fingerprints, seeds.
        refused: strategies that could not be tried, and why.
        prompt: the delivered prompt as a record that a library takes; made by ``softprompt.transfer``.
    """

    target: str
    outcomes: list[Result]
    ranking: list[dict[str, Any]]
    delivered: str
    verdict: str
    prompt_PH: Tensor
    embedding_PH: Tensor | None
    facts: dict[str, Any]
    refused: dict[str, str] = field(default_factory=dict)
    prompt: Any = None

    def __repr__(self) -> str:
        return f"<TargetReport {self.target}: {self.delivered} delivered>"

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
