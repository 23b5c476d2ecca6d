"""The short way in Python: tune prompts, search a library for a task, transfer onto it.

Everything here is a thin layer over ``training``, ``library`` and ``methods``; the command line uses it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softprompt import bars, waits
from softprompt.backbones.base import Backbone
from softprompt.errors import NonFiniteError, UsageError
from softprompt.library.metric import DEFAULT_METRIC, Metric
from softprompt.library.record import PromptRecord
from softprompt.library.search import Match
from softprompt.library.search import search as search_library
from softprompt.library.store import Library
from softprompt.methods.beside import beside
from softprompt.methods.method import PhaseObserver, Target, Work
from softprompt.methods.sharpt.method import AdaptedPrompt, SharPT, as_strategy
from softprompt.methods.sharpt.recipes import sharpt_recipe
from softprompt.methods.sharpt.space import Space, load_space, space_encoder
from softprompt.methods.spot.checks import at_library_step, check_searchable
from softprompt.methods.spot.outcomes import TargetReport
from softprompt.methods.spot.run import SPoT, source_entries
from softprompt.methods.spot.settings import TransferSettings
from softprompt.methods.spot.written import save_adapted, write_report
from softprompt.prompts.init import InitSettings, Role, initial_prompt
from softprompt.tasks.mixed import MixtureTask
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import for_backbone
from softprompt.training.data import TaskData, start_of, task_data
from softprompt.training.loop import Observer
from softprompt.training.recipes import recipe as recipe_named
from softprompt.training.runs import RunResult
from softprompt.training.settings import TrainSettings
from softprompt.tuned import TunedPrompt


def tune(
    backbone: Backbone, task: Task, *, seed: int = 1, recipe: str = "quick", progress: bool = True, **changes: Any
) -> TunedPrompt:
    """Tune one source prompt on a task; a library takes it as it is.

    Args:
        backbone: frozen.
        task: from ``load_task`` or your own.
        seed: keys the initial prompt, the data order and dropout.
        recipe: name of the settings, e.g. ``quick`` or ``spot``.
        progress: show a bar.
        changes: settings to change by name, e.g. ``steps=500``.

    Raises:
        NonFiniteError: the loss was not finite before the first validation.

    Example:
        >>> prompt = sp.tune(backbone, task, steps=4, progress=False)
        >>> prompt
        <TunedPrompt films@1: ... tokens on ..., score ...>
        >>> prompt.predict(["a lovely film", "dull"], progress=False)[0].label in ("bad", "good")
        True
    """
    settings = recipe_named(recipe, **changes)
    with waits.shown(progress), bars.training(f"tuning {task.name}", progress) as observer:
        data = task_data(backbone, task, settings)
        found = tune_tasks(backbone, [data], settings, seeds=[seed], observer=observer)
    if not found:
        raise NonFiniteError(
            f"tuning task {task.name!r} gave no prompt: its loss was not finite before the first validation; lower "
            "learning_rate."
        )
    return TunedPrompt.of(found[0], backbone)


def tune_tasks(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    settings: TrainSettings,
    *,
    seeds: Sequence[int] = (1,),
    role: Role = "source",
    init: InitSettings | None = None,
    folder: Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    command: str = "",
    licence: str | None = None,
    compared: bool = False,
) -> list[PromptRecord]:
    """Tune every task with every seed, all in one batch (SPoT section 3.1, source prompt tuning).

    Args:
        backbone: frozen.
        tasks: tokenised with ``task_data``.
        settings: of all runs.
        seeds: one run a task and seed.
        role: ``source`` starts from sampled vocabulary, ``scratch`` from class labels.
        init: another start for all runs; by role where None.
        folder: run directory; None keeps the training in memory.
        resume: continue what the folder holds.
        observer: told of every step.
        command: what to run to make these prompts again; stored with them.
        licence: of the prompts; the task's own where None.
        compared: measure what stands beside each score as well (`softprompt.methods.beside`), kept as ``beside`` in the
            record's recipe; not with a backbone in shards.

    Returns:
        One record a task and seed (tasks outermost), ready for ``Library.add``; runs shorter than ``embedding_step``
        keep their last prompt as task embedding (``embedding_step`` of the record says which). Runs that ended with a non-finite loss
        before their first validation are left out.
    """
    if not tasks or not seeds:
        raise UsageError("tuning needs at least one task and one seed.")
    settings = settings.resolved(backbone)
    if settings.embedding_step > settings.steps:  # a short run keeps its last prompt: without one nothing ranks it
        settings = settings.having(embedding_step=settings.steps)
    owners = [(data, seed) for data in tasks for seed in seeds]
    inits = [init or start_of(backbone, data.task, role) for data, _ in owners]
    starts = [
        (data.run(f"{data.task.name}-{seed}", seed), initial_prompt(backbone, start, settings.prompt_length, seed))
        for start, (data, seed) in zip(inits, owners, strict=True)
    ]
    identity = {"init": [start.record() for start in inits]}
    work = Work(backbone=backbone, folder=folder, resume=resume, observe=lambda *_: observer, identity=identity)
    results = list(work.train("", starts, settings).values())
    prompts = [prompt for _, prompt in starts]
    if compared and not backbone.sharded:
        _measure_beside(backbone, tasks, settings, prompts, results)
    made = zip(owners, results, inits, prompts, strict=True)
    return [
        _record(backbone, data, settings, result, init=start.record(), initial=prompt, command=command, licence=licence)
        for (data, _), result, start, prompt in made
        if result.best
    ]


def _measure_beside(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    settings: TrainSettings,
    prompts: Sequence[Any],
    results: Sequence[RunResult],
) -> None:
    """Put what stands beside each task's scores into its runs' evidence; as many runs of each task, tasks outermost."""
    each = len(results) // len(tasks)
    for number, data in enumerate(tasks):
        mine = slice(number * each, (number + 1) * each)
        measured = beside(backbone, data, prompts[mine], settings)
        for n, result in enumerate(results[mine]):
            result.evidence["beside"] = measured.of_run(n)


def _record(
    backbone: Backbone,
    data: TaskData,
    settings: TrainSettings,
    result: RunResult,
    *,
    licence: str | None,
    **more: Any,
) -> PromptRecord:
    embedding = result.embedding["prompt"] if result.embedding else None
    facts = {**_of_task(data.task), **({} if licence is None else {"licence": licence})}
    return PromptRecord(
        task=data.task.name, prompt=result.best["prompt"], task_embedding=embedding, seed=result.seed,
        data_fingerprint=data.train.fingerprint, steps=result.steps, best_step=result.best_step,
        embedding_step=settings.embedding_step if embedding is not None else None, scores=result.scores,
        recipe={**asdict(settings), "train_rows": len(data.train), **_rates(data), **result.evidence}, tags=(data.task.category,),
        **_of_backbone(backbone), **facts, **more,
    )  # fmt: skip


def _of_backbone(backbone: Backbone) -> dict[str, Any]:
    """What a prompt's record says of its backbone."""
    return {
        "backbone_name": backbone.name,
        "backbone_fingerprint": backbone.fingerprint,
        "backbone_kind": backbone.kind,
    }


def _of_task(task: Task) -> dict[str, Any]:
    """What a prompt's record says of its task."""
    wording = task.wording.record() if task.wording is not None else None
    return {"licence": task.licence, "chat": task.chat, "wording": wording, "data_source": _data_source(task)}


def _rates(data: TaskData) -> dict[str, Any]:
    """Of a mixture, the probability of drawing from each task."""
    return (
        {"mixture": dict(zip(data.task.parts, data.rates, strict=True))} if isinstance(data.task, MixtureTask) else {}
    )


def _data_source(task: Task) -> dict[str, Any]:
    """Data set, configuration, branch and commit of a task's rows where they were read from the Hub; else empty."""
    found = task.source.describe()
    if found.get("kind") != "hub" or not found.get("revision"):
        return {}
    return {name: found.get(name) for name in ("repo", "config", "branch", "revision")}


def delivered_record(
    backbone: Backbone,
    report: TargetReport,
    settings: TrainSettings,
    *,
    seed: int,
    command: str = "",
    task: Task | None = None,
) -> PromptRecord:
    """The prompt a transfer delivers, with its task embedding, ready for ``Library.add``: a source for the next task.

    Args:
        backbone: it was tuned on.
        report: of the target.
        settings: of the target runs.
        seed: first seed of the transfer.
        command: what to run to make it again.
        task: the target; its licence, chat form and data source are stored with the prompt where it is given.

    Raises:
        UsageError: what is delivered is SharPT's generator, which is no prompt.
    """
    outcome, embedding = report.outcome(report.delivered), report.embedding_PH
    if report.prompt_PH is None:
        raise UsageError(
            f"{report.target}: {report.delivered} is delivered, a generator of prompts and no prompt: keep report.adapted.space."
        )
    return PromptRecord(
        task=report.target, prompt=report.prompt_PH, task_embedding=embedding, seed=seed,
        data_fingerprint=str(report.facts["train_fingerprint"]), steps=settings.steps, best_step=outcome.step,
        embedding_step=settings.embedding_step if embedding is not None else None, scores={"score": outcome.score},
        recipe={**asdict(settings.resolved(backbone)), "train_rows": int(report.facts["train_rows"])},
        init={"kind": report.delivered, "sources": [name for name, _ in outcome.sources]}, command=command,
        tags=("target",), **_of_backbone(backbone),
        **({} if task is None else _of_task(for_backbone(task, backbone.kind))),
    )  # fmt: skip


def task_embeddings(
    backbone: Backbone,
    data: TaskData,
    settings: TrainSettings,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    observer: Observer | None = None,
) -> list[Any]:
    """A task's embeddings, one a seed: the prompt after ``embedding_step`` steps of source tuning (SPoT section 3.2).

    Returns:
        float32 [P, H] each.
    """
    step = settings.embedding_step
    if not step:
        raise UsageError("a task embedding needs embedding_step above 0: it is the prompt at that step.")
    runs = [data.run(f"{data.task.name}-embed-{seed}", seed, validated=False) for seed in seeds]
    start = start_of(backbone, data.task, "source")
    starts = [(run, initial_prompt(backbone, start, settings.prompt_length, run.seed)) for run in runs]
    results = Work(backbone=backbone, observe=lambda *_: observer).train("", starts, settings.having(steps=step))
    return [result.embedding["prompt"] for result in results.values() if result.embedding]


def search(
    backbone: Backbone,
    library: Library,
    task: Task,
    *,
    recipe: str = "quick",
    seeds: Sequence[int] = (1, 2, 3),
    metric: Metric = DEFAULT_METRIC,
    top_k: int = 10,
    progress: bool = True,
    **changes: Any,
) -> list[Match]:
    """Rank a library's source prompts for a task by task-embedding similarity (SPoT sections 3.2 and 3.3).

    Args:
        backbone: frozen.
        library: source prompts.
        task: the new one; its embedding is tuned here.
        recipe: of that tuning.
        seeds: one embedding each.
        metric: similarity that ranks, ``average`` or ``per_token``.
        top_k: how many prompts.
        progress: show a bar.
        changes: training settings by name.

    Returns:
        The most similar prompts of this backbone, best first; the task's own prompts are left out.

    Raises:
        UsageError: no prompt of another task has a task embedding; said before anything is trained.

    Example:
        >>> library = sp.Library("prompts")
        >>> library.add(prompt)
        <StoredPrompt films@1 in ...>
        >>> [match.name for match in sp.search(backbone, library, target, steps=4, progress=False)]
        ['films@1']
    """
    settings = at_library_step(recipe_named(recipe, **changes), library, backbone, changes)
    entries = source_entries(library, backbone)
    check_searchable(library, entries, task.name, settings.embedding_step)
    with waits.shown(progress), bars.training(f"embedding {task.name}", progress) as observer:
        data = task_data(backbone, task, settings)
        embeddings = task_embeddings(backbone, data, settings, seeds=seeds, observer=observer)
    names = {entry.name for entry in entries}
    return search_library(library, embeddings, metric=metric, top_k=top_k, names=names, exclude_tasks={task.name})


def transfer(
    backbone: Backbone,
    library: Library,
    task: Task,
    *,
    recipe: str = "quick",
    strategies: Sequence[str] = ("best_of_top_k", "weighted_average"),
    k: int = 3,
    seed: int = 1,
    folder: Path | None = None,
    resume: bool = False,
    space: Space | str | Path | None = None,
    observe: PhaseObserver | None = None,
    command: str = "",
    progress: bool = True,
    **changes: Any,
) -> TargetReport:
    """Tune a prompt for a task from the most similar prompts of a library, and compare it with one from scratch.

    Args:
        backbone: frozen.
        library: source prompts.
        task: the target.
        recipe: of every target run.
        strategies: names of ``softprompt.methods.spot.settings.STRATEGIES``.
        k: source prompts of best_of_top_k.
        seed: first seed.
        folder: run directory (resumable); the report is written there too.
        resume: continue what it holds.
        space: SharPT's space of skills, or its folder, for strategy ``sharpt``.
        observe: called before each phase with its name and number of runs; gives the observer of its steps.
        command: what to run to make it again, for the report.
        progress: show bars, where there is no ``observe``.
        changes: training settings by name.

    Returns:
        The report; ``report.prompt`` is what is delivered, to predict with: a prompt, which a library keeps as well, or where
        ``sharpt`` is delivered the adapted generator.

    Example:
        >>> report = sp.transfer(backbone, library, target, k=1, steps=4, progress=False)
        >>> report.delivered in ("scratch", "best_of_top_k", "weighted_average")
        True
        >>> report.prompt.predict("a fine hotel", progress=False)[0].label in ("bad", "good")
        True
        >>> tried = ["best_of_top_k", "sharpt"]
        >>> report = sp.transfer(backbone, library, target, strategies=tried, space="space", k=1, steps=4, progress=False)
        >>> [outcome.strategy for outcome in report.outcomes]
        ['scratch', 'best_of_top_k', 'sharpt']
    """
    chosen: Any = tuple(strategies)  # checked by the settings
    train = at_library_step(recipe_named(recipe, **changes), library, backbone, changes)
    settings = TransferSettings(train=train, strategies=chosen, k=k, seed=seed)
    sharpt = None if space is None else as_strategy(_loaded(space), backbone, train)
    visible = progress and observe is None
    with waits.shown(visible), bars.phases(visible) as shown:
        data = task_data(backbone, task, settings.train)
        work = Work(backbone=backbone, folder=folder, resume=resume, observe=observe or shown)
        (report,) = SPoT(library, settings, sharpt=sharpt).run_all(work, [Target(data=data)])
    if report.adapted is not None:
        report.prompt = report.adapted
    else:
        record = delivered_record(backbone, report, settings.train, seed=seed, command=command, task=task)
        report.prompt = TunedPrompt.of(record, backbone)
    if folder is not None:
        write_report(folder, report, settings.train, command)
        save_adapted(folder, report)
    return report


def adapt(
    backbone: Backbone,
    space: Space | str | Path,
    task: Task,
    *,
    seed: int = 0,
    recipe: str = "quick",
    cache: Path | None = None,
    progress: bool = True,
    **changes: Any,
) -> AdaptedPrompt:
    """Tune SharPT's prompt generator on a task, the space of skills frozen (SharPT equation 3).

    Args:
        backbone: frozen; the one the space was trained on.
        space: a space of skills, or its folder (``softprompt sharpt train`` makes one).
        task: the target.
        seed: of the run.
        recipe: of SharPT, e.g. ``quick`` or ``paper``.
        cache: a folder that keeps the instance encodings; None keeps them in memory.
        progress: show a bar.
        changes: settings of target training by name.

    Returns:
        The adapted prompt, which `predict` and `evaluate` take.

    Example:
        >>> adapted = sp.adapt(backbone, "space", task, steps=2, progress=False)
        >>> adapted
        <AdaptedPrompt ...: task films, seed 0>
        >>> sp.predict(backbone, adapted, ["a lovely film"], progress=False)[0].label in ("bad", "good")
        True
    """
    loaded = _loaded(space)
    settings = sharpt_recipe(recipe).target.having(prompt_length=loaded.prompt_length).having(**changes)
    with waits.shown(progress), bars.training(f"adapting to {task.name}", progress) as observer:
        method = SharPT(loaded, space_encoder(loaded, backbone, cache), settings)
        target = Target(data=method.encode(backbone, task))
        (adapted,) = method.adapt(Work(backbone=backbone, observe=lambda *_: observer), [target], [seed])
    return adapted


def _loaded(space: Space | str | Path) -> Space:
    """A space of skills by its folder, or as it is."""
    return space if isinstance(space, Space) else load_space(Path(space))
