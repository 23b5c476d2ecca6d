"""``softprompt study``: which task helps which, as one resumable grid."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.flags import Flags, among, flag
from softprompt.cli.output import Answer, both, console, lines, table
from softprompt.cli.progress import QUIET_SECONDS, say
from softprompt.errors import Interrupted, SoftpromptError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.analysis.tables import Table
    from softprompt.study.ladder import Ladder, Part
    from softprompt.study.run import RunProgress, RunSummary
    from softprompt.study.settings import Study

study = group("study", "Measure which task helps which; resumable.")

Ledger = Annotated[Path, typer.Argument(help="Ledger folder of a study.", show_default=False)]
Which = Annotated[str | None, flag("--study", "Its name, where the ledger holds several.")]


def _studies() -> list[str]:
    from softprompt.study.settings import ready_studies

    return list(ready_studies())


StudyName = Annotated[
    str,
    typer.Argument(help="Study file (.toml) or ready study, e.g. demo, small, paper.", autocompletion=among(_studies)),
]


@dataclass(frozen=True, kw_only=True)
class WorkerFlags(Flags):
    """Who trains, and where."""

    executor: Annotated[Literal["serial", "processes", "ray", "slurm"], flag("--executor", "Who trains.")] = "serial"
    workers: o.Workers = None
    executor_option: o.ExecutorOptions = None
    device: o.Device = "auto"
    checkpointing: o.Checkpointing = False

    def conduct(self, loaded: Study, ledger: Path) -> Answer:
        """Make what the ledger lacks."""
        from softprompt.study.executor_options import executor_options
        from softprompt.study.run import run_study

        options = executor_options(self.executor, self.executor_option or (), self.workers)
        with watching() as observer:
            summary = run_study(
                loaded, ledger, self.executor, executor_options=options, observer=observer,
                runner_options={"device": self.device, "checkpointing": self.checkpointing},
            )  # fmt: skip
        if summary.failed:
            raise SoftpromptError(_failures(summary, ledger))
        told = f"{summary.done} of {summary.cells} cells finished, {summary.made} now, {summary.seconds:.0f} s; ledger {ledger}"
        data = {"study": loaded.name, "ledger": ledger, **_plain(summary)}
        return Answer(data=data, show=lines(told), next=_after(ledger))


@command(study, "plan", "softprompt study plan demo", "softprompt study plan paper.toml --out runs/paper --timing 60")
def plan(
    name: StudyName,
    *,
    out: Annotated[Path | None, flag("--out", "Its ledger, for what is finished already.")] = None,
    look: Annotated[
        bool, flag("--look/--no-look", "Open every source and the backbone: finds what is missing.")
    ] = True,
    timing: Annotated[
        float, flag("--timing", "Seconds of the study's own steps that are timed here; 0 for none.", min=0)
    ] = 30.0,
    rate: Annotated[float | None, flag("--rate", "Measured training positions a second here.")] = None,
    device: o.Device = "auto",
) -> Answer:
    """Count cells, steps, time, memory and storage before a run."""
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
        next=[("study", "run", name, "--out", out or f"runs/{loaded.name}", *by)
              for by in ((), ("--executor", "processes", "--workers", 2))],
    )  # fmt: skip


@command(
    study, "run", "softprompt study run demo --out runs/demo",
    "softprompt study run paper.toml --out runs/paper --executor slurm --workers 8",
)  # fmt: skip
def run(
    name: StudyName,
    *,
    out: Annotated[Path, flag("--out", "Ledger folder; several studies may share one.", show_default=False)],
    by: WorkerFlags,
) -> Answer:
    """Make every cell that the ledger lacks."""
    return by.conduct(_load(name), out)


@command(
    study, "resume", "softprompt study resume runs/demo",
    "softprompt study resume runs/paper --study paper --executor processes --workers 2",
)  # fmt: skip
def resume(ledger: Ledger, *, which: Which = None, by: WorkerFlags) -> Answer:
    """Go on with a study from its ledger alone."""
    from softprompt.study.run import open_study

    opening.quiet_transformers()
    return by.conduct(open_study(ledger, which)[0], ledger)


@command(
    study,
    "report",
    "softprompt study report runs/demo",
    "softprompt study report runs/paper --beside runs/paper-xl --out report",
)
def report(
    ledger: Annotated[
        Path, typer.Argument(help="Ledger folder of a study, or lines kept of one (.jsonl).", show_default=False)
    ],
    out: Annotated[Path | None, flag("--out", "Where it goes; LEDGER/report if not given.")] = None,
    which: Which = None,
    beside: Annotated[
        list[Path] | None, flag("--beside", "The same study on another backbone; may be repeated.", metavar="LEDGER")
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
    after = [("study", "resume", ledger), *_after(ledger)[1:]] if ledger.is_dir() else []
    return Answer(
        data={"report": made}, show=lines(*told, *(f"left out: {why}" for why in made.left_out)), next=after
    )  # fmt: skip


@command(
    study,
    "generic",
    "softprompt study generic runs/paper",
    "softprompt study generic runs/paper --study paper --out tables",
)
def generic(
    ledger: Ledger,
    studies: Annotated[
        str | None, flag("--study", "Studies of the ledger, the main one first, commas between.")
    ] = None,
    out: Annotated[Path | None, flag("--out", "Write the table here, as CSV and LaTeX.")] = None,
) -> Answer:
    """Average over GLUE and SuperGLUE by source (SPoT Table 1)."""
    from softprompt.analysis.benchmarks import ledger_table
    from softprompt.report.page import write_table

    made = ledger_table(ledger, opening.words(studies, "--study") if studies is not None else ())
    files = write_table(made, out) if out is not None else []
    told = lines(made.to_text(), *(f"written: {path}" for path in files))
    after = _after(ledger)
    return Answer(data={"rows": _records(made), "notes": made.notes, "files": files}, show=told, next=after)


@command(
    study,
    "ladder",
    "softprompt study ladder figure1 --plan",
    "softprompt study ladder figure1 --sizes small,base --out runs/figure1",
)
def ladder(
    name: Annotated[
        str, typer.Argument(help="Ladder file (.toml) or ready: figure1, sharpt-sizes.", show_default=False)
    ],
    *,
    out: Annotated[Path, flag("--out", "Ledgers, one a part, table and figure.")] = Path("runs/ladder"),
    sizes: Annotated[str | None, flag("--sizes", "Only these sizes, commas between.")] = None,
    arms: Annotated[str | None, flag("--arms", "Only these methods, commas between.")] = None,
    plan: Annotated[bool, flag("--plan", "Hours and memory of every part; nothing starts.")] = False,
    by: WorkerFlags,
    figures: o.Figures = True,
) -> Answer:
    """Compare methods by model size (SPoT Figure 1, Table 4)."""
    from softprompt.study.ladder import load_ladder

    opening.quiet_transformers()
    loaded = load_ladder(name)
    chosen = _chosen(loaded, sizes, arms)
    if plan:
        return _planned(name, chosen)
    failed = []
    for part in chosen:
        try:
            by.conduct(part.study, out / part.ledger)
        except Interrupted:
            raise
        except SoftpromptError as error:
            failed.append(f"{part.arm} at {part.size}: {error}")
    return _climbed(loaded, out, figures, failed)


def _chosen(loaded: Ladder, sizes: str | None, arms: str | None) -> list[Part]:
    """The parts of a ladder that were asked for."""
    known = {"size": loaded.sizes, "method": tuple(dict.fromkeys(part.arm for part in loaded.parts))}
    asked = {
        "size": opening.words(sizes, "--sizes") if sizes is not None else known["size"],
        "method": opening.words(arms, "--arms") if arms is not None else known["method"],
    }
    for what, names in asked.items():
        for one in names:
            if one not in known[what]:
                raise UnknownNameError(f"{what} of ladder '{loaded.name}'", one, known[what])
    return [part for part in loaded.parts if part.size in asked["size"] and part.arm in asked["method"]]


def _planned(name: str, parts: Sequence[Part]) -> Answer:
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
    after = [("study", "ladder", name), ("study", "ladder", name, "--sizes", parts[0].size)]
    return Answer(data=data, show=both(table(columns, rows), note), next=after)


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
    after = [("study", "report", out / part.ledger) for part in loaded.parts if (out / part.ledger).is_dir()][:3]
    return Answer(data={"rows": _records(made), "failed": list(failed), "files": files}, show=told, next=after)


def _records(table: Table) -> list[dict[str, Any]]:
    """A table's rows by column, for JSON."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _after(ledger: Path) -> list[tuple[object, ...]]:
    """What a ledger is for."""
    return [("study", "report", ledger), ("library", "add", "prompts", ledger)]


def _load(name: str) -> Study:
    from softprompt.study.settings import load_study

    opening.quiet_transformers()
    return load_study(name)


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
