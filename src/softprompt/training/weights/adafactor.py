"""Optimisers of weights: FactoredAdafactor as T5 was pre-trained and is fine-tuned with it
(Shazeer and Stern 2018; T5X's optimiser), and AdamW.

Factored second moments, update clipping, no first moment, and parameter scaling: a step is the rate times the root mean
square of the tensor. This is not the optimiser of prompts (``training.optim``), which is unfactored and unscaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MIN_FACTORED = 128  # tensors whose two last axes are both at least this wide are factored
EPSILON_GRADIENT = 1e-30
EPSILON_PARAMETER = 1e-3
CLIP = 1.0
DECAY = 0.8


class Moments:
    """What an optimiser of weights remembers; ``moments`` by name."""

    moments: dict[str, Tensor]

    def state(self) -> dict[str, Tensor]:
        """All moments by name: of their tensors' shapes, factored ones without rows or columns."""
        return dict(self.moments)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over moments that ``state`` gave, shapes included."""
        for name, moment in self.moments.items():
            moment.copy_(state[name])


class FactoredAdafactor(Moments):
    """Adafactor over named float32 tensors, changed in place.

    Args:
        parameters: the tensors by name.
        rate: learning rate, relative to a tensor's root mean square where ``parameter_scaling``.
        step_offset: added to the step in the second-moment decay 1 - t^-0.8; T5X restores the counter with the
            checkpoint (about 1,000,000 for T5 1.1), a fresh start has 0.
        parameter_scaling: T5's setting is True.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        rate: float = 0.001,
        step_offset: int = 0,
        parameter_scaling: bool = True,
    ) -> None:
        self.parameters = dict(parameters)
        self.rate, self.step_offset, self.parameter_scaling = rate, step_offset, parameter_scaling
        self.moments = {}
        for name, tensor in self.parameters.items():
            if factored(self.shape(name)):
                self.moments[f"row.{name}"] = tensor.new_zeros(tensor.shape[:-1])
                self.moments[f"column.{name}"] = tensor.new_zeros((*tensor.shape[:-2], tensor.shape[-1]))
            else:
                self.moments[f"full.{name}"] = torch.zeros_like(tensor)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return tuple(self.parameters[name].shape)

    def mean_square(self, name: str, tensor: Tensor) -> Tensor:
        """A scalar, over all entries of the tensor (any shape) of that name; a process may hold a part of it."""
        return sum_of_squares(tensor) / tensor.numel()

    def mean_rows(self, name: str, tensor: Tensor, axis: int) -> Tensor:
        """The mean over a matrix's rows, which lie along ``axis`` of ``tensor``; its shape without that axis."""
        return tensor.mean(axis)

    @torch.no_grad()
    def step(self, step: int, gradients: Mapping[str, Tensor]) -> None:
        """Update every tensor that has a gradient.

        Args:
            step: number of steps done before, from 0.
            gradients: float32, by name, each of its tensor's shape.
        """
        decay = 1.0 - float(step + 1 + self.step_offset) ** -DECAY
        for name, gradient in gradients.items():
            tensor = self.parameters[name]
            update = self._direction(name, gradient, decay)
            rate = self.rate / (self.mean_square(name, update).sqrt() / CLIP).clamp_min(1.0)
            if self.parameter_scaling:
                rate = rate * self.mean_square(name, tensor).sqrt().clamp_min(EPSILON_PARAMETER)
            tensor.addcmul_(update, rate, value=-1.0)

    def _direction(self, name: str, gradient: Tensor, decay: float) -> Tensor:
        square = gradient.square().add_(EPSILON_GRADIENT)
        if f"full.{name}" in self.moments:
            full = self.moments[f"full.{name}"].mul_(decay).add_(square, alpha=1.0 - decay)
            return gradient * full.rsqrt()
        row = self.moments[f"row.{name}"].mul_(decay).add_(square.mean(-1), alpha=1.0 - decay)
        column = self.moments[f"column.{name}"].mul_(decay).add_(self.mean_rows(name, square, -2), alpha=1.0 - decay)
        row_factor = (row / self.mean_rows(name, row, -1).unsqueeze(-1)).rsqrt()
        return torch.mul(gradient, row_factor[..., None], out=square).mul_(column.rsqrt()[..., None, :])


class AdamW(Moments):
    """AdamW (betas 0.9 and 0.999, epsilon 1e-8, no weight decay) over named float32 tensors: LoRA's usual optimiser.

    Args:
        parameters: the tensors by name.
        rate: learning rate.
        step_offset: steps behind the moments that ``load`` brings.
    """

    BETAS = (0.9, 0.999)

    def __init__(self, parameters: Mapping[str, Tensor], *, rate: float, step_offset: int = 0) -> None:
        self.parameters = dict(parameters)
        self.rate, self.step_offset = rate, step_offset
        self.moments = {
            f"{kind}.{n}": torch.zeros_like(t) for n, t in self.parameters.items() for kind in ("first", "second")
        }

    @torch.no_grad()
    def step(self, step: int, gradients: Mapping[str, Tensor]) -> None:
        """Update every tensor that has a gradient of its shape; see `FactoredAdafactor.step`."""
        count = step + 1 + self.step_offset
        one, two = self.BETAS
        for name, gradient in gradients.items():
            first = self.moments[f"first.{name}"].lerp_(gradient, 1 - one) / (1 - one**count)
            second = self.moments[f"second.{name}"].mul_(two).addcmul_(gradient, gradient, value=1 - two) / (
                1 - two**count
            )
            self.parameters[name].sub_(first / (second.sqrt() + 1e-8), alpha=self.rate)


def sum_of_squares(tensor: Tensor) -> Tensor:
    """A scalar, over a float32 tensor of any shape; no copy of it is made."""
    flat = tensor.reshape(-1)
    return torch.dot(flat, flat)


def factored(shape: Sequence[int]) -> bool:
    """Whether the second moment of a tensor of this shape is kept as rows and columns."""
    return len(shape) >= 2 and min(shape[-2:]) >= MIN_FACTORED
