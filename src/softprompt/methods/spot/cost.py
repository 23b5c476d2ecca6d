"""Cost of training and validation in forward-token equivalents, so that strategies can be compared honestly.

One position through the frozen backbone forward counts 1. A training position counts 2: forward, and the backward pass
through activations alone (there is no weight gradient), which costs as many operations as the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable

from softprompt.training.runs import RunResult

TRAINING_FACTOR = 2


def forward_tokens(results: Iterable[RunResult]) -> int:
    """Forward-token equivalents of some runs: training, validation and what an instance encoder read."""
    return sum(TRAINING_FACTOR * r.tokens + r.eval_tokens + r.encoder_tokens for r in results)
