"""What a transfer needs to be told. Nothing heavy is imported here: the command line makes its flags from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from softprompt.errors import UnknownNameError, UsageError
from softprompt.fields import Count, Settings, Share, Whole
from softprompt.library.metric import DEFAULT_METRIC, Metric
from softprompt.methods.spot.predictor_names import MEASURED
from softprompt.methods.spot.race import KEEP, LOOK_ROWS
from softprompt.training.settings import TrainSettings

Strategy = Literal[
    "scratch", "best_of_top_k", "weighted_average", "multitask_mixture", "generic", "oracle", "race", "random", "sharpt"
]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
# Those that need the target's task embeddings and the library's.
RANKING: tuple[Strategy, ...] = ("best_of_top_k", "weighted_average", "multitask_mixture")


@dataclass(frozen=True, kw_only=True)
class TransferSettings(Settings):
    """Settings of a transfer.

    Attributes:
        train: settings of every target run (SPoT section 3.1: 100,000 steps, best checkpoint).
        strategies: which starts are tried; scratch always runs along. ``sharpt`` is the generator of a latent space.
        k: source prompts of best_of_top_k, at least 1.
        average_k: source prompts in weighted_average (the paper's best: 3).
        mixture_k: source prompts whose tasks enter multitask_mixture (the paper's best: 12).
        metric: similarity that ranks.
        predictor: what ranks for best_of_top_k instead of the similarity: label-loss, loss-decrease-1, loss-decrease-5, logme
            or zero-shot-loss.
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
    strategies: tuple[Strategy, ...] = ("best_of_top_k", "weighted_average")
    k: Count = 3
    average_k: Count = 3
    mixture_k: Count = 12
    metric: Metric = DEFAULT_METRIC
    predictor: str = ""
    scratch_runs: Whole = 0
    embedding_runs: Count = 3
    seed: int = 1
    generic: str = ""
    race_keep: Share = KEEP
    race_rows: Whole = LOOK_ROWS
    level: Share = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor and self.predictor not in MEASURED:
            raise UnknownNameError("predictor", self.predictor, MEASURED)
        if "generic" in self.strategies and not self.generic:
            raise UsageError("strategy 'generic' needs the source prompt to start from: name one of the library.")

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
