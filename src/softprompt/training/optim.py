"""Optimisers over tensors with a leading run axis N: every statistic reduces over everything but N.

So N runs in one batch are updated as N separate optimisers would.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from softprompt.training.settings import TrainSettings


def _per_run(value_N: Tensor, like: Tensor) -> Tensor:
    """value_N [N] with as many trailing axes of 1 as ``like`` needs."""
    return value_N.reshape(-1, *([1] * (like.dim() - 1)))


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _mean_square_N(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1)


def gradient_norm_N(tensors: Mapping[str, Tensor]) -> Tensor:
    """float32 (float64 of float64 tensors) [N], the norm of each run's gradient over all its tensors."""
    total: Tensor | None = None
    for tensor in tensors.values():
        if tensor.grad is None:
            continue
        square = _wide(tensor.grad).flatten(1).square().sum(1)
        total = square if total is None else total + square
    if total is None:
        raise ValueError("no tensor has a gradient")
    return total.sqrt()


class RunOptimizer(ABC):
    """An optimiser whose every step is N independent ones.

    Args:
        tensors: name to float32 [N, ...] tensor; those without a gradient are left alone.
        settings: rate, warm-up, decay and clipping.
    """

    def __init__(self, tensors: Mapping[str, Tensor], settings: TrainSettings) -> None:
        self.tensors = dict(tensors)
        self.settings = settings

    def rate(self, step: int) -> float:
        """The learning rate of a step (the first step is 0): linear warm-up, then constant."""
        warmup = self.settings.warmup_steps
        scale = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return self.settings.rate * scale

    @torch.no_grad()
    def step(self, step: int, norm_N: Tensor) -> None:
        """Update all tensors from their gradients.

        Args:
            step: number of steps done before, from 0.
            norm_N: float32 [N], gradient norms as ``gradient_norm_N`` gives them.
        """
        clip = self.settings.clip_norm
        scale_N = torch.clamp(clip / norm_N.clamp_min(1e-12), max=1.0) if clip else torch.ones_like(norm_N)
        for name, tensor in self.tensors.items():
            if tensor.grad is None:
                continue
            gradient = _wide(tensor.grad) * _per_run(scale_N, tensor)
            update = self._update(name, gradient, step)
            tensor.mul_(1.0 - self.settings.weight_decay).sub_(update, alpha=self.rate(step))

    @abstractmethod
    def _update(self, name: str, gradient: Tensor, step: int) -> Tensor:
        """The direction of one tensor, before the rate."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All state tensors, each [N, ...]; names hold the tensor's name."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state [N, ...] that ``state`` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def keep(self, tensors: Mapping[str, Tensor], runs: Sequence[int]) -> RunOptimizer:
        """The optimiser of a part of the runs, over their new tensors [N', ...]."""
        kept = type(self)(tensors, self.settings)
        kept.load({name: value[list(runs)] for name, value in self.state().items()})
        return kept


class Adafactor(RunOptimizer):
    """Adafactor as T5X runs it for prompts: unfactored, no first moment, no parameter scaling, update clipping 1.0.

    Second-moment decay is 1 - t^-0.8 with t = step + 1 + ``adafactor_step_offset``.
    """

    def __init__(self, tensors: Mapping[str, Tensor], settings: TrainSettings) -> None:
        super().__init__(tensors, settings)
        self.second = {n: torch.zeros_like(t) for n, t in self.tensors.items()}

    def _update(self, name: str, gradient: Tensor, step: int) -> Tensor:
        decay = 1.0 - float(step + 1 + self.settings.adafactor_step_offset) ** -0.8
        second = self.second[name]
        second.mul_(decay).add_(gradient.square().add_(1e-30), alpha=1.0 - decay)
        update = gradient * second.rsqrt()
        return update.div_(_per_run(_mean_square_N(update).sqrt().clamp_min(1.0), update))

    def state(self) -> dict[str, Tensor]:
        return {f"second.{n}": t for n, t in self.second.items()}


class Adam(RunOptimizer):
    """Adam with betas 0.9 and 0.999 and epsilon 1e-8; weight decay is decoupled (``weight_decay``, not times the rate)."""

    BETAS = (0.9, 0.999)

    def __init__(self, tensors: Mapping[str, Tensor], settings: TrainSettings) -> None:
        super().__init__(tensors, settings)
        self.first = {n: torch.zeros_like(t) for n, t in self.tensors.items()}
        self.second = {n: torch.zeros_like(t) for n, t in self.tensors.items()}

    def _update(self, name: str, gradient: Tensor, step: int) -> Tensor:
        beta1, beta2 = self.BETAS
        first = self.first[name].lerp_(gradient, 1.0 - beta1)
        second = self.second[name].mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        first_hat = first / (1.0 - beta1 ** (step + 1))
        second_hat = second / (1.0 - beta2 ** (step + 1))
        return first_hat / (second_hat.sqrt() + 1e-8)

    def state(self) -> dict[str, Tensor]:
        return {
            **{f"first.{n}": t for n, t in self.first.items()},
            **{f"second.{n}": t for n, t in self.second.items()},
        }


def make_optimizer(tensors: Mapping[str, Tensor], settings: TrainSettings) -> RunOptimizer:
    """The optimiser that the settings name, over tensors [N, ...]."""
    tuned = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
    return (Adafactor if settings.optimizer == "adafactor" else Adam)(tuned, settings)
