"""``softprompt transfer``: a prompt for a new task that starts from similar prompts of a library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from softprompt.cli import opening, places
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import flag
from softprompt.cli.output import Answer, asked, both, first_process, lines, table
from softprompt.cli.progress import phases
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softprompt.backbones.base import Backbone
    from softprompt.library.store import Library
    from softprompt.methods.sharpt.method import SharPT
    from softprompt.methods.sharpt.space import Space
    from softprompt.methods.spot.outcomes import TargetReport
    from softprompt.methods.spot.settings import TransferSettings
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData

NOT_KEPT = "; a library keeps prompts alone, so it is not added"


@command(
    app, "transfer", "softprompt transfer my.csv --library released --keep",
    "softprompt transfer --task cb --data DIR --library prompts --strategies best_of_top_k,race --k 3",
)  # fmt: skip
def transfer(
    tasks_: o.GivenTasks = None,
    *,
    library: o.LibraryPlace,
    task: o.TaskFlag = None,
    rows: o.WordedFlags,
    model: o.ContinuedOnFlags,
    tried: o.TransferFlags,
    space: Annotated[
        Path | None, flag("--space", "Folder of a latent space, for strategy sharpt.", "Transfer settings")
    ] = None,
    out: Annotated[Path | None, flag("--out", "Run directory; runs/transfer-TASK if not given.")] = None,
    resume: o.Resume = False,
    keep: Annotated[bool, flag("--keep", "Add the delivered prompts to the library.")] = False,
    replace: Annotated[bool, flag("--replace", "With --keep: replace prompts of the same names.")] = False,
    training_: o.TrainingFlags,
    limits: o.RowLimitFlags,
) -> Answer:
    """Start a prompt from similar ones, compare with scratch."""
    from softprompt.library.record import default_name
    from softprompt.methods.sharpt.space import load_space
    from softprompt.methods.spot.checks import at_library_step, check_space

    settings: TransferSettings = tried.changed(train=training_.settings())
    check_space(settings.strategies, given=space is not None)
    loaded = None if space is None else load_space(space)
    names = places.tasks_asked(tasks_, task)
    tasks, store = rows.tasks(names), opening.open_library(library)
    if keep and library in opening.RELEASED:
        raise UsageError(
            "nothing is added to the released library: leave --keep out, the prompt is kept in the run directory, or copy the "
            "library first (softprompt library add prompts released)."
        )
    if keep:
        opening.refuse_taken(store, [default_name(t.name, settings.seed) for t in tasks], replace=replace)
    folder = out or Path("runs") / f"transfer-{'+'.join(t.name for t in tasks)}"
    opening.check_out(folder, resume=resume)
    backbone = model.open(library)
    train = at_library_step(settings.train, store, backbone, training_.asked())
    settings, tasks = settings.having(train=train), rows.worded(tasks, backbone)
    sharpt = _sharpt(loaded, backbone, settings)
    reports = _reports(backbone, store, tasks, settings, rows, limits, (folder, resume), sharpt)
    if not first_process():
        return Answer(data={})  # the first one writes, keeps and shows what all of them made
    written = _written(folder, reports, settings)
    own, generators = _delivered(backbone, folder, reports, tasks, settings)
    kept = _keep(backbone, store, reports, tasks, settings, replace) if keep else []
    where = [f"run directory: {folder}", *([f"library: {own.location}"] if own.names() else [])]
    where += [f"report: {file}" for file in written.values()]
    where += [f"added to {store.location}: {', '.join(kept)}"] if kept else []
    where += [f"generator for {target}: {place}{NOT_KEPT if keep else ''}" for target, place in generators.items()]
    data = {"targets": [r.plain() for r in reports], "run": folder, "reports": written, "kept": kept,
            "generators": generators}  # fmt: skip
    after = _next(folder, own, generators, model.words("sharded", "checkpointing"))
    if own.names() and not keep and library not in opening.RELEASED:
        after.append((*asked, *(() if resume else ("--resume",)), "--keep"))
    told = [part for report in reports for part in _told(report, store)]
    return Answer(data=data, show=both(*told, lines(*where)), next=after)


def _delivered(
    backbone: Backbone, folder: Path, reports: Sequence[TargetReport], tasks: Sequence[Task], settings: TransferSettings
) -> tuple[Library, dict[str, Path]]:
    """The run directory's library with the delivered prompts, and the folders of delivered generators by target."""
    from softprompt.library.record import default_name
    from softprompt.methods.spot.written import save_adapted

    own = opening.open_library(str(folder / "library"), must_exist=False)
    _keep(backbone, own, reports, tasks, settings, True)
    for report in reports:  # what an earlier run into this folder had delivered
        if report.adapted is not None and (stale := default_name(report.target, settings.seed)) in own:
            own.remove(stale)
    return own, {r.target: place for r in reports if (place := save_adapted(folder, r)) is not None}


def _next(folder: Path, own: Library, generators: Mapping[str, Path], same: Sequence[str]) -> list[tuple[object, ...]]:
    """What can be done with the prompts, or else the generators, that were delivered."""
    if own.names():
        return [("predict", folder, *_of_several(own), "TEXT", *same), ("serve", folder, *same)]
    first = next(iter(generators.values()))
    return [("sharpt", "predict", "--prompt", first, "TEXT", *same), ("serve", "--sharpt", first, *same)]


def _sharpt(space: Space | None, backbone: Backbone, settings: TransferSettings) -> SharPT | None:
    """The latent space that is tried, if one is."""
    from softprompt.cli.sharpt import kept_in
    from softprompt.methods.sharpt.method import as_strategy

    return None if space is None else as_strategy(space, backbone, settings.train, kept_in(None))


def _of_several(library: Library) -> tuple[str, ...]:
    """The flag that names a prompt where a library has several."""
    names = library.names()
    return ("--prompt", names[0]) if len(names) > 1 else ()


def _reports(
    backbone: Backbone,
    store: Library,
    tasks: Sequence[Task],
    settings: TransferSettings,
    rows: o.WordedFlags,
    limits: o.RowLimitFlags,
    run: tuple[Path, bool],
    sharpt: SharPT | None,
) -> list[TargetReport]:
    """Onto every target, with bars; ``run``: where to, and whether to resume."""
    from softprompt.methods.method import Target, Work
    from softprompt.methods.spot.run import SPoT

    def mixture_rows(names: Sequence[str]) -> dict[str, TaskData]:
        opened = rows.worded(opening.open_tasks(names, rows.data), backbone)
        return dict(zip(names, opening.encode(backbone, opened, settings.train), strict=True))

    targets = [Target(data=data) for data in limits.encode(backbone, tasks, settings.train)]
    with phases() as observe:
        work = Work(backbone=backbone, folder=run[0], resume=run[1], observe=observe)
        return SPoT(store, settings, mixture_data=mixture_rows, sharpt=sharpt).run_all(work, targets)


def _written(folder: Path, reports: Sequence[TargetReport], settings: TransferSettings) -> dict[str, Path]:
    """The reports' files by target."""
    from softprompt.methods.spot.written import write_report

    return {r.target: write_report(folder, r, settings.train, opening.command_line()) for r in reports}


def _told(report: TargetReport, store: Library) -> list[Any]:
    """A target's outcomes, what is to be known of the prompts they started from, and its verdict."""
    notes = [f"{o.strategy}: {note}" for o in report.outcomes for note in o.notes]
    started = dict.fromkeys(name for outcome in report.outcomes for name, _ in outcome.sources if name in store)
    notes += [idle for name in started if (idle := store.get(name).manifest.idle())]
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
    """Add the delivered prompts with their task embeddings: sources for the next task. Generators are none."""
    from softprompt.api import delivered_record

    command = opening.command_line()
    records = [
        delivered_record(model, report, settings.train, seed=settings.seed, command=command, task=task)
        for report, task in zip(reports, tasks, strict=True)
        if report.adapted is None
    ]
    return [store.add(record, replace=replace).name for record in records]
