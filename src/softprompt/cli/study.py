"""``softprompt study``: which task helps which, as one resumable grid."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.output import Answer, console, lines
from softprompt.cli.progress import QUIET_SECONDS, say
from softprompt.errors import SoftpromptError, UsageError

if TYPE_CHECKING:
    from softprompt.analysis.tables import Table
    from softprompt.study.run import RunProgress, RunSummary
    from softprompt.study.settings import Study

study = group("study", "Which task helps which: one resumable grid.")

StudyName = Annotated[str, typer.Argument(help="Study file (.toml) or ready study, e.g. demo, small, paper.")]
Ledger = Annotated[Path, typer.Argument(help="Ledger folder of a study.", show_default=False)]
Which = Annotated[str | None, typer.Option("--study", help="Its name, where the ledger holds several.")]
Executor = Annotated[Literal["serial", "processes", "ray", "slurm"], typer.Option("--executor", help="Who trains.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Workers of processes, ray or slurm.", min=1)]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--executor-option",
        metavar="KEY=VALUE",
        help="devices=cuda:0,cuda:1 (processes), gpus=1 (ray), slurm_partition=gpu (slurm), ...; may be repeated.",
    ),
]


@command(study, "plan")
def plan(
    name: StudyName,
    out: Annotated[Path | None, typer.Option("--out", help="Its ledger, for what is finished already.")] = None,
    look: Annotated[bool, typer.Option("--look", help="Read data and backbone first: finds what is missing.")] = False,
    rate: Annotated[float | None, typer.Option("--rate", help="Measured training positions a second here.")] = None,
    device: o.Device = "auto",
) -> Answer:
    """Count cells, steps, time, memory and storage before a run."""
    from softprompt.study.plan import plan_study

    loaded = _load(name)
    facts = None
    if look:
        from softprompt.study.runner import DEFAULT_RUNNER, make_runner

        facts = make_runner(DEFAULT_RUNNER, {"device": device}).facts(loaded)
    made = plan_study(loaded, out, facts=facts, rate=rate)
    data = {
        "study": loaded.name,
        "cells": made.cells,
        "steps_left": made.steps_left,
        "rows": made.rows,
        "estimates": made.estimates,
        "contamination": made.contamination,
        "notes": made.notes,
        "problems": made.problems,
    }
    return Answer(data=data, show=lines(made.to_text()), next=[("study", "run", name, "--out", f"runs/{loaded.name}")])


@command(study, "run")
def run(
    name: StudyName,
    out: Annotated[
        Path, typer.Option("--out", help="Ledger folder; several studies may share one.", show_default=False)
    ],
    executor: Executor = "serial",
    workers: Workers = None,
    executor_option: Options = None,
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
    workers: Workers = None,
    executor_option: Options = None,
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
