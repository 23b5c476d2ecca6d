"""Source training of a latent space and target training of its generator, on the one trainer (SharPT sections 2 and 3).

Letters: N runs, S reference rows, m encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from softprompt import artifacts
from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.recipes import SharPTRecipe
from softprompt.methods.sharpt.space import Space, check_belongs, generator_names
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


@dataclass(frozen=True, kw_only=True)
class AdaptedPrompt:
    """The generator tuned on one target task with one seed.

    Attributes:
        task: name of the target task.
        seed: of the run.
        space: kind ``prompt``; the best checkpoint by validation.
        result: of its training.
    """

    task: str
    seed: int
    space: Space
    result: RunResult

    def __repr__(self) -> str:
        return f"<AdaptedPrompt {self.space.name}: task {self.task}, seed {self.seed}>"


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
    prompts.watch = SkillWatch(
        reference_Sm, names=names, every=recipe.watch_every, last=recipe.source.steps, log=_logger(history, folder)
    )
    union, validation = union_of(backbone, sources, recipe.source)
    runs = [
        Run(
            name=run_name,
            seed=seed,
            train=tuple(source.train for source in sources),
            rates=tuple(float(len(source.train)) for source in sources),
            task=union,
            validation=validation,
        )
        for run_name, seed in zip(names, seeds, strict=True)
    ]
    costs = [_encode(encoder, run, recipe.source, prompts.task_names) for run in runs]
    start_use = prompts.watch.measured(prompts, 0)  # also where it resumes: the start is the same
    results = train_prompts(
        backbone, prompts, runs, recipe.source, folder, resume=resume, observer=observer,
        extra_identity={"sharpt": "source", **_identity(recipe), "encoder": encoder.fingerprint},
    )  # fmt: skip
    for result, cost in zip(results, costs, strict=True):
        result.encoder_tokens = cost
    for record in start_use:
        prompts.watch.log(record)
    records = skill_history(folder) if folder is not None else sorted(history, key=lambda record: record["step"])
    return [
        _trained(backbone, prompts, n, result, sources, recipe, reference_Sm, records)
        for n, result in enumerate(results)
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
    training = {"seed": seed, "steps": 0, "data": _fingerprints(sources), **_identity(recipe)}
    return Space.of(prompts, backbone, name=name, kind="space", training=training)


def adapt(
    backbone: Backbone,
    encoder: CachedEncoder,
    space: Space,
    targets: Sequence[TaskData],
    settings: TrainSettings,
    *,
    seeds: Sequence[int] = (0,),
    folder: Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    select_rows: Sequence[np.ndarray | None] | None = None,
    report_rows: Sequence[np.ndarray | None] | None = None,
) -> list[AdaptedPrompt]:
    """Tune the generator on target tasks with E frozen (Eq. 3); all tasks and seeds train together as separate runs.

    Args:
        backbone: frozen; the one the space was trained on.
        encoder: frozen; the one the space was trained with.
        space: from ``train_space`` (or ``untrained_space``).
        targets: the target tasks, tokenised with ``settings``.
        settings: of target training; its prompt_length must be the space's.
        seeds: of each target.
        folder: run directory, as of ``train_prompts``.
        resume: continue what the folder holds.
        observer: told of every step.
        select_rows: for each target the validation rows that choose its checkpoint; None for all of them.
        report_rows: likewise those its scores and predictions are of.

    Returns:
        One prompt a target and seed, targets outermost; its predictions are of the reporting rows.

    Raises:
        UsageError: no target, another prompt_length, or a target whose training rows have one class.
        IncompatibleBackboneError: another backbone or encoder.
    """
    made = adaptation(
        backbone, encoder, space, targets, settings, seeds=seeds, select_rows=select_rows, report_rows=report_rows
    )
    results = train_prompts(
        backbone, made.prompts, made.runs, settings, folder, resume=resume, observer=observer,
        extra_identity=dict(made.identity),
    )  # fmt: skip
    return made.adapted(backbone, results)


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Target runs on a space, ready to be trained as one group, and what makes prompts of their results.

    Attributes:
        prompts: one run a target and seed, its generator tuned and E frozen.
        runs: in the same order, targets outermost.
        identity: plain JSON for ``train_prompts``'s ``extra_identity``.
        space: the space they start from.
        targets: the target of each run.
        encoder_tokens: what each run's instance encodings cost, positions of the encoder's forward pass.
    """

    prompts: LatentPrompts
    runs: tuple[Run, ...]
    identity: Mapping[str, Any]
    space: Space
    targets: tuple[TaskData, ...]
    encoder_tokens: tuple[int, ...]

    def adapted(self, backbone: Backbone, results: Sequence[RunResult]) -> list[AdaptedPrompt]:
        """The adapted prompt of each run: its best checkpoint. Adds the encoder's tokens to the results."""
        made = []
        for n, (target, run, result) in enumerate(zip(self.targets, self.runs, results, strict=True)):
            result.encoder_tokens = self.encoder_tokens[n]
            training = {
                "task": target.task.name, "space": self.space.name, "space_sha256": self.identity["space"],
                "data": _fingerprints([target]), **result.plain(),
            }  # fmt: skip
            space = Space.of(
                self.prompts, backbone, name=run.name, kind="prompt", run=n, tensors=result.best or result.final,
                training=training, wording=None if target.task.wording is None else target.task.wording.record(),
            )  # fmt: skip
            made.append(AdaptedPrompt(task=target.task.name, seed=run.seed, space=space, result=result))
        return made


def adaptation(
    backbone: Backbone,
    encoder: CachedEncoder,
    space: Space,
    targets: Sequence[TaskData],
    settings: TrainSettings,
    *,
    seeds: Sequence[int] = (0,),
    select_rows: Sequence[np.ndarray | None] | None = None,
    report_rows: Sequence[np.ndarray | None] | None = None,
) -> Adaptation:
    """The runs of ``adapt`` before they are trained, for a caller that trains groups of its own; see ``adapt``.

    Raises:
        UsageError: no target, another prompt_length, or a target whose training rows have one class.
        IncompatibleBackboneError: another backbone or encoder.
    """
    check_belongs(space, backbone, encoder)
    if not targets:
        raise UsageError("no target task was given; name at least one.")
    if settings.prompt_length != space.prompt_length:
        raise UsageError(
            f"prompt_length {settings.prompt_length} was asked for, and the generator of {space.name!r} makes "
            f"{space.prompt_length} tokens; set prompt_length to {space.prompt_length}."
        )
    for target in targets:
        check_classes(target)
    every = [None] * len(targets)
    cells = [
        (target, rows, seed)
        for target, *rows in zip(targets, select_rows or every, report_rows or every, strict=True)
        for seed in seeds
    ]
    runs = [
        target.run(f"{target.task.name}-seed{seed}", seed, select_rows=select, report_rows=report)
        for target, (select, report), seed in cells
    ]
    task_names = (*space.task_names, *names_of(target.task for target in targets)) if space.task_names else ()
    return Adaptation(
        prompts=space.prompter(
            backbone, encoder, runs=len(runs), tuned=True, keys=[run.name for run in runs], task_names=task_names
        ),
        runs=tuple(runs),
        identity={
            "sharpt": "target",
            "space": artifacts.sha256_bytes(artifacts.tensor_bytes(space.tensors)),
            "encoder": encoder.fingerprint,
            "settings": asdict(settings),
            "task_names": sorted(set(task_names)),
        },
        space=space,
        targets=tuple(target for target, _, _ in cells),
        encoder_tokens=tuple(_encode(encoder, run, settings, task_names) for run in runs),
    )


def _encode(encoder: CachedEncoder, run: Run, settings: TrainSettings, task_names: Sequence[str]) -> int:
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


def check_classes(target: TaskData) -> None:
    """Refuses a target whose training rows all have the same label.

    Raises:
        UsageError: with the label and the number of rows.
    """
    if not target.task.labels or len(target.task.labels) < 2:
        return
    answers = {example.targets for example in target.train.examples}
    if len(answers) == 1:
        rows = f"{len(target.train)} training row{'s' if len(target.train) > 1 else ''}"
        raise UsageError(
            f"target task {target.task.name!r} has {rows}, all of the class {answers.pop()!r}; "
            f"give rows of at least two of its classes ({', '.join(target.task.labels)})."
        )


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
        **_identity(recipe), "data": _fingerprints(sources), **result.plain(),
        "skill_use": None if use is None else use.plain(),
    }  # fmt: skip
    space = Space.of(own, backbone, name=result.name, kind="space", training=training)
    history = [record for record in records if record["run"] == result.name]
    return TrainedSpace(space=space, result=result, use=use, history=history)


def _identity(recipe: SharPTRecipe) -> dict[str, Any]:
    return {"recipe": asdict(recipe)}


def _fingerprints(sources: Sequence[TaskData]) -> dict[str, str]:
    return {f"{s.task.name}/train": s.train.fingerprint for s in sources}


def _logger(history: list[dict[str, Any]], folder: Path | None) -> Callable[[dict[str, Any]], None]:
    def log(record: dict[str, Any]) -> None:
        history.append(record)
        if folder is not None and parallel.is_main():
            artifacts.append_json_line(folder / SKILL_USE_FILE, record)

    return log
