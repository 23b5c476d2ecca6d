"""Dropout whose randomness belongs to a row: a hash of (row key, site, element), never of a place in the batch.

As in T5X, a mask is shared by all positions of a row (Mesh TensorFlow's broadcast over the length): hidden states are
dropped by channel, attention weights by key position and head. Each element is kept with probability 1 - rate and
scaled by 1 / (1 - rate), so mean and variance are those of ordinary dropout, and the masks are small: [B, H] a site.

Letters: B rows, S packed positions, H width, A attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softprompt.backbones.base import Dropout
from softprompt.backbones.engine.packing import Layout

_LEVELS = 1 << 16  # 16 random bits decide about one element: four elements share one 64-bit hash


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_SITE = _signed(0xD1B54A32D192ED03)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Tensor) -> Tensor:
    """splitmix64's finaliser: a bijection of int64 (any shape) whose output bits are statistically independent of input patterns."""
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


class Masks:
    """The dropout masks of one batch.

    Args:
        dropout: rate and row keys; None or rate 0 for no dropout.
        device: where the activations are.
    """

    def __init__(self, dropout: Dropout | None, device: torch.device) -> None:
        self.active = dropout is not None and dropout.rate > 0
        if dropout is None or dropout.rate == 0:
            return
        if not 0 <= dropout.rate < 1:
            raise ValueError(f"a dropout rate lies in [0, 1), got {dropout.rate}")
        self._threshold = min(max(round(dropout.rate * _LEVELS), 1), _LEVELS - 1)
        # The scale belongs to the rate the 16 bits can express, so that the mean is exact.
        self._scale = _LEVELS / (_LEVELS - self._threshold)
        self._key_B = mix(dropout.key_B.to(device=device, dtype=torch.int64) * _GOLDEN + _SITE)

    def _kept(self, base: Tensor, width: int) -> Tensor:
        """float32 [..., width] scales from base hashes [...]."""
        words = torch.arange((width + 3) // 4, device=base.device, dtype=torch.int64)
        hashed = mix(base[..., None] + words * _GOLDEN)
        bits = hashed[..., None] >> torch.arange(0, 64, 16, device=base.device)  # made there: a copy would wait
        kept = (bits & (_LEVELS - 1)) >= self._threshold
        kept = kept.flatten(-2)[..., :width]
        return kept.to(torch.float32) * self._scale

    def channels(self, site: int, width: int) -> Tensor | None:
        """float32 [B, width], the scale of each channel of each row at a site; None without dropout."""
        if not self.active:
            return None
        return self._kept(mix(self._key_B ^ (site * _SITE & 0x7FFFFFFFFFFFFFFF)), width)

    def drop(self, x_SH: Tensor, site: int, layout: Layout) -> Tensor:
        """Packed rows [S, H] with every position of a row times the row's mask."""
        keep_BH = self.channels(site, x_SH.shape[1])
        return x_SH if keep_BH is None else (x_SH * keep_BH[layout.row_S]).to(x_SH.dtype)

    def keys(self, site: int, layout: Layout, heads: int) -> Tensor | None:
        """float32 [S, A], the scale of each key position in each head at a site; None without dropout."""
        if not self.active:
            return None
        base_B = mix(self._key_B ^ (site * _SITE & 0x7FFFFFFFFFFFFFFF))
        return self._kept(mix(base_B[layout.row_S] + layout.position_S * _MIX_2), heads)
