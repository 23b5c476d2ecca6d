"""What each method tunes and stores, computed for any backbone.

SPoT's "27,000 times fewer task-specific parameters" is the ratio of model tuning to a prompt of 100 tokens for T5 XXL:
``fewer_times(counts)`` computes it. Letters: P prompt tokens, H width, K skills, m encoder width.
"""

from __future__ import annotations

from dataclasses import dataclass

from softprompt.backbones.shapes import Shape
from softprompt.errors import UnknownNameError, UsageError
from softprompt.training.weights.tuned import BYTES


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a method tunes for one task.

    Attributes:
        method: for tables.
        tuned: parameters tuned for each task.
        shared: parameters tuned once for all tasks (SharPT's skill space, a multi-task model's first stage is not
            stored and does not count).
        percent: tuned of the backbone's parameters.
        stored_bytes: kept on the disk for each task.
    """

    method: str
    tuned: int
    shared: int
    percent: float
    stored_bytes: int

    def fewer_times(self, other: Counts) -> float:
        """How many times fewer parameters this method tunes for a task than ``other``."""
        return other.tuned / self.tuned


def count(
    method: str,
    backbone: Shape,
    *,
    prompt_length: int = 100,
    skill_count: int = 0,
    encoder_width: int = 0,
) -> Counts:
    """What a method tunes for one task.

    Args:
        method: ``prompt-tuning`` (SPoT tunes the same), ``sharpt``, ``model-tuning`` (multi-task the same).
        backbone: the frozen (or tuned) model.
        prompt_length: P.
        skill_count: K, of SharPT.
        encoder_width: m, of SharPT.

    Raises:
        UsageError: an unknown method, or SharPT without its sizes.
    """
    h = backbone.width
    if method == "sharpt" and (skill_count < 1 or encoder_width < 1):
        raise UsageError("counting SharPT's parameters needs skill_count and encoder_width; give both.")
    known = {
        "prompt-tuning": prompt_length * h,
        "sharpt": prompt_length * h + h * encoder_width + h + h * h + h,
        "model-tuning": backbone.parameters,
    }
    if method not in known:
        raise UnknownNameError("method", method, known)
    tuned, shared = known[method], skill_count * encoder_width if method == "sharpt" else 0
    return Counts(
        method=method, tuned=tuned, shared=shared, percent=100 * tuned / backbone.parameters, stored_bytes=BYTES * tuned
    )
