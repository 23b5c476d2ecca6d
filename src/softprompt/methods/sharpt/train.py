"""Source training of a latent space, on the one trainer (SharPT sections 2 and 3); a target's is in ``method.py``.

Letters: N runs, S reference rows, m encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt import artifacts
from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.recipes import SharPTRecipe
from softprompt.methods.sharpt.space import Space, generator_names
from softprompt.methods.sharpt.start import start_space
from softprompt.methods.sharpt.union import drawn_rows, names_of, reference_encodings, union_of
from softprompt.methods.sharpt.use import SkillUse, SkillWatch, skill_use
from softprompt.prompts.latent import LatentPrompts, without_name
from softprompt.training.data import TaskData
from softprompt.training.loop import Observer, train_prompts
from softprompt.training.runs import Run, RunResult
from softprompt.training.settings import TrainSettings

SKILL_USE_FILE = "skill_use.jsonl"


@dataclass(frozen=True, kw_only=True)
class TrainedSpace:
    """A latent space from source training, for one seed.

    Attributes:
        space: what is saved and adapted.
        result: of its training; scores are means over the sources' validation rows.
        use: skill use on the reference rows at the end; None without a latent space.
        history: skill use in the course of training, one record a measurement.
    """

    space: Space
    result: RunResult
    use: SkillUse | None
    history: Sequence[Mapping[str, Any]] = ()


def train_space(
    backbone: Backbone,
    encoder: CachedEncoder,
    sources: Sequence[TaskData],
    recipe: SharPTRecipe,
    *,
    seeds: Sequence[int] = (0,),
    name: str = "space",
    folder: Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> list[TrainedSpace]:
    """Learn E and the generator on the plain union of source tasks (Eq. 5): every row is as likely as any other.

    Args:
        backbone: frozen.
        encoder: frozen.
        sources: the source tasks, tokenised with ``recipe.source``.
        recipe: settings.
        seeds: one space each, trained together.
        name: of the spaces; the seed is added where there are several.
        folder: run directory, as of ``train_prompts``; ``skill_use.jsonl`` is added to it.
        resume: continue what the folder holds.
        observer: told of every step.

    Raises:
        UsageError: no source, or more skills than source rows at a k-means start.
    """
    prompts, reference_Sm = _fresh(backbone, encoder, sources, recipe, seeds)
    names = [name if len(seeds) == 1 else f"{name}-seed{seed}" for seed in seeds]
    history: list[dict[str, Any]] = []
    watch = prompts.watch = SkillWatch(
        reference_Sm, names=names, every=recipe.watch_every, last=recipe.source.steps, log=_logger(history, folder)
    )
    runs = _union_runs(backbone, sources, recipe.source, names, seeds)
    costs = [encode_run(encoder, run, recipe.source, prompts.task_names) for run in runs]
    start_use = watch.measured(prompts, 0)  # also where it resumes: the start is the same
    results = train_prompts(
        backbone, prompts, runs, recipe.source, folder, resume=resume, observer=observer,
        extra_identity={"sharpt": "source", **_identity(recipe), "encoder": encoder.fingerprint},
    )  # fmt: skip
    for result, cost in zip(results, costs, strict=True):
        result.encoder_tokens = cost
    for record in start_use:
        watch.log(record)
    records = skill_history(folder) if folder is not None else sorted(history, key=lambda record: record["step"])
    return [
        _trained(backbone, prompts, n, result, sources, recipe, reference_Sm, records)
        for n, result in enumerate(results)
    ]


def _union_runs(
    backbone: Backbone, sources: Sequence[TaskData], settings: TrainSettings, names: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """A run a seed on the plain union of the sources."""
    union, validation = union_of(backbone, sources, settings)
    train = tuple(source.train for source in sources)
    rates = tuple(float(len(part)) for part in train)
    return [
        Run(name=name, seed=seed, train=train, rates=rates, task=union, validation=validation)
        for name, seed in zip(names, seeds, strict=True)
    ]


def untrained_space(
    backbone: Backbone,
    encoder: CachedEncoder,
    sources: Sequence[TaskData],
    recipe: SharPTRecipe,
    *,
    seed: int = 0,
    name: str = "untrained",
) -> Space:
    """The ablations without source training: E and the generator as they start. ``adapt`` then keeps E frozen there.

    Of the sources it has at most where E starts (k-means centres of their texts), never a label.
    """
    prompts, _ = _fresh(backbone, encoder, sources, recipe, [seed])
    training = {"seed": seed, "steps": 0, "data": fingerprints(sources), **_identity(recipe)}
    return Space.of(prompts, backbone, name=name, kind="space", training=training)


def encode_run(encoder: CachedEncoder, run: Run, settings: TrainSettings, task_names: Sequence[str]) -> int:
    """Encodes the rows a run will need, beforehand: long batches are fast, and processes that share a sharded backbone
    encode in step.

    Returns:
        Tokens the encoder reads for it: each training row that is drawn once, and the selecting validation rows (all,
        where none are named). A share of them may have come from a cache; a run alone would have paid for all.
    """
    drawn, validation = drawn_rows(run, settings), list(run.validation.examples)
    encoder.precompute(drawn, task_names)
    encoder.precompute(validation, task_names)
    chosen = validation if run.select_rows is None else [validation[int(i)] for i in run.select_rows]
    return sum(encoder.lengths([without_name(row.inputs, task_names) for row in (*drawn, *chosen)]))


def skill_history(folder: Path) -> list[dict[str, Any]]:
    """The measurements of skill use in a run directory, by step; what a resumed training measured again counts once."""
    path = folder / SKILL_USE_FILE
    records = {(r["run"], r["step"]): r for r in artifacts.read_json_lines(path)} if path.exists() else {}
    return sorted(records.values(), key=lambda r: (r["run"], r["step"]))


def tuned_share(space: Space, backbone: Backbone) -> dict[str, float]:
    """Parameters tuned on sources and on a target, and their percent of the backbone's (the paper: about 0.1 to 0.3)."""
    generator = sum(space.tensors[name].numel() for name in generator_names(space.tensors))
    skills = space.tensors["skills"].numel() if "skills" in space.tensors else 0
    return {
        "source": generator + skills,
        "target": generator,
        "source_percent": 100 * (generator + skills) / backbone.parameter_count,
        "target_percent": 100 * generator / backbone.parameter_count,
    }


def _fresh(
    backbone: Backbone, encoder: CachedEncoder, sources: Sequence[TaskData], recipe: SharPTRecipe, seeds: Sequence[int]
) -> tuple[LatentPrompts, Tensor]:
    if not sources:
        raise UsageError("no source task was given; name at least one.")
    task_names = () if recipe.named else names_of(source.task for source in sources)
    reference_Sm = reference_encodings(encoder, sources, recipe.reference_rows, task_names)
    prompts = start_space(
        backbone, encoder, reference_Sm, seeds, prompt_length=recipe.source.prompt_length,
        rate=recipe.source.resolved(backbone).rate, latent=recipe.latent, start=recipe.start,
    )  # fmt: skip
    prompts.task_names = task_names
    return prompts, reference_Sm


def _trained(
    backbone: Backbone,
    prompts: LatentPrompts,
    run: int,
    result: RunResult,
    sources: Sequence[TaskData],
    recipe: SharPTRecipe,
    reference_Sm: Tensor,
    records: Sequence[Mapping[str, Any]],
) -> TrainedSpace:
    chosen = result.best if recipe.source_checkpoint == "best" and result.best else result.final
    own = prompts.keep([run])
    own.load({name: t[None].to(own.tensors[name].device) for name, t in chosen.items()})
    use = skill_use(own, reference_Sm) if recipe.latent.latent_space else None
    training = {
        **_identity(recipe), "data": fingerprints(sources), **result.plain(),
        "skill_use": None if use is None else use.plain(),
    }  # fmt: skip
    space = Space.of(own, backbone, name=result.name, kind="space", training=training)
    history = [record for record in records if record["run"] == result.name]
    return TrainedSpace(space=space, result=result, use=use, history=history)


def _identity(recipe: SharPTRecipe) -> dict[str, Any]:
    return {"recipe": asdict(recipe)}


def fingerprints(sources: Sequence[TaskData]) -> dict[str, str]:
    """Of the training rows of tasks, by name."""
    return {f"{s.task.name}/train": s.train.fingerprint for s in sources}


def _logger(history: list[dict[str, Any]], folder: Path | None) -> Callable[[dict[str, Any]], None]:
    def log(record: dict[str, Any]) -> None:
        history.append(record)
        if folder is not None and parallel.is_main():
            artifacts.append_json_line(folder / SKILL_USE_FILE, record)

    return log
