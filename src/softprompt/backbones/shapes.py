"""How large a backbone is: the published T5 1.1 by their configurations, any other by its count of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the cost of a backbone follows from.

    Attributes:
        parameters: all of them, tied ones once.
        passed: those of the matrices that a position goes through, without the embedding table.
        width: H.
        layers: of the encoder (or decoder-only stack).
    """

    parameters: int
    passed: int
    width: int
    layers: int


def t5_v1_1(vocab: int, width: int, feed_forward: int, layers: int, heads: int, head_width: int) -> Shape:
    """A T5 1.1 model: gated feed-forward, separate output head, one relative bias table a stack.

    Args:
        vocab: V, rows of the embedding table.
        width: H.
        feed_forward: inner width.
        layers: of the encoder, and as many of the decoder.
        heads: attention heads.
        head_width: of each.
    """
    attention = 4 * width * heads * head_width
    dense = 3 * width * feed_forward
    passed = layers * (attention + dense) + layers * (2 * attention + dense)
    norms = layers * 2 * width + layers * 3 * width + 2 * width
    return Shape(
        parameters=passed + norms + 2 * vocab * width + 2 * 32 * heads, passed=passed, width=width, layers=layers
    )


T5_SIZES: Mapping[str, Shape] = {
    name: t5_v1_1(32_128, width, inner, layers, heads, 64)
    for name, width, inner, layers, heads in (
        ("t5-small", 512, 1024, 8, 6),
        ("t5-base", 768, 2048, 12, 12),
        ("t5-large", 1024, 2816, 24, 16),
        ("t5-xl", 2048, 5120, 24, 32),
        ("t5-xxl", 4096, 10240, 24, 64),
    )
}
"""The five sizes of T5 1.1 by the papers' names, from the public configurations."""


def shape_of(backbone: str, parameters: int | None = None) -> Shape | None:
    """The shape of a backbone by name, or guessed from its count of parameters; None where neither is known."""
    for size, shape in T5_SIZES.items():
        if size in backbone or size.replace("t5-", "t5-v1_1-") in backbone:
            return shape
    if parameters:
        return Shape(parameters=parameters, passed=parameters, width=round((parameters / 150) ** 0.5), layers=12)
    return None
