"""What a training needs to be told. Recipes (``recipes.py``) return full settings; nothing else fills them in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from softprompt.errors import UnknownNameError, UsageError
from softprompt.inference.evaluate import SCORINGS, Scoring

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone

Optimizer = Literal["adafactor", "adam"]
ENCDEC_RATE = 0.03  # of the embedded backbone's sweep, docs/log.md
DECODER_RATE = 0.037  # in deviations of the embedding table's entries: 0.005 where they have 0.136 (SmolLM2)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of one training; shared by all runs that train together.

    Attributes:
        steps: optimiser steps, at least 1 (SPoT section 2.1.4: 262,144).
        batch_size: rows of each run in a step.
        prompt_length: P, prompt tokens.
        optimizer: ``adafactor`` as T5X has it (unfactored, no parameter scaling) or ``adam``.
        learning_rate: constant rate after warm-up; ``auto`` (Adam alone): `DECODER_RATE` times the standard deviation of the
            embedding table's entries in decoder-only models, whose tables differ in scale, and `ENCDEC_RATE` elsewhere.
        warmup_steps: steps over which the rate grows linearly from 0; 0 for none.
        adafactor_step_offset: added to the step in Adafactor's second-moment decay 1 - t^-0.8; 0 starts afresh,
            1,100,000 behaves as if the counter had been restored with the T5 checkpoint.
        weight_decay: the parameter is multiplied by (1 - weight_decay) each step.
        clip_norm: largest gradient norm of one run; 0 for none.
        dropout: probability in the frozen backbone while training, in [0, 1); ``auto``: 0.1 in T5 and other
            encoder-decoders, as in the papers, and 0 in decoder-only models, which were trained without.
        z_loss: weight of the squared log partition function.
        eval_every: steps between validations and checkpoints.
        eval_rows: at most this many validation rows while training (a seeded subset); 0 for all.
        embedding_step: the step whose prompt is the task embedding (SPoT section 3.2: 10,000); 0 for none.
        patience: validations without improvement after which a run stops early; 0 for never.
        max_input_tokens: inputs are cut to this many tokens in training; 0 for no cut.
        scoring: how validation finds answers: ``labels`` (the most probable label), ``generate``, or ``auto``
            (``labels`` for decoder-only backbones on tasks with labels; see ``inference.evaluate``).
        max_target_tokens: targets are cut to this many tokens, and answers generated up to it; 0 for as many as each
            task says (`Task.target_tokens`: 64, or 512 where targets are texts).
        micro_batch_tokens: most padded positions (prompt and text) in one forward pass; 0 chooses for the device.
    """

    steps: int
    batch_size: int = 32
    prompt_length: int = 100
    optimizer: Optimizer = "adafactor"
    learning_rate: float | Literal["auto"] = 0.3
    warmup_steps: int = 0
    adafactor_step_offset: int = 0
    weight_decay: float = 1e-5
    clip_norm: float = 0.0
    dropout: float | Literal["auto"] = "auto"
    z_loss: float = 1e-4
    eval_every: int = 500
    eval_rows: int = 1500
    embedding_step: int = 10_000
    patience: int = 0
    max_input_tokens: int = 512
    max_target_tokens: int = 64
    micro_batch_tokens: int = 0
    scoring: Scoring = "auto"

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("prompt_length", 1),
            ("eval_every", 1),
        ):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}: give a larger {name}.")
        for name in ("warmup_steps", "weight_decay", "clip_norm", "z_loss", "eval_rows", "embedding_step", "patience",
                     "max_input_tokens", "max_target_tokens", "micro_batch_tokens", "adafactor_step_offset"):  # fmt: skip
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.dropout != "auto":
            object.__setattr__(self, "dropout", _rate(self.dropout))
        if self.scoring not in SCORINGS:
            raise UnknownNameError("scoring", str(self.scoring), SCORINGS)
        if self.optimizer not in ("adafactor", "adam"):
            raise UnknownNameError("optimizer", self.optimizer, ("adafactor", "adam"))
        if self.learning_rate != "auto":
            object.__setattr__(self, "learning_rate", _positive(self.learning_rate))
        elif self.optimizer != "adam":
            raise UsageError("learning_rate auto is a rate for adam: give a number, or --set optimizer=adam.")

    def resolved(self, backbone: Backbone) -> TrainSettings:
        """The same settings with what ``auto`` means for a backbone."""
        changes: dict[str, float] = {}
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

    @classmethod
    def names(cls) -> list[str]:
        """The names of all settings."""
        return [f.name for f in fields(cls)]

    def having(self, **changes: Any) -> TrainSettings:
        """The same settings with some changed; a name that does not exist is refused with the nearest one."""
        current = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in changes:
            if name not in current:
                raise UnknownNameError("setting", name, current)
        return TrainSettings(**{**current, **changes})


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


def _positive(value: object) -> float:
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rate = -1.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"learning_rate must be auto or a number above 0, got {value}.")
    return rate


def _rate(value: object) -> float:
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rate = -1.0
    if not 0.0 <= rate < 1.0:
        raise UsageError(f"dropout must be auto or a number in [0, 1), got {value}.")
    return rate
