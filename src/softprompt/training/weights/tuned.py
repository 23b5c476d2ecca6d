"""What model tuning and LoRA give: scores and costs, and weights in memory or on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt import artifacts

BYTES = 4  # everything tuned is stored in float32


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """Weights a tuning starts from.

    Attributes:
        weights: float32 by the model's parameter names.
        moments: Adafactor's moments; empty for a fresh start.
        step: optimiser steps behind the moments.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0


@dataclass(kw_only=True)
class TunedModel:
    """What one model tuning gave.

    Attributes:
        name: of the run.
        seed: of the run.
        status: ``done`` or ``stopped_early``.
        steps: optimiser steps done.
        best_step: the step of the best checkpoint.
        best_score: its score on the selecting rows, percent.
        scores: metrics of the best checkpoint on the reporting rows, percent.
        predictions: its answers there.
        curve: one dict a validation: step, loss, score, metrics.
        seconds: wall clock.
        tokens: input and target tokens trained on.
        eval_tokens: positions in validation.
        peak_bytes: most memory the process (or the device) held.
        tuned_parameters: numbers tuned.
        evidence: how the scores were made.
        best: float32 weights of the best checkpoint, on the CPU.
        final: last weights with the optimiser's moments, where they were asked for.
    """

    name: str
    seed: int
    status: str = "running"
    steps: int = 0
    best_step: int = 0
    best_score: float = float("-inf")
    scores: dict[str, float] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    eval_tokens: int = 0
    peak_bytes: int = 0
    tuned_parameters: int = 0
    evidence: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    final: ModelState | None = None

    @property
    def stored_bytes(self) -> int:
        """Kept on the disk for the task: the tuned numbers, in float32."""
        return BYTES * self.tuned_parameters

    def plain(self) -> dict[str, Any]:
        """Everything but tensors, as JSON takes it."""
        return {name: value for name, value in vars(self).items() if name not in ("best", "final")}

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> TunedModel:
        """The opposite of ``plain``."""
        score = data["best_score"]
        return cls(**{**data, "best_score": float("-inf") if score is None else score})

    def take_tensors(self, folder: Path) -> None:
        """Read the best weights and, where kept, the last ones from a run directory."""
        self.best = artifacts.read_tensors(folder / "best.safetensors")
        if (folder / "final.safetensors").exists():
            self.final = state_of(artifacts.read_tensors(folder / "final.safetensors"), self.steps)


def load_tuned(folder: Path) -> TunedModel:
    """A finished run's result, its best weights and, where kept, its last ones."""
    result = TunedModel.of_plain(artifacts.read_json(folder / "result.json"))
    result.take_tensors(folder)
    return result


def state_of(tensors: Mapping[str, Tensor], step: int) -> ModelState:
    """Weights and moments from tensors named ``weight.*`` and ``moment.*``."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

    return ModelState(weights=part("weight."), moments=part("moment."), step=step)


def digest_of(start: ModelState) -> str:
    """sha256 of weights and moments."""
    tensors = {**{f"w.{n}": t for n, t in start.weights.items()}, **{f"m.{n}": t for n, t in start.moments.items()}}
    return artifacts.sha256_bytes(artifacts.tensor_bytes(tensors))
