"""What a study's settings mean for each of its methods: full settings, and the part of them that a cell's key holds."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from softprompt.study.grid import MODEL_KINDS
from softprompt.study.settings import Study

if TYPE_CHECKING:
    from softprompt.methods.few_shot import DesignSettings
    from softprompt.methods.sharpt.recipes import SharPTRecipe
    from softprompt.training.settings import TuneSettings
    from softprompt.training.weights.lora import LoraSettings


def sharpt_settings(study: Study, ablation: str = "none") -> SharPTRecipe:
    """The study's SharPT recipe, its training settings replaced where the study says so, and without what is ablated.

    Rows are cut and checkpoints are looked at as for the study's other prompts: a choice among more checkpoints would be
    an advantage, one among fewer a handicap.
    """
    from softprompt.methods.sharpt.recipes import sharpt_recipe

    found = sharpt_recipe(study.sharpt.recipe)
    length = study.sharpt.prompt_length or found.source.prompt_length
    rate = study.sharpt.learning_rate
    source, target = (
        part.having(
            prompt_length=length, steps=steps or part.steps, learning_rate=rate or part.learning_rate,
            batch_size=rows or part.batch_size, eval_every=every or others.eval_every,
            max_input_tokens=others.max_input_tokens,
        )
        for part, steps, rows, every, others in (
            (found.source, study.sharpt.source_steps, 0, study.sharpt.source_eval_every, study.source),
            (found.target, study.sharpt.target_steps, study.sharpt.target_batch_size, 0, study.target),
        )
    )  # fmt: skip
    start = replace(found.start, skill_count=study.sharpt.skills) if study.sharpt.skills else found.start
    return replace(found, source=source, target=target, start=start).ablated(ablation)  # type: ignore[arg-type]


def model_tuning_settings(study: Study) -> TuneSettings:
    """The study's settings of model tuning on a target."""
    from softprompt.training.recipes import tune_recipe

    changes = {"steps": study.model_tuning.steps} if study.model_tuning.steps else {}
    return tune_recipe(study.model_tuning.recipe, **changes)


def union_settings(study: Study) -> TuneSettings:
    """The study's settings of multi-task model tuning on all sources; the last weights count, so it never stops early."""
    settings = model_tuning_settings(study)
    return settings.having(steps=study.model_tuning.source_steps or settings.steps, patience=0)


def lora_settings(study: Study) -> tuple[TuneSettings, LoraSettings]:
    """The study's settings of LoRA: its training, and the shape of the adapters."""
    from softprompt.training.recipes import tune_recipe
    from softprompt.training.weights.lora import LoraSettings

    changes = {"steps": study.lora.steps} if study.lora.steps else {}
    return tune_recipe(study.lora.recipe, **changes), LoraSettings(rank=study.lora.rank)


def design_settings(study: Study) -> DesignSettings:
    """The study's settings of prompt design."""
    from softprompt.methods.few_shot import DesignSettings

    return DesignSettings(shots=study.prompt_design.shots, fit=True)


def identity_of(study: Study, kind: str, ablation: str = "none") -> dict[str, Any]:
    """What an arm's cells depend on besides data, seed and parents."""
    if kind in MODEL_KINDS:
        settings = union_settings(study) if kind == "multitask_tuning" else model_tuning_settings(study)
        return {"settings": _but_micro_batches(asdict(settings))}
    if kind == "lora":
        tune, shape = lora_settings(study)
        return {"settings": _but_micro_batches(asdict(tune)), "lora": asdict(shape)}
    if kind == "prompt_design":
        return {"settings": {**asdict(design_settings(study)), "label_words": {}}}
    recipe = asdict(sharpt_settings(study, ablation))
    recipe["latent"]["metric"] = "euclidean"  # the only one that is left; older keys hold it
    for part in ("source", "target"):
        recipe[part] = {
            name: v for name, v in recipe[part].items() if name not in ("embedding_step", "micro_batch_tokens")
        }
    if kind == "latent_space":
        del recipe["target"]
    return {"recipe": recipe, "encoder": study.sharpt.encoder}


def _but_micro_batches(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "micro_batch_tokens"}
