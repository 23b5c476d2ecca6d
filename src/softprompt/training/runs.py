"""What goes into a training and what comes out: one ``Run`` in, one ``RunResult`` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor

from softprompt.tasks.splits import EncodedSplit
from softprompt.tasks.task import Task

Status = Literal["running", "done", "stopped_early", "dropped", "non_finite"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One prompt to train. Many runs train together in one batch, each as if alone.

    Attributes:
        name: unique in its training, safe as a file name.
        seed: keys its data order and its dropout.
        train: the tokenised training rows; several parts for a mixture.
        rates: probability of drawing from each part (normalised).
        task: gives the metrics for validation.
        validation: the tokenised validation rows.
        select_rows: row numbers that choose the best checkpoint; all (or a seeded subset of ``eval_rows``) where None.
        report_rows: row numbers the final scores are measured on; all where None.
        steps: the run leaves after this many steps; all steps of the training where None.
        validated: whether it is scored at all; a run made only for its task embedding need not be.
        kept_steps: further steps whose prompts are kept, besides the task embedding's.
    """

    name: str
    seed: int
    train: tuple[EncodedSplit, ...]
    task: Task
    validation: EncodedSplit
    rates: tuple[float, ...] = (1.0,)
    select_rows: np.ndarray | None = None
    report_rows: np.ndarray | None = None
    steps: int | None = None
    validated: bool = True
    kept_steps: tuple[int, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Plain JSON that tells this run from another one."""
        return {
            "name": self.name,
            "seed": self.seed,
            "task": self.task.name,
            "train": [part.fingerprint for part in self.train],
            "rates": list(self.rates),
            "validation": self.validation.fingerprint,
            "select_rows": None if self.select_rows is None else [int(r) for r in self.select_rows],
            "report_rows": None if self.report_rows is None else [int(r) for r in self.report_rows],
            "steps": self.steps,
            "validated": self.validated,
            **({"kept_steps": list(self.kept_steps)} if self.kept_steps else {}),
        }


@dataclass(kw_only=True)
class RunResult:
    """What one run gave. Tensors are float32 on the CPU without the run axis, by the prompter's names.

    Attributes:
        name: of the run.
        seed: of the run.
        status: ``done``, ``stopped_early``, ``dropped`` (a race left it behind) or ``non_finite``.
        steps: optimiser steps done.
        best_step: the step of the best checkpoint (0: the initial prompt).
        best_score: its score on the selecting rows, percent.
        scores: metrics of the best checkpoint on the reporting rows, percent; ``score`` is their mean.
        predictions: of the best checkpoint on the reporting rows, in their order.
        best: the best checkpoint (SPoT: the source prompt, the value).
        final: the last tensors.
        embedding: the tensors at ``embedding_step`` (SPoT: the task embedding, the key); None if never reached.
        kept: the tensors at each of the run's ``kept_steps`` that it reached.
        curve: one dict a validation: step, loss (mean since the last), score, metrics; ``rows`` in that of a rough look.
        evidence: how the scores were made: rows while training, rows in the final evaluation, positions in a forward pass,
            how the frozen weights were held, and the most memory the device (or process) had held by then.
        seconds: wall-clock share of this run (the group's seconds divided by its active runs).
        tokens: positions that went through the backbone in training.
        eval_tokens: the same in validation.
        encoder_tokens: tokens a frozen instance encoder read for it (SharPT), forward only.
        note: what went wrong, where something did.
    """

    name: str
    seed: int
    status: Status = "running"
    steps: int = 0
    best_step: int = 0
    best_score: float = float("-inf")
    scores: dict[str, float] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    final: dict[str, Tensor] = field(default_factory=dict)
    embedding: dict[str, Tensor] | None = None
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    tokens: int = 0
    eval_tokens: int = 0
    encoder_tokens: int = 0
    note: str = ""

    PLAIN: ClassVar[tuple[str, ...]] = ("name", "seed", "status", "steps", "best_step", "best_score", "scores", "predictions", "curve", "evidence",
             "seconds", "tokens", "eval_tokens", "encoder_tokens", "note")  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """Everything but tensors, as JSON takes it."""
        data = {name: getattr(self, name) for name in self.PLAIN}
        data["best_score"] = None if self.best_score == float("-inf") else self.best_score
        return data

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> Self:
        """The opposite of ``plain``. TypeError where a number is none: such a file was changed."""
        score = data["best_score"]
        made = cls(**{**data, "best_score": float("-inf") if score is None else score})
        for each in fields(cls):
            if isinstance(each.default, int | float) and not isinstance(getattr(made, each.name), int | float):
                raise TypeError(f"{each.name} is no number")
        return made

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under one set of names, for a checkpoint; shapes without the run axis N."""
        parts = {"best": self.best, "final": self.final, "embedding": self.embedding or {}}
        parts |= {f"kept.{step}": tensors for step, tensors in self.kept.items()}
        return {f"{part}.{name}": t for part, tensors in parts.items() for name, t in tensors.items()}

    def take_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The opposite of ``tensors``, with the same shapes."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {n[len(prefix) + 1 :]: t for n, t in tensors.items() if n.startswith(prefix + ".")}

        self.best, self.final = part("best"), part("final")
        self.embedding = part("embedding") or None
        steps = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("kept.")})
        self.kept = {step: part(f"kept.{step}") for step in steps}
