"""What each method tunes and stores, computed for any backbone.

SPoT's "27,000 times fewer task-specific parameters" is the ratio of model tuning to a prompt of 100 tokens for T5 XXL:
``fewer_times(counts)`` computes it. Letters: P prompt tokens, H width, K skills, m encoder width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softprompt.backbones.base import Backbone
from softprompt.errors import UnknownNameError, UsageError
from softprompt.training.weights.tuned import BYTES


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """What counting needs to know of a backbone.

    Attributes:
        name: for tables.
        parameters: all of them, tied ones once.
        hidden_size: H.
    """

    name: str
    parameters: int
    hidden_size: int


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
        return other.tuned / self.tuned if self.tuned else float("inf")


# Published shapes of T5 1.1 (Raffel et al. 2020's successor): parameters as counted in the released checkpoints' tensors.
def t5_v1_1_parameters(vocab: int, width: int, feed_forward: int, layers: int, heads: int, head_width: int) -> int:
    """Parameters of a T5 1.1 model: gated feed-forward, separate output head, one relative bias table a stack.

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
    encoder = layers * (attention + dense + 2 * width)
    decoder = layers * (2 * attention + dense + 3 * width)
    return 2 * vocab * width + encoder + decoder + 2 * 32 * heads + 2 * width


T5_SIZES: Mapping[str, BackboneShape] = {
    name: BackboneShape(
        name=name, parameters=t5_v1_1_parameters(32128, width, inner, layers, heads, 64), hidden_size=width
    )
    for name, width, inner, layers, heads in (
        ("t5-small", 512, 1024, 8, 6),
        ("t5-base", 768, 2048, 12, 12),
        ("t5-large", 1024, 2816, 24, 16),
        ("t5-xl", 2048, 5120, 24, 32),
        ("t5-xxl", 4096, 10240, 24, 64),
    )
}
"""The five sizes of T5 1.1 by the papers' names, computed from their published shapes."""


def shape_of(backbone: Backbone) -> BackboneShape:
    """The shape of a loaded backbone."""
    return BackboneShape(name=backbone.name, parameters=backbone.parameter_count, hidden_size=backbone.hidden_size)


def count(
    method: str,
    backbone: BackboneShape,
    *,
    prompt_length: int = 100,
    skill_count: int = 0,
    encoder_width: int = 0,
    lora_parameters: int = 0,
) -> Counts:
    """What a method tunes for one task.

    Args:
        method: ``prompt-tuning`` (SPoT tunes the same), ``sharpt``, ``model-tuning`` (multi-task the same),
            ``prompt-design`` or ``lora``.
        backbone: the frozen (or tuned) model.
        prompt_length: P.
        skill_count: K, of SharPT.
        encoder_width: m, of SharPT.
        lora_parameters: of LoRA's adapters, as PEFT counts them.

    Raises:
        UsageError: an unknown method, or SharPT without its sizes.
    """
    h = backbone.hidden_size
    if method == "sharpt" and (skill_count < 1 or encoder_width < 1):
        raise UsageError("counting SharPT's parameters needs skill_count and encoder_width; give both.")
    known = {
        "prompt-tuning": prompt_length * h,
        "sharpt": prompt_length * h + h * encoder_width + h + h * h + h,
        "model-tuning": backbone.parameters,
        "prompt-design": 0,
        "lora": lora_parameters,
    }
    if method not in known:
        raise UnknownNameError("method", method, known)
    tuned, shared = known[method], skill_count * encoder_width if method == "sharpt" else 0
    return Counts(
        method=method, tuned=tuned, shared=shared, percent=100 * tuned / backbone.parameters, stored_bytes=BYTES * tuned
    )
