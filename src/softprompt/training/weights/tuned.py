"""What model tuning and LoRA give: scores and costs, and weights in memory or on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError
from softprompt.training.runs import RunResult

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
class TunedModel(RunResult):
    """What one model tuning gave: a run's result whose tensors are the model's weights, or its adapters.

    Attributes:
        peak_bytes: most memory the process (or the device) held.
        tuned_parameters: numbers tuned.
        last: last weights with the optimiser's moments, where they were asked for.
    """

    peak_bytes: int = 0
    tuned_parameters: int = 0
    last: ModelState | None = None

    PLAIN: ClassVar[tuple[str, ...]] = (*RunResult.PLAIN, "peak_bytes", "tuned_parameters")

    @property
    def stored_bytes(self) -> int:
        """Kept on the disk for the task: the tuned numbers, in float32."""
        return BYTES * self.tuned_parameters

    def read_weights(self, folder: Path) -> None:
        """Read the best weights and, where kept, the last ones from a run directory."""
        self.best = artifacts.read_tensors(folder / "best.safetensors")
        if (folder / "final.safetensors").exists():
            self.last = state_of(artifacts.read_tensors(folder / "final.safetensors"), self.steps)


def load_tuned(folder: Path) -> TunedModel:
    """A finished run's result, its best weights and, where kept, its last ones."""
    told = artifacts.read_json(folder / "result.json")
    try:
        result = TunedModel.of_plain({name: told[name] for name in TunedModel.PLAIN if name in told})
    except (KeyError, TypeError) as error:
        raise CorruptArtifactError(
            f"{folder / 'result.json'} does not hold the result of a tuning: restore it, or tune again."
        ) from error
    result.read_weights(folder)
    return result


def state_of(tensors: Mapping[str, Tensor], step: int) -> ModelState:
    """Weights and moments from tensors named ``weight.*`` and ``moment.*``; shapes are kept."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

    return ModelState(weights=part("weight."), moments=part("moment."), step=step)


def digest_of(start: ModelState) -> str:
    """sha256 of weights and moments."""
    tensors = {**{f"w.{n}": t for n, t in start.weights.items()}, **{f"m.{n}": t for n, t in start.moments.items()}}
    return artifacts.sha256_bytes(artifacts.tensor_bytes(tensors))
