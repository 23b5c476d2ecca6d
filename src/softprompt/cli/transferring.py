"""``softprompt transfer``: from a new task to a prompt that starts from what the library knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli import places
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, asked, both, first_process, lines, table
from softprompt.cli.progress import phases
from softprompt.errors import UsageError
from softprompt.library.metric import DEFAULT_METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softprompt.backbones.base import Backbone
    from softprompt.library.store import Library
    from softprompt.methods.spot.settings import TargetReport, TransferSettings
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData

# Expected gains told before a transfer trains; the report holds them all.
MOST_TOLD = 10


@command(app, "transfer")
def transfer(
    library: o.LibraryPlace,
    tasks_: places.GivenTasks = None,
    task: o.TaskFlag = None,
    data: o.Data = None,
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies", help="best_of_top_k, weighted_average, multitask_mixture, generic, oracle, race, random."
        ),
    ] = "best_of_top_k,weighted_average",
    k: Annotated[int, typer.Option("--k", help="Source prompts of best_of_top_k.")] = 3,
    average_k: Annotated[int, typer.Option("--average-k", help="Source prompts in weighted_average.")] = 3,
    mixture_k: Annotated[int, typer.Option("--mixture-k", help="Source prompts behind multitask_mixture.")] = 12,
    generic: Annotated[str, typer.Option("--generic", help="The source prompt of strategy generic.")] = "",
    metric: o.Metric = DEFAULT_METRIC,
    predictor: o.Predictor = "",
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
    text_column: o.TextColumns = None,
    label_column: o.LabelColumn = None,
    kind: o.Kind = None,
    wording: o.WordingForm = "auto",
    chat: o.ChatForm = False,
    system: o.System = None,
    backbone: o.BackboneOf = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
    sharded: o.Sharded = False,
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Tune a prompt from what the library knows, against scratch."""
    from softprompt.library.record import default_name
    from softprompt.methods.spot.run import transfer_targets
    from softprompt.methods.spot.settings import TransferSettings
    from softprompt.methods.spot.written import write_report

    train = o.train_settings(
        recipe, set_, steps=steps, batch_size=batch_size, learning_rate=learning_rate, prompt_length=prompt_length,
        max_input_tokens=max_input_tokens,
    )  # fmt: skip
    settings = TransferSettings(
        train=train, strategies=o.words(strategies, "--strategies"), k=k, average_k=average_k, mixture_k=mixture_k,
        metric=metric, predictor=predictor, scratch_runs=scratch_runs, embedding_runs=embedding_runs, seed=seed, generic=generic,
    )  # fmt: skip
    tasks = o.open_tasks(
        places.tasks_asked(tasks_, task), data, text_column=text_column, label_column=label_column, kind=kind
    )
    store = o.open_library(library)
    if keep and library in o.RELEASED:
        raise UsageError(
            "nothing is added to the released library: leave --keep out, the prompt is kept in the run directory, or copy the "
            "library first (softprompt library add prompts released)."
        )
    if keep:
        o.refuse_taken(store, [default_name(t.name, seed) for t in tasks], replace=replace)
    model = o.open_backbone(
        o.backbone_of(backbone, library), dtype, device, revision, sharded=sharded, checkpointing=checkpointing
    )
    tasks = o.in_chat(o.worded(tasks, wording, model), chat, system, model)
    targets = o.encode(model, tasks, train, train_rows, validation_rows)
    folder = out or Path("runs") / f"transfer-{'+'.join(t.name for t in tasks)}"

    def mixture_rows(names: Sequence[str]) -> dict[str, TaskData]:
        opened = o.in_chat(o.worded(o.open_tasks(names, data), wording, model), chat, system, model)
        return dict(zip(names, o.encode(model, opened, train), strict=True))

    with phases() as observe:
        reports = transfer_targets(
            model, store, targets, settings, folder=folder, resume=resume, mixture_data=mixture_rows, observe=observe,
        )  # fmt: skip
    if not first_process():
        return Answer(data={})  # the first one writes, keeps and shows what all of them made
    again = o.command_line()
    written = {r.target: write_report(folder, r, train, again) for r in reports}
    own = o.open_library(str(folder / "library"), must_exist=False)
    _keep(model, own, reports, tasks, settings, True)
    kept = _keep(model, store, reports, tasks, settings, replace) if keep else []
    parts = [part for report in reports for part in _told(report)]
    where = [f"run directory: {folder}", f"library: {own.location}", *(f"report: {file}" for file in written.values())]
    where += [f"added to {store.location}: {', '.join(kept)}"] if kept else []
    data_ = {"targets": [r.plain() for r in reports], "run": folder, "reports": written, "kept": kept}
    same = places.flags(backbone=backbone, dtype=dtype, device=device, revision=revision)
    after: list[tuple[object, ...]] = [("predict", folder, *_of_several(own), "TEXT", *same), ("serve", folder, *same)]
    if not keep and library not in o.RELEASED:
        after.append((*asked, *(() if resume else ("--resume",)), "--keep"))
    return Answer(data=data_, show=both(*parts, lines(*where)), next=after)


def _of_several(library: Library) -> tuple[str, ...]:
    """The flag that names a prompt where a library has several."""
    names = library.names()
    return ("--prompt", names[0]) if len(names) > 1 else ()


def _told(report: TargetReport) -> list[Any]:
    """A target's outcomes and verdict."""
    notes = [f"{o.strategy}: {note}" for o in report.outcomes for note in o.notes]
    notes += [f"{strategy} was not tried: {why}" for strategy, why in report.refused.items()]
    return [_outcomes(report), lines(*notes, f"{report.target}: {report.verdict}", "")]


def _outcomes(report: TargetReport) -> Any:
    rows = []
    for outcome in report.outcomes:
        found = outcome.versus_scratch
        gain = f"{found['gain']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})" if found else "-"
        sources = "\n".join(f"{name} {weight:.2f}" if weight != 1.0 else name for name, weight in outcome.sources)
        rows.append([outcome.strategy, sources or "-", outcome.runs, outcome.step, outcome.score, gain,
                     f"{outcome.cost:,}", round(outcome.seconds)])  # fmt: skip
    columns = ["strategy", "started from", "runs", "best\nstep", "score", "gain (90 %)", "forward\ntokens", "seconds"]
    return table(columns, rows, title=report.target)


def _keep(
    model: Backbone,
    store: Library,
    reports: Sequence[TargetReport],
    tasks: Sequence[Task],
    settings: TransferSettings,
    replace: bool,
) -> list[str]:
    """Add the delivered prompts with their task embeddings: sources for the next task."""
    from softprompt.api import delivered_record

    command = o.command_line()
    records = [
        delivered_record(model, report, settings.train, seed=settings.seed, command=command, task=task)
        for report, task in zip(reports, tasks, strict=True)
    ]
    return [store.add(record, replace=replace).name for record in records]
