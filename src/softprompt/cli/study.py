"""``softprompt study``: which task helps which, as one resumable grid."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.output import Answer, both, console, lines, table
from softprompt.cli.progress import QUIET_SECONDS, say
from softprompt.errors import Interrupted, SoftpromptError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.analysis.tables import Table
    from softprompt.study.ladder import Ladder, Part
    from softprompt.study.run import RunProgress, RunSummary
    from softprompt.study.settings import Study

study = group("study", "Which task helps which: one resumable grid.")

StudyName = Annotated[str, typer.Argument(help="Study file (.toml) or ready study, e.g. demo, small, paper.")]
Ledger = Annotated[Path, typer.Argument(help="Ledger folder of a study.", show_default=False)]
Which = Annotated[str | None, typer.Option("--study", help="Its name, where the ledger holds several.")]
Executor = Annotated[Literal["serial", "processes", "ray", "slurm"], typer.Option("--executor", help="Who trains.")]


@command(study, "plan")
def plan(
    name: StudyName,
    out: Annotated[Path | None, typer.Option("--out", help="Its ledger, for what is finished already.")] = None,
    look: Annotated[
        bool, typer.Option("--look/--no-look", help="Open every source and the backbone: finds what is missing.")
    ] = True,
    timing: Annotated[
        float, typer.Option("--timing", help="Seconds of the study's own steps that are timed here; 0 for none.", min=0)
    ] = 30.0,
    rate: Annotated[float | None, typer.Option("--rate", help="Measured training positions a second here.")] = None,
    device: o.Device = "auto",
) -> Answer:
    """Count cells and steps; time, memory and storage from timed steps; what is missing."""
    from softprompt.study.plan import plan_study
    from softprompt.study.survey import survey

    loaded = _load(name)
    found = survey(loaded, device, timing=0.0 if rate else timing, facts=out is not None) if look else None
    made = plan_study(loaded, out, rate=rate, **(found.known() if found is not None else {}))
    own = found.problems if found is not None else ("nothing was looked at (--no-look).",)
    data = {
        "study": loaded.name,
        "cells": made.cells,
        "steps_left": made.steps_left,
        "rows": made.rows,
        "estimates": made.estimates,
        "contamination": made.contamination,
        "notes": made.notes,
        "problems": [*own, *made.problems],
    }
    return Answer(
        data=data, show=lines(made.to_text(), *(f"problem: {problem}" for problem in own)),
        next=[("study", "run", name, "--out", f"runs/{loaded.name}")],
    )  # fmt: skip


@command(study, "run")
def run(
    name: StudyName,
    out: Annotated[
        Path, typer.Option("--out", help="Ledger folder; several studies may share one.", show_default=False)
    ],
    executor: Executor = "serial",
    workers: o.Workers = None,
    executor_option: o.ExecutorOptions = None,
    device: o.Device = "auto",
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Make every cell that the ledger lacks."""
    return _conduct(_load(name), out, executor, _options(executor, executor_option, workers), device, checkpointing)


@command(study, "resume")
def resume(
    ledger: Ledger,
    which: Which = None,
    executor: Executor = "serial",
    workers: o.Workers = None,
    executor_option: o.ExecutorOptions = None,
    device: o.Device = "auto",
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Go on with a study from its ledger alone."""
    from softprompt.study.run import open_study

    o.quiet_transformers()
    loaded, _, _ = open_study(ledger, which)
    return _conduct(loaded, ledger, executor, _options(executor, executor_option, workers), device, checkpointing)


@command(study, "report")
def report(
    ledger: Annotated[
        Path, typer.Argument(help="Ledger folder of a study, or lines kept of one (.jsonl).", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Where it goes; LEDGER/report if not given.")] = None,
    which: Which = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", metavar="LEDGER", help="The same study on another backbone; may be repeated."),
    ] = None,
    figures: o.Figures = True,
) -> Answer:
    """Write tables, figures and a page of what is finished."""
    from softprompt.report.study import report_lines, report_study

    if ledger.is_file():  # lines that were kept of a ledger
        if which is None or beside:
            raise UsageError(
                f"{ledger} is a file of ledger lines: name the study they are of with --study, without --beside."
            )
        made = report_lines(ledger, _load(which), out or ledger.parent / "report", figures=figures)
    else:
        made = report_study(ledger, out or ledger / "report", which, figures=figures, beside=beside or ())
    told = [f"page     {made.page}", f"tables   {len(made.tables)} in {made.page.parent / 'tables'}"]
    told += [f"figures  {len(made.figures)} in {made.page.parent / 'figures'}"] if made.figures else []
    return Answer(data={"report": made}, show=lines(*told, *(f"left out: {why}" for why in made.left_out)))


@command(study, "generic")
def generic(
    ledger: Ledger,
    studies: Annotated[
        str | None, typer.Option("--study", help="Studies of the ledger, the main one first, commas between.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the table here, as CSV and LaTeX.")] = None,
) -> Answer:
    """Average over GLUE and SuperGLUE by source (SPoT Table 1)."""
    from softprompt.analysis.benchmarks import ledger_table
    from softprompt.report.page import write_table

    made = ledger_table(ledger, o.words(studies, "--study") if studies is not None else ())
    files = write_table(made, out) if out is not None else []
    told = lines(made.to_text(), *(f"written: {path}" for path in files))
    return Answer(data={"rows": _records(made), "notes": made.notes, "files": files}, show=told)


@command(study, "sizes")
def sizes(
    ledgers: Annotated[
        list[Path],
        typer.Argument(metavar="LEDGER...", help="Ledgers of one study, one a backbone.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where table and figure go.", show_default=False)],
    which: Which = None,
    figures: o.Figures = True,
) -> Answer:
    """Compare a study over several backbones: score against size."""
    from softprompt.analysis.sizes import size_series, size_table, sized_studies
    from softprompt.report.figures import save, score_against_size
    from softprompt.report.page import write_table

    studies = sized_studies(ledgers, which)
    table = size_table(studies)
    files = write_table(table, out)
    if figures:
        figure = score_against_size(size_series(studies))
        files += [save(figure, out / f"sizes.{kind}") for kind in ("png", "svg")]
    told = lines(table.to_text(), "", *(f"written: {path}" for path in files))
    backbones = [{"backbone": one.backbone, "parameters": one.parameters} for one in studies]
    return Answer(data={"backbones": backbones, "rows": _records(table), "files": files}, show=told)


@command(study, "ladder")
def ladder(
    name: Annotated[str, typer.Argument(help="Ladder file (.toml) or ready ladder: figure1.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Ledgers, one a part, table and figure.")] = Path("runs/ladder"),
    sizes: Annotated[str | None, typer.Option("--sizes", help="Only these sizes, commas between.")] = None,
    arms: Annotated[str | None, typer.Option("--arms", help="Only these methods, commas between.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Hours and memory of every part; nothing starts.")] = False,
    executor: Executor = "serial",
    workers: o.Workers = None,
    executor_option: o.ExecutorOptions = None,
    figures: o.Figures = True,
    device: o.Device = "auto",
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Methods by model size, each on its own backbone (SPoT Figure 1, Table 4)."""
    from softprompt.study.ladder import load_ladder

    o.quiet_transformers()
    loaded = load_ladder(name)
    chosen = _chosen(loaded, sizes, arms)
    if plan:
        return _planned(chosen)
    options = _options(executor, executor_option, workers)
    failed = []
    for part in chosen:
        try:
            _conduct(part.study, out / part.ledger, executor, options, device, checkpointing)
        except Interrupted:
            raise
        except SoftpromptError as error:
            failed.append(f"{part.arm} at {part.size}: {error}")
    return _climbed(loaded, out, figures, failed)


def _chosen(loaded: Ladder, sizes: str | None, arms: str | None) -> list[Part]:
    """The parts of a ladder that were asked for."""
    known = {"size": loaded.sizes, "method": tuple(dict.fromkeys(part.arm for part in loaded.parts))}
    asked = {
        "size": o.words(sizes, "--sizes") if sizes is not None else known["size"],
        "method": o.words(arms, "--arms") if arms is not None else known["method"],
    }
    for what, names in asked.items():
        for one in names:
            if one not in known[what]:
                raise UnknownNameError(f"{what} of ladder '{loaded.name}'", one, known[what])
    return [part for part in loaded.parts if part.size in asked["size"] and part.arm in asked["method"]]


def _planned(parts: Sequence[Part]) -> Answer:
    from softprompt.study.plan import plan_study

    rows = []
    for part in parts:
        made = plan_study(part.study)
        guess = next((one for one in made.estimates if one.machine == "one H100"), None)
        hours = guess.seconds / 3600 if guess is not None and guess.seconds is not None else None
        memory = guess.memory / 2**30 if guess is not None and guess.memory is not None else None
        rows.append([part.size, part.arm, part.study.backbone, made.cells, made.steps_left, hours, memory])
    columns = ["size", "method", "backbone", "cells", "steps", "hours on one H100", "GiB"]
    note = lines(
        "hours and memory are assumed (30% of the data sheet's peak); `study plan` of one part on the machine measures."
    )
    data = {"parts": [dict(zip(columns, row, strict=True)) for row in rows]}
    return Answer(data=data, show=both(table(columns, rows), note))


def _climbed(loaded: Ladder, out: Path, figures: bool, failed: Sequence[str]) -> Answer:
    """Table and figure of what is finished of a ladder."""
    from softprompt.analysis.sizes import ladder_series, ladder_table, rung
    from softprompt.report.figures import save, score_against_size
    from softprompt.report.page import write_table

    rungs = [rung(part.size, part.arm, out / part.ledger) for part in loaded.parts]
    made = ladder_table(rungs, loaded.published, loaded.title)
    files = write_table(made, out)
    series = ladder_series(rungs, loaded.published)
    if figures and series:
        files += [save(score_against_size(series), out / f"ladder.{kind}") for kind in ("png", "svg")]
    told = lines(
        made.to_text(), "", *(f"not finished: {why}" for why in failed), *(f"written: {path}" for path in files)
    )
    return Answer(data={"rows": _records(made), "failed": list(failed), "files": files}, show=told)


def _records(table: Table) -> list[dict[str, Any]]:
    """A table's rows by column, for JSON."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _options(executor: str, given: list[str] | None, workers: int | None) -> dict[str, Any]:
    from softprompt.study.executor_options import executor_options

    return executor_options(executor, given or (), workers)


def _load(name: str) -> Study:
    from softprompt.study.settings import load_study

    o.quiet_transformers()
    return load_study(name)


def _conduct(
    loaded: Study, ledger: Path, executor: str, options: dict[str, Any], device: str, checkpointing: bool
) -> Answer:
    from softprompt.study.run import run_study

    with watching() as observer:
        summary = run_study(
            loaded, ledger, executor, runner_options={"device": device, "checkpointing": checkpointing},
            executor_options=options, observer=observer,
        )  # fmt: skip
    if summary.failed:
        raise SoftpromptError(_failures(summary, ledger))
    told = f"{summary.done} of {summary.cells} cells finished, {summary.made} now, {summary.seconds:.0f} s; ledger {ledger}"
    return Answer(
        data={"study": loaded.name, "ledger": ledger, **_plain(summary)},
        show=lines(told),
        next=[("study", "report", ledger)],
    )


def _plain(summary: RunSummary) -> dict[str, Any]:
    return {key: getattr(summary, key) for key in ("cells", "done", "made", "failed", "seconds", "lost")}


def _failures(summary: RunSummary, ledger: Path) -> str:
    return (
        f"{summary.done} of {summary.cells} cells finished in {ledger}, {len(summary.failed)} pack(s) cannot be made: "
        f"{'; '.join(why.rstrip('.') for why in summary.failed)}. Mend that and run the same command again."
    )


@contextmanager
def watching() -> Iterator[Callable[[RunProgress], None]]:
    """An observer for `run_study`: one live line on a terminal; elsewhere a line for each event and now and then."""
    import time

    if sys.stderr.isatty():
        with console(stderr=True).status("starting") as status:

            def show(progress: RunProgress) -> None:
                status.update(progress.line())

            yield show
        return
    last = time.monotonic()

    def tell(progress: RunProgress) -> None:
        nonlocal last
        if progress.event or time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            say(progress.line())

    yield tell
