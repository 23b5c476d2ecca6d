"""What a training needs to be told. Recipes (``recipes.py``) return full settings; nothing else fills them in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from softprompt.errors import UsageError
from softprompt.fields import Amount, Count, Positive, Probability, Range, Scoring, Settings, Whole

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone

ENCDEC_RATE = 0.03  # of the embedded backbone's sweep, docs/log.md
DECODER_RATE = 0.037  # in deviations of the embedding table's entries: 0.005 where they have 0.136 (SmolLM2)


@dataclass(frozen=True, kw_only=True)
class LoopSettings(Settings):
    """What every training needs to be told, of prompts and of weights.

    Attributes:
        steps: optimiser steps (SPoT section 2.1.4: 262,144).
        adafactor_step_offset: added to the step in Adafactor's second-moment decay 1 - t^-0.8; 0 starts afresh. Hugging Face
            checkpoints hold no optimiser state; about 1,000,000 behaves as if T5's counter had been restored with it.
        z_loss: weight of the squared log partition function.
        eval_every: steps between validations and checkpoints.
        eval_rows: at most this many validation rows while training (a seeded subset); 0 for all.
        patience: validations without improvement after which a run stops early; 0 for never.
        max_input_tokens: inputs are cut to this many tokens in training; 0 for no cut.
        max_target_tokens: targets are cut to this many tokens, and answers generated up to it; 0 for as many as each task
            says (`Task.target_tokens`: 64, or 512 where targets are texts).
        micro_batch_tokens: most padded positions (prompt and text) in one forward pass; 0 chooses for the device.
    """

    steps: Count
    adafactor_step_offset: Whole = 0
    z_loss: Amount = 1e-4
    eval_every: Count = 500
    eval_rows: Whole = 1500
    patience: Whole = 0
    max_input_tokens: Whole = 512
    max_target_tokens: Whole = 64
    micro_batch_tokens: Whole = 0


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LoopSettings):
    """Settings of one training of prompts; shared by all runs that train together.

    Attributes:
        batch_size: rows of each run in a step.
        prompt_length: prompt tokens, P.
        optimizer: ``adafactor`` as T5X has it (unfactored, no parameter scaling) or ``adam``.
        learning_rate: constant rate after warm-up; ``auto`` (Adam alone): `DECODER_RATE` times the standard deviation of the
            embedding table's entries in decoder-only models, whose tables differ in scale, and `ENCDEC_RATE` elsewhere.
        warmup_steps: steps over which the rate grows linearly from 0; 0 for none.
        weight_decay: the parameter is multiplied by (1 - weight_decay) each step.
        clip_norm: largest gradient norm of one run; 0 for none.
        dropout: probability in the frozen backbone while training; ``auto``: 0.1 in T5 and other encoder-decoders, as in
            the papers, and 0 in decoder-only models, which were trained without.
        embedding_step: the step whose prompt is the task embedding (SPoT section 3.2: 10,000); 0 for none.
        scoring: how validation finds answers: ``labels`` (the most probable label), ``generate``, or ``auto`` (``labels``
            for decoder-only backbones on tasks with labels).
    """

    batch_size: Count = 32
    prompt_length: Count = 100
    optimizer: Literal["adafactor", "adam"] = "adafactor"
    learning_rate: Annotated[float, Range(above=0)] | Literal["auto"] = 0.3
    warmup_steps: Whole = 0
    weight_decay: Amount = 1e-5
    clip_norm: Amount = 0.0
    dropout: Annotated[float, Range(least=0, below=1)] | Literal["auto"] = "auto"
    embedding_step: Whole = 10_000
    scoring: Scoring = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate == "auto" and self.optimizer != "adam":
            raise UsageError("learning_rate auto is a rate for adam: give a number, or --set optimizer=adam.")

    def resolved(self, backbone: Backbone) -> TrainSettings:
        """The same settings with what ``auto`` means for a backbone."""
        changes: dict[str, Any] = {}
        if self.dropout == "auto":
            changes["dropout"] = dropout_for(backbone.kind)
        if self.learning_rate == "auto":
            changes["learning_rate"] = rate_for(backbone)
        return self.having(**changes) if changes else self

    @property
    def rate(self) -> float:
        """``learning_rate`` as a number.

        Raises:
            UsageError: it is ``auto`` and not `resolved`.
        """
        if self.learning_rate == "auto":
            raise UsageError("learning_rate is auto, which a backbone resolves: give a number.")
        return self.learning_rate


@dataclass(frozen=True, kw_only=True)
class TuneSettings(LoopSettings):
    """Settings of one tuning of weights (SPoT Appendix C; Raffel et al. 2020 section 3.1.2).

    Attributes:
        batch_tokens: input and target tokens of a step (SPoT: 2^16, chosen by a sweep); rows are added while they fit.
        optimizer: ``adafactor`` as T5 has it, or ``adamw`` (LoRA's usual one).
        learning_rate: constant (SPoT: 0.001), relative to a tensor's root mean square where ``parameter_scaling``.
        parameter_scaling: T5's Adafactor scales a step by the tensor it changes.
        dropout: probability everywhere the model drops out.
        checkpointing: recompute activations in the backward pass.
        sharded: weights, gradients and moments lie in shards on the processes of torchrun (FSDP2); ``adafactor`` alone.
    """

    batch_tokens: Count = 2**16
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    learning_rate: Positive = 0.001
    parameter_scaling: bool = True
    dropout: Probability = 0.1
    checkpointing: bool = False
    sharded: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sharded and self.optimizer != "adafactor":
            raise UsageError("sharded model tuning has Adafactor alone; set optimizer to adafactor.")


def dropout_for(kind: str) -> float:
    """The dropout a kind of backbone (``Backbone.kind``) is tuned with where the user names none."""
    return 0.0 if kind == "causal" else 0.1


def rate_for(backbone: Backbone) -> float:
    """Adam's rate for prompts of a backbone: a move that is small beside the entries of its embedding table.

    Two significant digits, so that the precision a backbone is held in does not show.
    """
    if backbone.kind != "causal":
        return ENCDEC_RATE
    return float(f"{DECODER_RATE * float(backbone.embedding_table().float().std()):.2g}")
