"""``softprompt embed``, ``search`` and ``transfer``: from a new task to the prompts that help it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import phases, training
from softprompt.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from softprompt.backbones.base import Backbone
    from softprompt.library.search import Match
    from softprompt.library.store import Library
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData
    from softprompt.training.settings import TrainSettings
    from softprompt.transfer.settings import TargetReport, TransferSettings


@command(app, "embed")
def embed(
    task: o.TaskName,
    out: Annotated[Path, typer.Option("--out", help="Where the embeddings go (.safetensors).", show_default=False)],
    data: o.Data = None,
    seeds: o.Seeds = "1,2,3",
    recipe: o.Recipe = "quick",
    set_: o.Set = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    prompt_length: o.PromptLength = None,
    embedding_step: Annotated[int | None, typer.Option("--embedding-step", help="The step it is taken at.")] = None,
    train_rows: o.TrainRows = None,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Compute a task's embeddings: its prompt at an early step."""
    from softprompt import artifacts
    from softprompt.api import task_embeddings

    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must end in .safetensors.")
    numbers = o.numbers(seeds, "--seeds")
    settings = o.train_settings(
        recipe, set_, batch_size=batch_size, learning_rate=learning_rate, prompt_length=prompt_length,
        embedding_step=embedding_step,
    )  # fmt: skip
    tasks = o.open_tasks([task], data)
    model = o.open_backbone(backbone, dtype, device, revision)
    (encoded,) = o.encode(model, tasks, settings, train_rows)
    with training("embedding") as observer:
        found = task_embeddings(model, encoded, settings, seeds=numbers, observer=observer)
    artifacts.write_tensors(out, {f"seed_{seed}": t for seed, t in zip(numbers, found, strict=True)})
    facts = {
        "task": tasks[0].name,
        "file": out,
        "seeds": numbers,
        "step": settings.embedding_step,
        "shape": list(found[0].shape),
        "fingerprint": model.fingerprint,
        "data": encoded.train.fingerprint,
    }
    told = f"{len(found)} embedding(s) of {tasks[0].name} at step {settings.embedding_step}, {facts['shape']}, in {out}"
    return Answer(data=facts, show=lines(told))


@command(app, "search")
def search(
    library: o.LibraryPlace,
    task: Annotated[str | None, typer.Option("--task", help="The new task.")] = None,
    embedding: Annotated[Path | None, typer.Option("--embedding", help="A file of `softprompt embed` instead.")] = None,
    data: o.Data = None,
    metric: o.Metric = "per_token",
    top_k: Annotated[int, typer.Option("--top-k", help="How many prompts.", min=1)] = 10,
    use_prompts: Annotated[
        bool, typer.Option("--use-prompts", help="Compare prompts without an embedding by themselves.")
    ] = False,
    seeds: o.Seeds = "1,2,3",
    recipe: o.Recipe = "quick",
    set_: o.Set = None,
    prompt_length: o.PromptLength = None,
    train_rows: o.TrainRows = None,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Rank a library's prompts for a new task."""
    from softprompt.library.search import search as search_library

    if (task is None) == (embedding is None):
        raise UsageError("search takes --task or --embedding, one of the two.")
    store = o.open_library(library)
    fingerprint: str | None = None
    own: tuple[str, ...] = ()
    if embedding is not None:
        queries = _embeddings(embedding)
    else:
        from softprompt.api import task_embeddings

        settings = o.train_settings(recipe, set_, prompt_length=prompt_length)
        tasks = o.open_tasks([str(task)], data)
        own = (tasks[0].name,)
        model = o.open_backbone(backbone, dtype, device, revision)
        fingerprint = model.fingerprint
        (encoded,) = o.encode(model, tasks, settings, train_rows)
        with training("embedding") as observer:
            queries = task_embeddings(model, encoded, settings, seeds=o.numbers(seeds, "--seeds"), observer=observer)
    found = search_library(
        store, queries, metric=metric, top_k=top_k, backbone_fingerprint=fingerprint, exclude_tasks=own,
        use_prompts=use_prompts,
    )  # fmt: skip
    left_out = dict(store.index.problems)
    notes = [f"left out: {problem}" for problem in left_out.values()]
    if not found:
        notes.append(f"library {store.location} holds no prompt with a task embedding for this backbone.")
    data_ = {"library": store.location, "metric": metric, "matches": found, "problems": left_out}
    return Answer(data=data_, show=both(_ranking(found), lines(*notes)) if found else lines(*notes))


def _embeddings(path: Path) -> Sequence[Tensor]:
    from softprompt import artifacts

    tensors = artifacts.read_tensors(path)
    if not tensors:
        raise DataError(f"{path} holds no embedding: make one with `softprompt embed`.")
    return list(tensors.values())


def _ranking(found: Sequence[Match]) -> Any:
    rows = [
        [m.rank, m.name, m.task, f"{m.per_token:.4f}", f"{m.average:.4f}", _share(m.agreement), m.entry.score]
        for m in found
    ]
    return table(["rank", "prompt", "task", "per_token", "average", "agreement", "score"], rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


@command(app, "transfer")
def transfer(
    task: o.TaskNames,
    library: o.LibraryPlace,
    data: o.Data = None,
    strategies: Annotated[
        str,
        typer.Option("--strategies", help="best_of_top_k, weighted_average, multitask_mixture, generic, oracle, race."),
    ] = "best_of_top_k,weighted_average",
    k: Annotated[int, typer.Option("--k", help="Source prompts of best_of_top_k.")] = 3,
    average_k: Annotated[int, typer.Option("--average-k", help="Source prompts in weighted_average.")] = 3,
    mixture_k: Annotated[int, typer.Option("--mixture-k", help="Source prompts behind multitask_mixture.")] = 12,
    generic: Annotated[str, typer.Option("--generic", help="The source prompt of strategy generic.")] = "",
    metric: o.Metric = "per_token",
    scratch_runs: Annotated[int, typer.Option("--scratch-runs", help="Runs from scratch; 0: as many as k.")] = 0,
    embedding_runs: Annotated[int, typer.Option("--embedding-runs", help="Seeds of the task embedding.")] = 3,
    seed: o.Seed = 1,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; runs/transfer-TASK if not given.")] = None,
    resume: o.Resume = False,
    keep: Annotated[bool, typer.Option("--keep", help="Add the delivered prompts to the library.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="With --keep: replace prompts of the same names.")] = False,
    recipe: o.Recipe = "quick",
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    prompt_length: o.PromptLength = None,
    max_input_tokens: o.MaxInputTokens = None,
    set_: o.Set = None,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Tune a prompt from what the library knows, against scratch."""
    from softprompt.library.manifest import default_name
    from softprompt.transfer.run import transfer_targets
    from softprompt.transfer.settings import TransferSettings

    train = o.train_settings(
        recipe, set_, steps=steps, batch_size=batch_size, learning_rate=learning_rate, prompt_length=prompt_length,
        max_input_tokens=max_input_tokens,
    )  # fmt: skip
    settings = TransferSettings(
        train=train, strategies=o.words(strategies, "--strategies"), k=k, average_k=average_k, mixture_k=mixture_k,
        metric=metric, scratch_runs=scratch_runs, embedding_runs=embedding_runs, seed=seed, generic=generic,
    )  # fmt: skip
    tasks = o.open_tasks(o.words(task, "--task"), data)
    store = o.open_library(library)
    if keep:
        o.refuse_taken(store, [default_name(t.name, seed) for t in tasks], replace=replace)
    model = o.open_backbone(backbone, dtype, device, revision)
    targets = o.encode(model, tasks, train, train_rows, validation_rows)
    folder = out or Path("runs") / f"transfer-{'+'.join(t.name for t in tasks)}"
    mixture = _mixture_data(model, store, train, data, tasks) if "multitask_mixture" in settings.strategies else None
    with phases() as observe:
        reports = transfer_targets(
            model, store, targets, settings, folder=folder, resume=resume, mixture_data=mixture, observe=observe
        )
    kept = _keep(model, store, reports, settings, replace) if keep else []
    parts = [
        part for report in reports for part in (_outcomes(report), lines(f"{report.target}: {report.verdict}", ""))
    ]
    where = lines(f"run directory: {folder}", *([f"added to {store.location}: {', '.join(kept)}"] if kept else []))
    return Answer(data={"targets": [r.plain() for r in reports], "run": folder, "kept": kept}, show=both(*parts, where))


def _mixture_data(
    model: Backbone, store: Library, train: TrainSettings, data: Path | None, targets: Sequence[Task]
) -> dict[str, TaskData]:
    """Training rows of the library's tasks, for multitask_mixture."""
    from softprompt.transfer.run import source_entries

    names = sorted({entry.task for entry in source_entries(store, model)} - {t.name for t in targets})
    tasks = o.open_tasks(names, data)
    return dict(zip(names, o.encode(model, tasks, train), strict=True))


def _outcomes(report: TargetReport) -> Any:
    rows = []
    for outcome in report.outcomes:
        found = outcome.versus_scratch
        gain = f"{found['gain']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})" if found else "-"
        sources = ", ".join(f"{name} {weight:.2f}" if weight != 1.0 else name for name, weight in outcome.sources)
        rows.append([outcome.strategy, sources or "-", outcome.runs, outcome.score, gain, round(outcome.seconds, 1)])
    return table(["strategy", "started from", "runs", "score", "gain (90 %)", "seconds"], rows, title=report.target)


def _keep(
    model: Backbone, store: Library, reports: Sequence[TargetReport], settings: TransferSettings, replace: bool
) -> list[str]:
    """Add the delivered prompts with their task embeddings: sources for the next task."""
    from softprompt.api import delivered_record

    command = o.command_line()
    records = [delivered_record(model, r, settings.train, seed=settings.seed, command=command) for r in reports]
    return [store.add(record, replace=replace).name for record in records]
