"""Recipes by name: each returns full settings. The papers' own are kept literal; `quick` is for small machines.

Adafactor's step counter: the official code seems to restore it with the backbone (about 1,100,000), so that its second
moment hardly decays and update clipping dominates. `spot` and its relatives start the counter at 0, the plain reading
of the paper; the `-restored` ones behave as the official code seems to.
"""

from __future__ import annotations

from collections.abc import Callable

from softprompt.errors import UnknownNameError
from softprompt.training.settings import TrainSettings, TuneSettings

RESTORED_STEP = 1_100_000
PRETRAINED_STEP = 1_000_000
"""Steps T5 1.1 was pre-trained for: the counter that T5X's Adafactor restores with the checkpoint in model tuning."""


def spot() -> TrainSettings:
    """SPoT section 2.1.4: source tuning, and generic target tuning, 262,144 steps.

    Every 500 steps the whole validation set is answered; targets are as long as their task's (`Task.target_tokens`).
    """
    return TrainSettings(steps=262_144, eval_rows=0, max_target_tokens=0)


def spot_30k() -> TrainSettings:
    """SPoT Table 1, "- longer tuning": the 30,000 steps of Lester et al. (2021)."""
    return spot().having(steps=30_000)


def spot_target() -> TrainSettings:
    """SPoT section 3.1: target tuning in the transfer study, 100,000 steps."""
    return spot().having(steps=100_000)


def spot_restored() -> TrainSettings:
    """`spot` with Adafactor's counter as if restored with the T5 checkpoint."""
    return spot().having(adafactor_step_offset=RESTORED_STEP)


def spot_target_restored() -> TrainSettings:
    """`spot_target` with Adafactor's counter as if restored with the T5 checkpoint."""
    return spot_target().having(adafactor_step_offset=RESTORED_STEP)


def sharpt_source() -> TrainSettings:
    """SharPT section 3: the latent space on the union of sources, 80,000 steps, Adam 0.3, 4,000 warm-up.

    The paper does not say how a space is validated; 1,500 rows, an even share of each source, watch it.
    """
    return TrainSettings(
        steps=80_000, prompt_length=64, optimizer="adam", learning_rate=0.3, warmup_steps=4_000, weight_decay=0.0,
        max_target_tokens=0,
    )  # fmt: skip


def sharpt_target() -> TrainSettings:
    """SharPT section 3: the generator on a target task, 100,000 steps, otherwise as the sources; all of validation chooses."""
    return sharpt_source().having(steps=100_000, eval_rows=0)


def quick() -> TrainSettings:
    """Minutes on two cores: short prompts, few steps, no dropout; the rate fits the backbone (docs/log.md has the sweeps)."""
    return TrainSettings(
        steps=300,
        batch_size=16,
        prompt_length=16,
        optimizer="adam",
        learning_rate="auto",
        warmup_steps=10,
        weight_decay=0.0,
        clip_norm=1.0,
        dropout=0.0,
        z_loss=0.0,
        eval_every=50,
        eval_rows=150,
        embedding_step=60,
        max_input_tokens=96,
        max_target_tokens=16,
    )


def model_tuning() -> TuneSettings:
    """SPoT Appendix C, as long as its prompt tuning: 262,144 steps of 2^16 tokens; all of validation chooses."""
    return TuneSettings(steps=262_144, eval_rows=0, max_target_tokens=0)


def model_tuning_30k() -> TuneSettings:
    """The 30,000 steps of Lester et al. (2021)."""
    return model_tuning().having(steps=30_000)


def model_tuning_restored() -> TuneSettings:
    """``model-tuning`` with Adafactor's counter as if restored with the T5 checkpoint."""
    return model_tuning().having(adafactor_step_offset=PRETRAINED_STEP)


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


RECIPES: dict[str, Callable[[], TrainSettings]] = {
    "spot": spot,
    "spot-30k": spot_30k,
    "spot-target": spot_target,
    "spot-restored": spot_restored,
    "spot-target-restored": spot_target_restored,
    "sharpt-source": sharpt_source,
    "sharpt-target": sharpt_target,
    "quick": quick,
}


def recipe(name: str, **changes: object) -> TrainSettings:
    """The settings of a recipe, with some changed by name."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]().having(**changes)


TUNE_RECIPES: dict[str, Callable[[], TuneSettings]] = {
    "model-tuning": model_tuning,
    "model-tuning-30k": model_tuning_30k,
    "model-tuning-restored": model_tuning_restored,
    "model-tuning-quick": model_tuning_quick,
    "lora": lora,
    "lora-quick": lora_quick,
}


def tune_recipe(name: str, **changes: object) -> TuneSettings:
    """The settings of a recipe for tuning weights, with some changed by name."""
    if name not in TUNE_RECIPES:
        raise UnknownNameError("recipe", name, TUNE_RECIPES)
    return TUNE_RECIPES[name]().having(**changes)
