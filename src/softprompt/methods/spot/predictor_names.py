"""The predictors of transfer by name (`softprompt.methods.spot.predictors` says what each does); nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence

STEPS = {"loss-decrease-1": 1, "loss-decrease-5": 5}
"""Tuning steps of a predictor, for every source prompt."""
MEASURED = ("label-loss", *STEPS, "logme", "zero-shot-loss")
"""Those that need the source prompts and the target's rows alone: a library has them."""
PREDICTORS = (*MEASURED, "text-similarity", "data-size")
LABELLED = ("label-loss", "logme")
"""Those that need a target with labels."""


def tuning_steps(names: Sequence[str]) -> int:
    """Tuning steps that these predictors take of every source prompt: the longest run gives the shorter ones on its way."""
    return max((STEPS.get(name, 0) for name in names), default=0)
