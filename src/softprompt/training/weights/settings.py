"""Settings and recipes of model tuning (SPoT Appendix C; Raffel et al. 2020 section 3.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from softprompt.errors import UnknownNameError, UsageError

RESTORED_STEP = 1_000_000
"""Steps T5 1.1 was pre-trained for: the counter that T5X's Adafactor restores with the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """Settings of one model tuning.

    Attributes:
        steps: optimiser steps, at least 1.
        batch_tokens: input and target tokens of a step (SPoT: 2^16, chosen by a sweep); rows are added while they fit.
        optimizer: ``adafactor`` as T5 has it, or ``adamw`` (LoRA's usual one).
        learning_rate: constant (SPoT: 0.001), relative to a tensor's root mean square where ``parameter_scaling``.
        parameter_scaling: T5's Adafactor scales a step by the tensor it changes.
        adafactor_step_offset: added to the step in the second-moment decay 1 - t^-0.8. Hugging Face checkpoints hold no
            optimiser state; 1,000,000 behaves as if T5's counter, though not its moments, had been restored.
        dropout: probability, in [0, 1).
        z_loss: weight of the squared log partition function.
        eval_every: steps between validations and checkpoints.
        eval_rows: at most this many validation rows while training; 0 for all.
        patience: validations without improvement after which it stops; 0 for never.
        max_input_tokens: inputs are cut to this many tokens in training; 0 for no cut.
        max_target_tokens: targets are cut to this many, and answers generated up to it; 0 for as many as each task says.
        micro_batch_tokens: most padded input positions in one forward pass; 0 chooses for the device.
        checkpointing: recompute activations in the backward pass.
        sharded: weights, gradients and moments lie in shards on the processes of torchrun (FSDP2); ``adafactor`` alone.
    """

    steps: int
    batch_tokens: int = 2**16
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    learning_rate: float = 0.001
    parameter_scaling: bool = True
    adafactor_step_offset: int = 0
    dropout: float = 0.1
    z_loss: float = 1e-4
    eval_every: int = 500
    eval_rows: int = 1500
    patience: int = 0
    max_input_tokens: int = 512
    max_target_tokens: int = 64
    micro_batch_tokens: int = 0
    checkpointing: bool = False
    sharded: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "eval_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}: give a larger {name}.")
        for name in (
            "adafactor_step_offset",
            "z_loss",
            "eval_rows",
            "patience",
            "max_input_tokens",
            "max_target_tokens",
            "micro_batch_tokens",
        ):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.optimizer not in ("adafactor", "adamw"):
            raise UnknownNameError("optimizer", self.optimizer, ("adafactor", "adamw"))
        if self.sharded and self.optimizer != "adafactor":
            raise UsageError("sharded model tuning has Adafactor alone; set optimizer to adafactor.")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout must be in [0, 1), got {self.dropout}.")
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be above 0, got {self.learning_rate}.")

    def having(self, **changes: Any) -> TuneSettings:
        """The same settings with some changed; a name that does not exist is refused with the nearest one."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownNameError("setting", name, known)
        return replace(self, **changes)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def model_tuning() -> TuneSettings:
    """SPoT Appendix C, as long as its prompt tuning: 262,144 steps of 2^16 tokens; all of validation chooses."""
    return TuneSettings(steps=262_144, eval_rows=0, max_target_tokens=0)


def model_tuning_30k() -> TuneSettings:
    """The 30,000 steps of Lester et al. (2021)."""
    return model_tuning().having(steps=30_000)


def model_tuning_restored() -> TuneSettings:
    """``model-tuning`` with Adafactor's counter as if restored with the T5 checkpoint."""
    return model_tuning().having(adafactor_step_offset=RESTORED_STEP)


def model_tuning_quick() -> TuneSettings:
    """Minutes on two cores with the embedded backbone."""
    return TuneSettings(
        steps=200,
        batch_tokens=1024,
        eval_every=50,
        eval_rows=200,
        max_input_tokens=96,
        max_target_tokens=16,
        z_loss=0.0,
    )


def lora() -> TuneSettings:
    """LoRA as commonly run: AdamW at 0.0003, as long as the 30,000 steps of prompt tuning's ablation."""
    return model_tuning_30k().having(optimizer="adamw", learning_rate=3e-4)


def lora_quick() -> TuneSettings:
    """LoRA in minutes on two cores with the embedded backbone."""
    return model_tuning_quick().having(optimizer="adamw", learning_rate=1e-3)


RECIPES: Mapping[str, Callable[[], TuneSettings]] = {
    "model-tuning": model_tuning,
    "model-tuning-30k": model_tuning_30k,
    "model-tuning-restored": model_tuning_restored,
    "model-tuning-quick": model_tuning_quick,
    "lora": lora,
    "lora-quick": lora_quick,
}


def tune_recipe(name: str, **changes: Any) -> TuneSettings:
    """The settings of a recipe, with some changed by name."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]().having(**changes)
