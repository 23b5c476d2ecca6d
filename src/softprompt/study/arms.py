"""Other methods as cells of a study, on the same tasks and rows: SharPT's latent space and model tuning.

They stand in the same tables as the strategies of transfer (SharPT Tables 1 to 3). A latent space is learned from all
source tasks together, one a seed; its generator is then tuned on each target. Model tuning is in
`softprompt.study.model_arms`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import UsageError
from softprompt.study.grid import MODEL_KINDS, Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.model_arms import (
    model_tuning_settings,
    plain_result,
    record_answers,
    tune_on_target,
    tune_union,
    union_settings,
)
from softprompt.study.settings import SHARPT_UNTRAINED, Study

if TYPE_CHECKING:
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.methods.sharpt.recipes import SharPTRecipe
    from softprompt.study.runner import PromptRunner, Tell
    from softprompt.training.loop import Progress

ARM_KINDS = ("latent_space", "latent_transfer", *MODEL_KINDS)
_SPACE_FILES = ("manifest.json", "space.safetensors")


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
            eval_every=others.eval_every, max_input_tokens=others.max_input_tokens,
        )
        for part, steps, others in (
            (found.source, study.sharpt.source_steps, study.source),
            (found.target, study.sharpt.target_steps, study.target),
        )
    )  # fmt: skip
    start = replace(found.start, skill_count=study.sharpt.skills) if study.sharpt.skills else found.start
    return replace(found, source=source, target=target, start=start).ablated(ablation)  # type: ignore[arg-type]


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
    elif pack.kind == "multitask_tuning":
        for cell in pack.cells:
            tune_union(runner, study, cell, ledger, folder / cell.key[:16], provenance, observe)
    else:
        for cell in pack.cells:
            tune_on_target(runner, study, pack, cell, ledger, folder / cell.key[:16], provenance, observe)


def encoder_of(runner: PromptRunner, study: Study) -> CachedEncoder:
    """The instance encoder, its encodings kept in memory; loaded once a process."""
    key = study.backbone, study.dtype, study.sharpt.encoder
    if key not in runner.encoders:
        from softprompt.methods.sharpt.cache import CachedEncoder
        from softprompt.methods.sharpt.encoders import load_encoder

        runner.encoders[key] = CachedEncoder(load_encoder(study.sharpt.encoder, runner.backbone(study)))
    found: CachedEncoder = runner.encoders[key]
    return found


def _space(
    runner: PromptRunner, study: Study, cell: StudyCell, ledger: Ledger, folder: Path, provenance: Mapping[str, Any],
    observe: Any,
) -> None:  # fmt: skip
    from softprompt.methods.sharpt.relations import relations, task_encodings
    from softprompt.methods.sharpt.train import train_space, tuned_share, untrained_space

    ablation, seed = str(cell.spec.get("ablation", "none")), int(cell.spec["seed"])
    recipe, encoder, backbone = sharpt_settings(study, ablation), encoder_of(runner, study), runner.backbone(study)
    names = _tasks(study)
    sources = [runner.data(study, task, recipe.source) for task in names]
    result: dict[str, Any]
    if ablation in SHARPT_UNTRAINED:
        space = untrained_space(backbone, encoder, sources, recipe, seed=seed)
        result = {"status": "untrained", "steps": 0, "seconds": 0.0, "tokens": 0, "eval_tokens": 0}
    else:
        (trained,) = train_space(
            backbone, encoder, sources, recipe, seeds=[seed], folder=folder / "run", resume=True, observer=observe
        )
        space, result = trained.space, plain_result(trained.result.plain())
    result["tuned_parameters"] = 0 if not result["steps"] else int(tuned_share(space, backbone)["source"])
    shutil.rmtree(folder / "space", ignore_errors=True)  # of a run that was killed before it was recorded
    space.save(folder / "space")
    files = {f"space/{name}": (folder / "space" / name).read_bytes() for name in _SPACE_FILES}
    if space.skill_count and result["steps"]:
        every = list(dict.fromkeys([*names, *study.targets]))
        rows = {name: runner.data(study, name, recipe.target) for name in every}
        encodings = {name: task_encodings(encoder, space, own.task, own.train.examples) for name, own in rows.items()}
        found = relations(space.prompter(backbone, encoder), encodings, encodings)
        result["relations"] = {"tasks": every, "cosine": found.cosine_AB.tolist()}
    story = {**provenance, "cell": cell.name, "seconds": result["seconds"]}
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
    from softprompt.methods.sharpt.space import load_space
    from softprompt.methods.sharpt.train import adapt, tuned_share
    from softprompt.study.runner import selecting_rows

    recipe = sharpt_settings(study, str(pack.cells[0].spec.get("ablation", "none")))
    encoder, backbone = encoder_of(runner, study), runner.backbone(study)
    kind, key = pack.cells[0].parents[0]
    ledger.read(kind, key)
    space = load_space(ledger.path(kind, key) / "space")
    targets = [runner.data(study, str(cell.spec["target"]), recipe.target) for cell in pack.cells]
    seed = int(pack.cells[0].spec["seed"])  # a pack holds the targets of one space, hence of one seed
    adapted = adapt(
        backbone, encoder, space, targets, recipe.target, seeds=[seed], folder=folder, resume=True, observer=observe,
        select_rows=[selecting_rows(study, target) for target in targets],
    )  # fmt: skip
    for cell, target, made in zip(pack.cells, targets, adapted, strict=True):
        story = {**provenance, "cell": cell.name, "seconds": made.result.seconds, "evidence": made.result.evidence}
        run = target.run("evaluation", seed)
        record_answers(runner, study, pack, cell, run, made.result.predictions, ledger, story)
        tensors = {f"best.{name}": tensor for name, tensor in made.space.tensors.items()}
        result = {**plain_result(made.result.plain()), "tuned_parameters": int(tuned_share(space, backbone)["target"])}
        ledger.write(cell.kind, cell.key, cell.identity, result, tensors, story)


def _tasks(study: Study) -> list[str]:
    names = list(dict.fromkeys(task for source in study.sources for task in study.tasks_of(source)))
    if not names:
        raise UsageError(f"study '{study.name}' has no source task to learn a latent space from.")
    return names


def identity_of(study: Study, kind: str, ablation: str = "none") -> dict[str, Any]:
    """What an arm's cells depend on besides data, seed and parents."""
    if kind in MODEL_KINDS:
        settings = union_settings(study) if kind == "multitask_tuning" else model_tuning_settings(study)
        return {"settings": {name: value for name, value in asdict(settings).items() if name != "micro_batch_tokens"}}
    recipe = asdict(sharpt_settings(study, ablation))
    for part in ("source", "target"):
        recipe[part] = {
            name: v for name, v in recipe[part].items() if name not in ("embedding_step", "micro_batch_tokens")
        }
    if kind == "latent_space":
        del recipe["target"]
    return {"recipe": recipe, "encoder": study.sharpt.encoder}
