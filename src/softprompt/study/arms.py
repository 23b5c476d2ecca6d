"""Other methods as cells of a study, on the same tasks and rows: SharPT's latent space and model tuning.

They stand in the same tables as the strategies of transfer (SharPT Tables 1 and 2). A latent space is learned from all
source tasks together, one a seed; its generator is then tuned on each target. Model tuning tunes all weights, and only
its answers are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import UsageError
from softprompt.study.grid import Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.settings import Study

if TYPE_CHECKING:
    from softprompt.baselines.tune_settings import TuneSettings
    from softprompt.sharpt.cache import CachedEncoder
    from softprompt.sharpt.recipes import SharPTRecipe
    from softprompt.study.runner import PromptRunner, Tell
    from softprompt.training.loop import Progress

ARM_KINDS = ("latent_space", "latent_transfer", "model_tuning")
_SPACE_FILES = ("manifest.json", "space.safetensors")


def sharpt_settings(study: Study) -> SharPTRecipe:
    """The study's SharPT recipe, its training settings replaced where the study says so."""
    from softprompt.sharpt.recipes import sharpt_recipe

    found = sharpt_recipe(study.sharpt.recipe)
    length = study.sharpt.prompt_length or found.source.prompt_length
    source = found.source.having(prompt_length=length, steps=study.sharpt.source_steps or found.source.steps)
    target = found.target.having(prompt_length=length, steps=study.sharpt.target_steps or found.target.steps)
    start = replace(found.start, skill_count=study.sharpt.skills) if study.sharpt.skills else found.start
    return replace(found, source=source, target=target, start=start)


def model_tuning_settings(study: Study) -> TuneSettings:
    """The study's settings of model tuning."""
    from softprompt.baselines.tune_settings import tune_recipe

    changes = {"steps": study.model_tuning.steps} if study.model_tuning.steps else {}
    return tune_recipe(study.model_tuning.recipe, **changes)


def make_arm(
    runner: PromptRunner, study: Study, pack: Pack, ledger: Ledger, folder: Path, provenance: Mapping[str, Any],
    tell: Tell | None,
) -> None:  # fmt: skip
    """Make the cells of one of `ARM_KINDS`."""

    def observe(progress: Progress) -> None:
        if tell is not None:
            tell(progress.step, progress.steps)

    if pack.kind == "latent_space":
        for cell in pack.cells:
            _space(runner, study, cell, ledger, folder / cell.key[:16], provenance, observe)
    elif pack.kind == "latent_transfer":
        _adapt(runner, study, pack, ledger, folder, provenance, observe)
    else:
        for cell in pack.cells:
            _model(runner, study, pack, cell, ledger, folder / cell.key[:16], provenance)


def encoder_of(runner: PromptRunner, study: Study) -> CachedEncoder:
    """The instance encoder, its encodings kept in memory; loaded once a process."""
    key = study.backbone, study.dtype, study.sharpt.encoder
    if key not in runner.encoders:
        from softprompt.sharpt.cache import CachedEncoder
        from softprompt.sharpt.encoders import load_encoder

        runner.encoders[key] = CachedEncoder(load_encoder(study.sharpt.encoder, runner.backbone(study)))
    found: CachedEncoder = runner.encoders[key]
    return found


def _space(
    runner: PromptRunner, study: Study, cell: StudyCell, ledger: Ledger, folder: Path, provenance: Mapping[str, Any],
    observe: Any,
) -> None:  # fmt: skip
    from softprompt.sharpt.relations import relations
    from softprompt.sharpt.train import train_space

    recipe, encoder, backbone = sharpt_settings(study), encoder_of(runner, study), runner.backbone(study)
    names = _tasks(study)
    sources = [runner.data(study, task, recipe.source) for task in names]
    (trained,) = train_space(
        backbone,
        encoder,
        sources,
        recipe,
        seeds=[int(cell.spec["seed"])],
        folder=folder / "run",
        resume=True,
        observer=observe,
    )
    shutil.rmtree(folder / "space", ignore_errors=True)  # of a run that was killed before it was recorded
    trained.space.save(folder / "space")
    files = {f"space/{name}": (folder / "space" / name).read_bytes() for name in _SPACE_FILES}
    result = _plain(trained.result.plain())
    if trained.space.skill_count:
        every = list(dict.fromkeys([*names, *study.targets]))
        encodings = {name: encoder.precompute(runner.data(study, name, recipe.target).train) for name in every}
        found = relations(trained.space.prompter(backbone, encoder), encodings, encodings)
        result["relations"] = {"tasks": every, "cosine": found.cosine_AB.tolist()}
    story = {**provenance, "cell": cell.name, "seconds": trained.result.seconds}
    ledger.write(cell.kind, cell.key, cell.identity, result, {}, story, files=files)


def _adapt(
    runner: PromptRunner,
    study: Study,
    pack: Pack,
    ledger: Ledger,
    folder: Path,
    provenance: Mapping[str, Any],
    observe: Any,
) -> None:
    from softprompt.sharpt.space import load_space
    from softprompt.sharpt.train import adapt

    recipe, encoder, backbone = sharpt_settings(study), encoder_of(runner, study), runner.backbone(study)
    kind, key = pack.cells[0].parents[0]
    ledger.read(kind, key)
    space = load_space(ledger.path(kind, key) / "space")
    targets = [runner.data(study, str(cell.spec["target"]), recipe.target) for cell in pack.cells]
    seed = int(pack.cells[0].spec["seed"])  # a pack holds the targets of one space, hence of one seed
    adapted = adapt(
        backbone, encoder, space, targets, recipe.target, seeds=[seed], folder=folder, resume=True, observer=observe
    )
    for cell, target, made in zip(pack.cells, targets, adapted, strict=True):
        story = {**provenance, "cell": cell.name, "seconds": made.result.seconds, "evidence": made.result.evidence}
        run = target.run("evaluation", seed)
        _evaluation(runner, study, pack, cell, run, made.result.predictions, ledger, story)
        tensors = {f"best.{name}": tensor for name, tensor in made.space.tensors.items()}
        ledger.write(cell.kind, cell.key, cell.identity, _plain(made.result.plain()), tensors, story)


def _model(
    runner: PromptRunner,
    study: Study,
    pack: Pack,
    cell: StudyCell,
    ledger: Ledger,
    folder: Path,
    provenance: Mapping[str, Any],
) -> None:
    from softprompt.baselines.model_tuning import tune_model
    from softprompt.study.runner import selecting_rows

    settings = model_tuning_settings(study)
    limits = study.target.having(
        max_input_tokens=settings.max_input_tokens, max_target_tokens=settings.max_target_tokens
    )
    data = runner.data(study, str(cell.spec["target"]), limits)
    select = selecting_rows(study, len(data.validation))
    run = data.run(f"model-{cell.key[:24]}", int(cell.spec["seed"]), select_rows=select)
    tuned = tune_model(runner.backbone(study), run, settings, folder, resume=True)
    story = {**provenance, "cell": cell.name, "seconds": tuned.seconds, "evidence": tuned.evidence}
    _evaluation(runner, study, pack, cell, run, tuned.predictions, ledger, story)
    ledger.write(cell.kind, cell.key, cell.identity, _plain(tuned.plain()), {}, story)


def _evaluation(
    runner: PromptRunner, study: Study, pack: Pack, cell: StudyCell, run: Any, predictions: Sequence[str], ledger: Ledger,
    story: Mapping[str, Any],
) -> None:  # fmt: skip
    for child in pack.made:
        if child.made_by == cell.id and child.kind == "evaluation" and predictions:
            ledger.write(child.kind, child.key, child.identity, runner.halves(study, run, predictions), {}, story)


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("predictions", "name", "evidence")}


def _tasks(study: Study) -> list[str]:
    names = list(dict.fromkeys(task for source in study.sources for task in study.tasks_of(source)))
    if not names:
        raise UsageError(f"study '{study.name}' has no source task to learn a latent space from.")
    return names


def identity_of(study: Study, kind: str) -> dict[str, Any]:
    """What an arm's cells depend on besides data, seed and parents."""
    if kind == "model_tuning":
        plain = asdict(model_tuning_settings(study))
        return {"settings": {name: value for name, value in plain.items() if name != "micro_batch_tokens"}}
    recipe = asdict(sharpt_settings(study))
    for part in ("source", "target"):
        recipe[part] = {
            name: v for name, v in recipe[part].items() if name not in ("embedding_step", "micro_batch_tokens")
        }
    if kind == "latent_space":
        del recipe["target"]
    return {"recipe": recipe, "encoder": study.sharpt.encoder}
