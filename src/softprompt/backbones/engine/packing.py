"""Rows of different length laid end to end, so that nothing is computed for padding.

Letters: B rows, L positions of a row, S positions of all rows together (the sum of the lengths), H width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from softprompt.batch import on_device


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each of B rows lies in a packed tensor [S, ...].

    Attributes:
        lengths: positions of each row, ints >= 0.
        device: device of the index tensors.
    """

    lengths: tuple[int, ...]
    device: torch.device

    @property
    def rows(self) -> int:
        """B."""
        return len(self.lengths)

    @cached_property
    def total(self) -> int:
        """S."""
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        """The longest row's length."""
        return max(self.lengths, default=0)

    @cached_property
    def even(self) -> bool:
        """Whether all rows have one length, so that packed and padded are the same."""
        return len(set(self.lengths)) <= 1

    @cached_property
    def length_B(self) -> Tensor:
        """int64 [B]."""
        return on_device(torch.tensor(self.lengths, dtype=torch.int64), self.device)

    @cached_property
    def start_B(self) -> Tensor:
        """int64 [B], where each row begins."""
        return self.length_B.cumsum(0) - self.length_B

    @cached_property
    def row_S(self) -> Tensor:
        """int64 [S], the row of each packed position."""
        rows = torch.arange(self.rows, device=self.device)
        return rows.repeat_interleave(self.length_B, output_size=self.total)

    @cached_property
    def position_S(self) -> Tensor:
        """int64 [S], the place within its row of each packed position."""
        return torch.arange(self.total, device=self.device) - self.start_B[self.row_S]

    @cached_property
    def row32_S(self) -> Tensor:
        """int32 [S], ``row_S`` as the kernels read it."""
        return self.row_S.to(torch.int32)

    @cached_property
    def spans32(self) -> tuple[Tensor, Tensor]:
        """int32 [B] each, where rows begin and how long they are, as the kernels read them."""
        return self.start_B.to(torch.int32), self.length_B.to(torch.int32)

    @cached_property
    def bounds32(self) -> Tensor:
        """int32 [B + 1], where rows begin, and the end of the last one."""
        return torch.nn.functional.pad(self.length_B.cumsum(0), (1, 0)).to(torch.int32)

    def key_mask(self, dtype: torch.dtype) -> Tensor | None:
        """Additive [B, 1, 1, L] that hides padding; None where there is none."""
        if self.even:
            return None
        # Half of the smallest number: a bias may be added without reaching minus infinity.
        low = torch.finfo(dtype).min / 2
        return torch.zeros_like(self.valid_BL, dtype=dtype).masked_fill_(~self.valid_BL, low)[:, None, None, :]

    @cached_property
    def valid_BL(self) -> Tensor:
        """bool [B, L], true where a padded tensor holds a position."""
        return torch.arange(self.longest, device=self.device) < self.length_B[:, None]

    @cached_property
    def _flat_S(self) -> Tensor:
        return self.row_S * self.longest + self.position_S

    @cached_property
    def _source_BL(self) -> Tensor:
        # Padding reads the row's last position: finite, and masked wherever it could matter.
        place = torch.arange(self.longest, device=self.device)
        place = torch.minimum(place[None, :], (self.length_B - 1).clamp(min=0)[:, None])
        return (self.start_B[:, None] + place).clamp(max=max(self.total - 1, 0)).flatten()

    def pad(self, x_S: Tensor) -> Tensor:
        """[S, ...] -> [B, L, ...]; padding holds copies of the row's last position."""
        shape = (self.rows, self.longest, *x_S.shape[1:])
        if self.even:
            return x_S.view(shape)
        return _Pad.apply(x_S, self).view(shape)  # type: ignore[no-untyped-call,no-any-return]

    def unpad(self, x_BL: Tensor) -> Tensor:
        """[B, L, ...] -> [S, ...]."""
        flat = x_BL.reshape(self.rows * self.longest, *x_BL.shape[2:])
        if self.even:
            return flat
        return _Unpad.apply(flat, self)  # type: ignore[no-untyped-call,no-any-return]


class _Pad(torch.autograd.Function):
    """Padding whose gradient is a plain gather: what reaches padding is nothing."""

    @staticmethod
    def forward(ctx, x_S: Tensor, layout: Layout) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.layout = layout
        return x_S.index_select(0, layout._source_BL)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return grad.index_select(0, ctx.layout._flat_S), None


class _Unpad(torch.autograd.Function):
    """Dropping padding; its gradient is zero."""

    @staticmethod
    def forward(ctx, flat: Tensor, layout: Layout) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.layout, ctx.shape = layout, flat.shape
        return flat.index_select(0, layout._flat_S)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        out = grad.new_zeros(ctx.shape)
        out[ctx.layout._flat_S] = grad
        return out, None


def pack(rows_BT: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Layout]:
    """Padded rows [B, T, ...] to packed ones.

    Args:
        rows_BT: [B, T, ...], padded on the right.
        lengths: the valid part of each row, ints in 0..T.
    """
    layout = Layout(tuple(int(n) for n in lengths), rows_BT.device)
    if layout.total == rows_BT.shape[0] * rows_BT.shape[1]:
        return rows_BT.flatten(0, 1), layout
    # By place and not by a mask: a mask's count would have to come back from the device first.
    return rows_BT.flatten(0, 1).index_select(0, layout.row_S * rows_BT.shape[1] + layout.position_S), layout
