"""Other methods as cells of a study, on the same tasks and rows: SharPT, model tuning, LoRA and prompt design.

They stand in the same tables as the strategies of transfer (SharPT Tables 1 to 3). A cell on a target is one call of a
`softprompt.methods.method.Method`. What a method learns from all sources together, once a seed, is a cell of its own: a
latent space, and the weights of multi-task model tuning (SPoT Appendix C), which are kept in bfloat16: half the disk, and every
target starts from the same numbers however often the study is resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from softprompt.errors import UsageError
from softprompt.study.grid import StudyCell
from softprompt.study.ledger import Ledger, Record, key_of
from softprompt.study.making import Making, plain_result
from softprompt.study.recipes import (
    design_settings,
    lora_settings,
    model_tuning_settings,
    sharpt_settings,
    union_settings,
)
from softprompt.study.settings import SHARPT_UNTRAINED, Study
from softprompt.training.settings import TrainSettings

if TYPE_CHECKING:
    from softprompt.methods.method import Method
    from softprompt.training.settings import TuneSettings
    from softprompt.training.weights.tuned import ModelState

_SPACE_FILES = ("manifest.json", "space.safetensors")


def make_methods(making: Making) -> None:
    """Make the cells of a pack; the targets of one latent space train as one group."""
    if making.pack.kind == "latent_transfer":
        make_adaptations(making)
        return
    make = {"latent_space": make_space, "multitask_tuning": make_union}.get(making.pack.kind, make_on_target)
    behind = 0
    for cell in making.pack.cells:
        make(replace(making, behind=behind), cell)
        behind += cell.steps


def make_on_target(making: Making, cell: StudyCell) -> None:
    """One method on one target and seed. Only the answers are kept."""
    method, limits = method_of(making, cell)
    seed = int(cell.spec["seed"])
    target = making.target(cell, limits, label=f"{cell.kind}-{cell.key[:24]}")
    found = method.run(making.work(cell.key[:16]), target, [seed])
    making.record(cell, target.run("evaluation", seed), found.chosen, {}, {"tuned_parameters": found.tuned})


def make_adaptations(making: Making) -> None:
    """SharPT's generator on the targets of one space, hence of one seed."""
    from softprompt.methods.sharpt.method import SharPT
    from softprompt.methods.sharpt.space import load_space

    first = making.pack.cells[0]
    settings = sharpt_settings(making.study, str(first.spec.get("ablation", "none"))).target
    kind, key = first.parents[0]
    making.ledger.read(kind, key)
    space, seed = load_space(making.ledger.path(kind, key) / "space"), int(first.spec["seed"])
    targets = [making.target(cell, settings) for cell in making.pack.cells]
    method = SharPT(space, making.loaded.encoder(making.study), settings)
    for cell, target, found in zip(
        making.pack.cells, targets, method.run_all(making.work(), targets, [seed]), strict=True
    ):
        tensors = {f"best.{name}": tensor for name, tensor in found.tensors.items()}
        making.record(cell, target.run("evaluation", seed), found.chosen, tensors, {"tuned_parameters": found.tuned})


def method_of(making: Making, cell: StudyCell) -> tuple[Method, TrainSettings]:
    """The method that makes a cell alone, and the token limits of its rows."""
    study = making.study
    if cell.kind == "prompt_design":
        from softprompt.methods.prompt_design import PromptDesign

        # A few-shot prompt holds whole rows: they are cut where the backbone ends.
        return PromptDesign(design_settings(study)), study.target.having(max_input_tokens=0)
    from softprompt.methods.model_tuning import ModelTuning

    if cell.kind == "lora":
        settings, shape = lora_settings(study)
        return ModelTuning(settings, lora=shape), _limits(study, settings)
    settings = model_tuning_settings(study)
    start = _start(making.ledger, cell) if cell.parents else None
    return ModelTuning(settings, start=start), _limits(study, settings)


def make_space(making: Making, cell: StudyCell) -> None:
    """SharPT's source training on all sources, or the space of an ablation without it."""
    from softprompt.methods.sharpt.relations import relations, task_encodings
    from softprompt.methods.sharpt.space import load_space
    from softprompt.methods.sharpt.train import train_space, tuned_share, untrained_space

    ablation, seed = str(cell.spec.get("ablation", "none")), int(cell.spec["seed"])
    study, backbone, folder = making.study, making.backbone, making.folder / cell.key[:16]
    recipe, encoder = sharpt_settings(study, ablation), making.loaded.encoder(study)
    names = _tasks(study)
    sources = [making.data(task, recipe.source) for task in names]
    result: dict[str, Any]
    if ablation in SHARPT_UNTRAINED:
        space = untrained_space(backbone, encoder, sources, recipe, seed=seed)
        result = {"status": "untrained", "steps": 0, "seconds": 0.0, "tokens": 0, "eval_tokens": 0}
    elif (held := _trained_before(making.ledger, cell)) is not None:
        space = load_space(making.ledger.path(held.kind, held.key) / "space")
        result = {name: value for name, value in held.result.items() if name != "relations"}
    else:
        (trained,) = train_space(
            backbone,
            encoder,
            sources,
            recipe,
            seeds=[seed],
            folder=folder / "run",
            resume=True,
            observer=making.observe,
        )
        space, result = trained.space, plain_result(trained.result)
    result["tuned_parameters"] = 0 if not result["steps"] else int(tuned_share(space, backbone)["source"])
    shutil.rmtree(folder / "space", ignore_errors=True)  # of a run that was killed before it was recorded
    space.save(folder / "space")
    files = {f"space/{name}": (folder / "space" / name).read_bytes() for name in _SPACE_FILES}
    if space.skill_count and result["steps"]:
        every = list(dict.fromkeys([*names, *study.targets]))
        rows = {name: making.data(name, recipe.target) for name in every}
        encodings = {name: task_encodings(encoder, space, own.task, own.train.examples) for name, own in rows.items()}
        found = relations(space.prompter(backbone, encoder), encodings, encodings)
        result["relations"] = {"tasks": every, "cosine": found.cosine_AB.tolist()}
    story = {**making.provenance, "cell": cell.name, "seconds": result["seconds"]}
    making.ledger.write(cell.kind, cell.key, cell.identity, result, {}, story, files=files)


def _trained_before(ledger: Ledger, cell: StudyCell) -> Record | None:
    """A space of another study that learned the same from the sources: the targets' rows are read for its relations alone.

    One that was restored from kept lines is passed over: the lines hold no tensors of a space.
    """
    learned = _learned(cell.identity)
    held = [key for key in sorted(ledger.keys(cell.kind)) if (ledger.path(cell.kind, key) / "space").is_dir()]
    records = (ledger.read(cell.kind, key) for key in held)
    return next((record for record in records if _learned(record.identity) == learned), None)


def _learned(identity: Mapping[str, Any]) -> str:
    """Key of what a space's source training depends on, of its cell's identity."""
    return key_of({name: value for name, value in identity.items() if name != "targets"})


def _tasks(study: Study) -> list[str]:
    names = list(dict.fromkeys(task for source in study.sources for task in study.tasks_of(source)))
    if not names:
        raise UsageError(f"study '{study.name}' has no source task to learn a latent space from.")
    return names


def make_union(making: Making, cell: StudyCell) -> None:
    """Tune all weights on the sources together, mixed examples-proportionally, and keep the last weights."""
    from softprompt.tasks.mixture import proportional_rates
    from softprompt.training.data import mixed_run
    from softprompt.training.weights.tune import tune_model

    settings = union_settings(making.study)
    parts = [making.data(str(task), _limits(making.study, settings)) for task in cell.spec["tasks"]]
    rates = proportional_rates([len(part.train) for part in parts])
    run = mixed_run(f"multitask-{cell.key[:24]}", int(cell.spec["seed"]), parts, rates, settings)
    tuned = tune_model(
        making.backbone, run, settings, making.folder / cell.key[:16], keep_final=True, resume=True,
        observer=making.observe,
    )  # fmt: skip
    assert tuned.last is not None
    result = {**plain_result(tuned), "watched": str(cell.spec["tasks"][0])}
    making.write(cell, result, _kept(tuned.last), making.story(cell, tuned.seconds, tuned.evidence))


def _limits(study: Study, settings: TuneSettings) -> TrainSettings:
    return study.target.having(max_input_tokens=settings.max_input_tokens, max_target_tokens=settings.max_target_tokens)


def _kept(final: ModelState) -> dict[str, Any]:
    import torch

    weights = {f"weight.{name}": tensor.to(torch.bfloat16) for name, tensor in final.weights.items()}
    return {**weights, **{f"moment.{name}": tensor for name, tensor in final.moments.items()}}


def _start(ledger: Ledger, cell: StudyCell) -> ModelState:
    """The weights of the parent, float32, and its optimiser's moments, as T5X carries them along."""
    from softprompt.training.weights.tuned import state_of

    kind, key = cell.parents[0]
    tensors = {name: tensor.float() for name, tensor in ledger.tensors(kind, key).items()}
    return state_of(tensors, int(ledger.read(kind, key).result["steps"]))
