"""What the training loop drives: a group of runs, one step and one validation at a time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.backbones.engine.host import free_memory_bytes
from softprompt.errors import OutOfMemoryError
from softprompt.fields import Scoring
from softprompt.inference.evaluate import EvalJob, Evaluation, seeded_rows
from softprompt.training.runs import Run, RunResult, Status
from softprompt.training.settings import LoopSettings

T = TypeVar("T")

_LEAST_MICRO_TOKENS = 256


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the CPU allocator ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class LoopGroup(ABC):
    """What the training loop drives: runs that step together, are validated, and leave when they are done.

    Args:
        backbone: frozen.
        runs: what to train.
        settings: shared by all.
        results: one a run.

    Attributes:
        active: numbers of the runs that still train.
        step_number: steps done.
        losses: of each run since its last validation.
        micro_tokens: most positions in one forward pass; halved where memory runs out, down to ``least_tokens``: a pass holds
            at least one row whatever its limit.
        sharded: whether every forward pass takes all processes.
        what, remedy: what is trained, and what makes a row fit, for messages.
    """

    what = ""
    remedy = ""
    least_tokens = 64

    def __init__(
        self, backbone: Backbone, runs: Sequence[Run], settings: LoopSettings, results: Sequence[RunResult]
    ) -> None:
        self.backbone, self.settings, self.sharded = backbone, settings, backbone.sharded
        self.runs, self.results = list(runs), list(results)
        self.active = list(range(len(runs)))
        self.step_number = 0
        self.losses: list[list[float]] = [[] for _ in runs]
        self.micro_tokens = settings.micro_batch_tokens or default_micro_tokens(backbone)
        self._selected: dict[tuple[int, int], np.ndarray] = {}

    @abstractmethod
    def step(self) -> dict[int, str]:
        """One optimiser step of every active run; the runs (by number) that failed, and what was found."""

    @abstractmethod
    def finish(self, runs: Sequence[int], status: Status) -> None:
        """Let runs leave; the rest close up."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors of any shape and plain JSON from which ``load`` continues bit for bit."""

    @abstractmethod
    def evaluated(self, jobs: Sequence[EvalJob]) -> list[Evaluation]:
        """What the present tensors answer."""

    @abstractmethod
    def keep_best(self, run: int) -> None:
        """Keep the present tensors of a run as its best checkpoint."""

    def keep_on_the_way(self) -> None:  # noqa: B027
        """Keep what runs want of this step besides their best checkpoints."""

    def drop_not_finite(self) -> None:  # noqa: B027
        """Let runs leave whose last update gave NaN or infinity, before anything of it is kept."""

    def fitting(self, compute: Callable[[], T]) -> T:
        """What a step computes; where memory runs out, again in passes of half as many positions.

        Raises:
            OutOfMemoryError: not even one row fits, or other processes wait for this one.
        """
        while True:
            try:
                return compute()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.sharded:
                    raise OutOfMemoryError(
                        f"a step of a sharded {self.what} did not fit one process, and the others cannot go back: lower "
                        f"micro_batch_tokens, which is {self.micro_tokens}, or {self.remedy}."
                    ) from error
                if self.micro_tokens <= self.least_tokens:
                    raise OutOfMemoryError(
                        f"not even one row fits the memory of {self.backbone.device}: {self.remedy}."
                    ) from error
                self.micro_tokens //= 2

    # -- validation -------------------------------------------------------------------------------------------------
    def selecting_rows(self, run: int, most: int = 0) -> np.ndarray:
        """The validation rows that choose the best checkpoint of a run; at most ``most`` of them where that is not 0."""
        spec = self.runs[run]
        rows = np.arange(len(spec.validation)) if spec.select_rows is None else np.asarray(spec.select_rows)
        # One subset for all runs on the same rows, whatever their seeds: their scores are compared.
        if (run, most) in self._selected:
            return self._selected[run, most]
        for limit in (self.settings.eval_rows, most):
            if not 0 < limit < len(rows):
                continue
            groups = spec.task.groups([spec.validation.examples[int(r)] for r in rows])
            rows = rows[seeded_rows(len(rows), limit, 0, groups)]
        return self._selected.setdefault((run, most), rows)

    def validate(self, most: int | None = None) -> list[dict[str, Any]]:
        """Score every active run, keep the best checkpoints, and give one record a run.

        Args:
            most: for a look on the way: at most this many of the selecting rows (all where 0). A look says ``rows`` in its
                record; it chooses no checkpoint and has no part in early stopping. None for a validation.
        """
        started = time.perf_counter()
        self.drop_not_finite()
        scored = [i for i in self.active if self.runs[i].validated]
        if not scored:
            return []
        jobs = [self.job(n, i, self.selecting_rows(i, most or 0)) for n, i in enumerate(self.active) if i in scored]
        found = self.evaluated(jobs)
        seconds = (time.perf_counter() - started) / max(1, len(scored))
        records = []
        for i, job, evaluation in zip(scored, jobs, found, strict=True):
            result, losses = self.results[i], self.losses[i]
            score = evaluation.scores["score"]
            record = {
                "step": self.step_number,
                "loss": float(np.mean(losses)) if losses else None,
                "score": score,
                "metrics": evaluation.scores,
                **({} if evaluation.label_loss is None else {"label_loss": evaluation.label_loss}),
                **({} if most is None else {"rows": len(job.row_numbers())}),
            }
            self.losses[i] = []
            result.curve.append(record)
            result.eval_tokens += evaluation.tokens
            result.seconds += seconds
            if most is None and score > result.best_score:
                result.best_score, result.best_step = score, self.step_number
                self.keep_best(i)
            records.append({"run": result.name, **record})
        return records

    def job(self, place: int, run: int, rows: np.ndarray | None) -> EvalJob:
        """A run on some of its validation rows, as number ``place`` of the prompter that is evaluated."""
        spec = self.runs[run]
        return EvalJob(run=place, task=spec.task, split=spec.validation, rows=rows, scoring=self.scoring(run))

    def scoring(self, run: int) -> Scoring:
        """How a run's answers are found."""
        return "auto"

    def stale(self) -> list[int]:
        """Active runs whose last ``patience`` validations brought no improvement."""
        patience = self.settings.patience
        if not patience:
            return []
        late = []
        for i in self.active:
            since = [r for r in self.results[i].curve if r["step"] > self.results[i].best_step and "rows" not in r]
            if len(since) >= patience:
                late.append(i)
        return late

    def complete(self) -> list[int]:
        """Active runs that have done all their own steps."""
        done = [i for i in self.active if (self.runs[i].steps or self.settings.steps) <= self.step_number]
        if done:
            self.drop_not_finite()
        return [i for i in done if i in self.active]


def default_micro_tokens(backbone: Backbone) -> int:
    """Positions in one forward pass where the user names none: what measured best, or what half of the free memory holds.

    The same on all processes. It is a guess on the safe side; memory that runs out all the same halves it.
    """
    best = 4096 if backbone.device.type == "cpu" else 65536
    free = free_memory_bytes(backbone.device)
    room = best if free is None else free // (2 * backbone.activation_bytes)
    return max(_LEAST_MICRO_TOKENS, int(min([best, *parallel.gather(room)])))
