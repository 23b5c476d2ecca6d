"""Building the grid of a study: which cells there are, and what goes into each one's identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from softprompt.methods.spot.predictor_names import tuning_steps
from softprompt.methods.spot.race import race_steps
from softprompt.study.grid import TARGET_KINDS, Facts, Grid, StudyCell
from softprompt.study.settings import SHARPT_UNTRAINED, Study
from softprompt.training.settings import TrainSettings

# What cannot change a training's result beyond float tolerance, or is no part of the training.
_NOT_TRAINING = ("embedding_step", "micro_batch_tokens")
# What cannot change the prompt at an early step.
_NOT_EMBEDDING = (*_NOT_TRAINING, "steps", "eval_every", "eval_rows", "patience")


def build_grid(study: Study, facts: Facts) -> Grid:
    """Every cell of a study."""
    grid = Grid(study, facts)
    if "transfer" in study.tuned:
        for seed in study.seeds:
            for source in study.sources:
                _source(grid, source, seed)
    if "scratch" in study.tuned:
        _baselines(grid)
    if "transfer" in study.tuned:
        _transfers(grid)
    _predictions(grid)
    _races(grid)
    _latents(grid)
    _tuned_strategies(grid)  # mixtures last but one: a study that is stopped has its cheaper answers
    _model_tunings(grid)
    return grid


def _baselines(grid: Grid) -> None:
    study = grid.study
    for target in study.targets:
        for seed in (*study.seeds, *study.further_seeds):
            cell = _target(grid, "baseline", f"{target}.{seed}", target, seed, {"init": "class-labels"}, [], {})
            if seed in study.seeds:
                _embeddings(grid, "target", target, seed, cell)


def _transfers(grid: Grid) -> None:
    study = grid.study
    for seed in study.seeds:
        for source in study.sources:
            for target in study.targets:
                parent = grid.named("source", f"{source}.{seed}")
                name = f"{source}.{seed}>{target}.{seed}"
                start = {"source": parent.key}
                _target(grid, "transfer", name, target, seed, start, [parent], {"source": source, "source_seed": seed})


def _source_tasks(grid: Grid) -> list[str]:
    study = grid.study
    return list(dict.fromkeys(task for source in study.sources for task in study.tasks_of(source)))


def _latents(grid: Grid) -> None:
    study = grid.study
    for seed in study.seeds if "sharpt" in study.methods else ():
        for ablation in ("none", *study.sharpt.ablations):
            _latent(grid, _source_tasks(grid), seed, ablation)


def _latent(grid: Grid, tasks: Sequence[str], seed: int, ablation: str) -> None:
    """SharPT's space of one seed and its targets, whole or without one of its parts."""
    from softprompt.study.recipes import identity_of, sharpt_settings

    study, recipe = grid.study, sharpt_settings(grid.study, ablation)
    # The relations of all tasks are part of the result, hence the targets' data.
    data = {"data": _data(grid, tasks), "targets": _data(grid, study.targets, validated=False), "seed": seed}
    spec: dict[str, Any] = {"seed": seed}
    label = ""
    if ablation != "none":
        data["ablation"] = spec["ablation"] = ablation
        label = f":{ablation}"
    steps = 0 if ablation in SHARPT_UNTRAINED else recipe.source.steps
    own = identity_of(study, "latent_space", ablation)
    space = grid.add("latent_space", f"space{label}.{seed}", {**data, **own}, steps=steps, spec=spec)
    for target in study.targets:
        identity = {**identity_of(study, "latent_transfer", ablation), "space": space.key}
        name = f"sharpt{label}>{target}.{seed}"
        _target(grid, "latent_transfer", name, target, seed, identity, [space], spec, steps=recipe.target.steps)


def _model_tunings(grid: Grid) -> None:
    for seed in grid.study.seeds:
        _model_tuning(grid, _source_tasks(grid), seed)


def _model_tuning(grid: Grid, tasks: Sequence[str], seed: int) -> None:
    from softprompt.study.recipes import identity_of, lora_settings, model_tuning_settings, union_settings

    study = grid.study
    identity = identity_of(study, "model_tuning")
    steps = model_tuning_settings(study).steps
    for target in study.targets if "model_tuning" in study.methods else ():
        _target(grid, "model_tuning", f"model>{target}.{seed}", target, seed, identity, [], {}, steps=steps)
    for target in study.targets if "lora" in study.methods else ():
        own = identity_of(study, "lora")
        _target(grid, "lora", f"lora>{target}.{seed}", target, seed, own, [], {}, steps=lora_settings(study)[0].steps)
    for target in study.targets if "prompt_design" in study.methods else ():
        own = identity_of(study, "prompt_design")
        _target(grid, "prompt_design", f"design>{target}.{seed}", target, seed, own, [], {}, steps=0)
    if "multitask_model_tuning" not in study.methods:
        return
    union = grid.add(
        "multitask_tuning",
        f"multitask.{seed}",
        {"data": _data(grid, tasks), **identity_of(study, "multitask_tuning"), "seed": seed},
        steps=union_settings(study).steps,
        spec={"tasks": list(tasks), "seed": seed},
    )
    for target in study.targets:
        start = {**identity, "start": union.key}
        name = f"multitask>{target}.{seed}"
        _target(grid, "multitask_model_tuning", name, target, seed, start, [union], {}, steps=steps)


def _predictions(grid: Grid) -> None:
    study = grid.study
    if not study.strategies.predictors:
        return
    sources = [grid.named("source", f"{source}.{seed}") for source in study.sources for seed in study.seeds]
    for target in study.targets:
        identity = {
            "data": _data(grid, [target], validated=False),
            "sources": [cell.key for cell in sources],
            "predictors": list(study.strategies.predictors),
            "settings": _plain(study.target, _NOT_EMBEDDING),
        }
        names = [[cell.spec["source"], cell.spec["seed"]] for cell in sources]
        spec = {"target": target, "sources": identity["sources"], "names": names, "seed": 0}
        steps = tuning_steps(study.strategies.predictors) * len(sources)
        grid.add("prediction", target, identity, parents=sources, steps=steps, spec=spec)


def _plain(settings: TrainSettings, without: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name not in without}


def _data(grid: Grid, tasks: Sequence[str], validated: bool = True) -> list[dict[str, Any]]:
    return [{"task": task, **grid.facts.data[task].identity(validated)} for task in tasks]


def _source(grid: Grid, source: str, seed: int) -> None:
    study = grid.study
    tasks = study.tasks_of(source)
    identity = {
        "data": _data(grid, tasks),
        "settings": _plain(study.source, _NOT_TRAINING),
        "init": "sampled-vocabulary",
        "seed": seed,
    }
    spec = {"source": source, "tasks": list(tasks), "seed": seed}
    cell = grid.add("source", f"{source}.{seed}", identity, steps=study.source.steps, spec=spec)
    _embeddings(grid, "source", source, seed, cell)


def _embeddings(grid: Grid, role: str, name: str, seed: int, cell: StudyCell) -> None:
    study = grid.study
    settings = study.source if role == "source" else study.target
    tasks = study.tasks_of(name) if role == "source" else (name,)
    for step in dict.fromkeys((study.embedding.step, *study.embedding.other_steps)):
        on_the_way = step <= settings.steps
        identity = {
            "data": _data(grid, tasks, validated=False),
            "settings": _plain(settings, _NOT_EMBEDDING),
            "init": "sampled-vocabulary" if role == "source" else "class-labels",
            "seed": seed,
            "step": step,
        }
        grid.add(
            "embedding",
            f"{role}:{name}.{seed}@{step}",
            identity,
            steps=0 if on_the_way else step,
            made_by=cell if on_the_way else None,
            spec={"role": role, "name": name, "tasks": list(tasks), "seed": seed, "step": step},
        )


def _target(
    grid: Grid,
    kind: str,
    name: str,
    target: str,
    seed: int,
    start: Mapping[str, Any],
    parents: Sequence[StudyCell],
    spec: Mapping[str, Any],
    *,
    steps: int | None = None,
) -> StudyCell:
    study = grid.study
    identity = {
        "data": _data(grid, [target]),
        "settings": _plain(study.target, _NOT_TRAINING),
        "seed": seed,
        "protocol": study.protocol,
        **start,
    }
    taken, told = study.target.steps if steps is None else steps, {**spec, "target": target, "seed": seed}
    cell = grid.add(kind, name, identity, parents=parents, steps=taken, spec=told)
    _judge(grid, "evaluation", f"{kind}:{name}", cell, target, made_by=cell)
    further = study.also_on.get(target)
    if further is not None and kind in (*TARGET_KINDS, "race"):  # cells that leave a prompt
        _judge(grid, "further_evaluation", f"{kind}:{name} on {further}", cell, further)
    return cell


def _judge(grid: Grid, kind: str, name: str, of: StudyCell, task: str, *, made_by: StudyCell | None = None) -> None:
    """The evaluation of a cell on a task's validation rows."""
    identity = {"of": of.key, "validation": grid.facts.data[task].validation, "halves_seed": 0}
    grid.add(kind, name, identity, parents=[of], made_by=made_by, spec={"target": task, "of": list(of.id)})


def _tuned_strategies(grid: Grid) -> None:
    study = grid.study
    if not (study.strategies.weighted_average or study.strategies.multitask_mixture):
        return
    ranking = study.strategies.tuned_similarity
    step = study.embedding.step
    sources = [grid.named("source", f"{source}.{seed}") for seed in study.seeds for source in study.sources]
    keys = [grid.named("embedding", f"source:{s}.{seed}@{step}") for seed in study.seeds for s in study.sources]
    for target in study.targets:
        for seed in study.seeds:
            own = grid.named("embedding", f"target:{target}.{seed}@{step}")
            basis = {"similarity": ranking, "target_embedding": own.key, "embeddings": [key.key for key in keys]}
            spec: dict[str, Any] = {"similarity": ranking, "own": own.key, "embeddings": [key.key for key in keys]}
            spec["sources"] = [cell.key for cell in sources]
            spec["names"] = [[cell.spec["source"], cell.spec["seed"]] for cell in sources]
            for k in study.strategies.weighted_average:
                start = {**basis, "k": k, "sources": [cell.key for cell in sources]}
                name = f"weighted_average{k}>{target}.{seed}"
                _target(grid, "weighted_average", name, target, seed, start, [*sources, *keys, own], {**spec, "k": k})
            for k in study.strategies.multitask_mixture:
                _mixture(grid, target, seed, k, basis, [*keys, own], spec)


def _races(grid: Grid) -> None:
    """For every target and seed one race over all source prompts and one start from scratch."""
    study = grid.study
    if not study.strategies.race:
        return
    sources = [grid.named("source", f"{source}.{seed}") for source in study.sources for seed in study.seeds]
    keys = [cell.key for cell in sources]
    keep = study.strategies.race_keep
    rule = {"keep": keep, "look_rows": study.strategies.race_rows, "ranked_by": "label-loss"}
    spec = {**rule, "sources": keys, "names": [[cell.spec["source"], cell.spec["seed"]] for cell in sources]}
    for target in study.targets:
        steps = race_steps(study.target.steps, len(sources) + 1, keep)
        for seed in study.seeds:
            start = {**rule, "sources": keys, "init": "class-labels"}
            _target(grid, "race", f"race>{target}.{seed}", target, seed, start, sources, spec, steps=steps)


def _mixture(
    grid: Grid,
    target: str,
    seed: int,
    k: int,
    basis: Mapping[str, Any],
    parents: Sequence[StudyCell],
    spec: Mapping[str, Any],
) -> None:
    study = grid.study
    tasks = list(dict.fromkeys([task for source in study.sources for task in study.tasks_of(source)] + [target]))
    identity = {
        **basis,
        "k": k,
        "target": target,
        "data": _data(grid, tasks),
        "sources": [list(study.tasks_of(source)) for source in study.sources],
        "settings": _plain(study.source, _NOT_TRAINING),
        "init": "sampled-vocabulary",
        "seed": seed,
    }
    name = f"multitask_mixture{k}>{target}.{seed}"
    mixture = grid.add(
        "mixture",
        name,
        identity,
        parents=parents,
        steps=study.source.steps,
        spec={**spec, "k": k, "target": target, "seed": seed},
    )
    _target(
        grid,
        "mixture_transfer",
        name,
        target,
        seed,
        {"mixture": mixture.key},
        [mixture],
        {"k": k, "similarity": spec["similarity"]},
    )
