"""Running a study from its file to a finished ledger, and reading its results back.

load_study -> plan_study -> run_study; then softprompt.analysis.read and softprompt.report.study
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.errors import Interrupted
from softprompt.study.build import build_grid
from softprompt.study.executor_options import make_executor
from softprompt.study.executors import Executor, Order, Outcome
from softprompt.study.grid import CellId, Facts, Grid, Pack, StudyCell, packs
from softprompt.study.ledger import Ledger
from softprompt.study.reading import facts_of, open_study
from softprompt.study.runner import DEFAULT_RUNNER, make_runner
from softprompt.study.settings import Study, load_study

__all__ = [
    "RunProgress",
    "RunSummary",
    "clock",
    "facts_of",
    "load_study",
    "open_study",
    "run_study",
]

TRIES = 3
"""How often a pack whose worker was lost is given out."""


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """What an observer is told.

    Attributes:
        cells: cells of the study.
        done: finished ones, those of earlier runs included.
        steps_left: prompt tuning steps that remain.
        rate: prompt tuning steps a second in this run; 0 while unknown.
        seconds_left: estimate; None while unknown.
        event: what just happened, for people; empty for a step.
    """

    cells: int
    done: int
    steps_left: int
    rate: float
    seconds_left: float | None
    event: str = ""

    def line(self) -> str:
        """One line for a terminal."""
        left = "time left unknown" if self.seconds_left is None else f"{clock(self.seconds_left)} left"
        rate = f"{self.rate:,.1f} prompt-steps/s" if self.rate else "rate unknown"
        return f"{self.done} of {self.cells} cells, {rate}, {left}" + (f" · {self.event}" if self.event else "")


def clock(seconds: float) -> str:
    """``3 d 4 h``, ``2 h 5 min``, ``4 min``, ``12 s``."""
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole % 86_400 // 3600, whole % 3600 // 60
    if days:
        return f"{days:,} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if whole >= 120 else f"{whole} s"


Observer = Callable[[RunProgress], None]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """How a run of a study ended.

    Attributes:
        cells: cells of the study.
        done: finished ones.
        made: cells finished in this run.
        failed: packs that cannot be made, with the reason.
        seconds: of this run.
        lost: workers that were lost on the way.
    """

    cells: int
    done: int
    made: int
    failed: tuple[str, ...]
    seconds: float
    lost: int

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.done == self.cells


@dataclass
class _State:
    """A run on its way."""

    study: Study
    grid: Grid
    ledger: Ledger
    executor: Executor
    observer: Observer | None
    order: Callable[[Pack], Order]
    started: float = field(default_factory=time.monotonic)
    active: dict[str, Pack] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    first_steps: dict[str, int] = field(default_factory=dict)
    finished_steps: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    failed: dict[CellId, str] = field(default_factory=dict)
    alone: set[CellId] = field(default_factory=set)
    lost: int = 0
    missing: list[StudyCell] = field(default_factory=list)

    def tell(self, event: str = "") -> None:
        """Tell the observer where the run stands."""
        if self.observer is None:
            return
        known = {key: done for key, done in self.steps.items() if key in self.active}
        open_steps = sum(done - self.first_steps[key] for key, done in known.items())
        seconds = time.monotonic() - self.started
        rate = (self.finished_steps + open_steps) / seconds if seconds > 0 else 0.0
        lacking = {cell.id for cell in self.missing}
        recorded = sum(c.steps for key in known for c in self.active[key].cells if c.id not in lacking)
        left = max(0, sum(cell.steps for cell in self.missing) - sum(known.values()) + recorded)
        self.observer(
            RunProgress(
                cells=len(self.grid.cells),
                done=len(self.grid.cells) - len(self.missing),
                steps_left=left,
                rate=rate,
                seconds_left=left / rate if rate > 0 else None,
                event=event,
            )
        )


def run_study(
    study: Study,
    folder: str | Path,
    executor: str | Executor = "serial",
    *,
    runner: str = DEFAULT_RUNNER,
    runner_options: Mapping[str, Any] | None = None,
    executor_options: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> RunSummary:
    """Make every cell of a study that its ledger does not hold yet. Running it again resumes it.

    Args:
        study: from `load_study`.
        folder: of the ledger; several studies on one backbone may share it.
        executor: ``serial``, ``processes``, ``ray`` or ``slurm``, or one that was made before (then it stays open).
        runner: ``module:factory`` of what makes cells.
        runner_options: its keyword arguments, e.g. ``device``.
        executor_options: e.g. ``workers``.
        observer: told of progress.

    Raises:
        UsageError: another run holds the ledger, or a task's data or an option is wrong.
        IncompatibleBackboneError: the ledger belongs to another backbone.
        Interrupted: stopped; everything finished is kept, and running again goes on.
        StorageError: the disk is full.
    """
    ledger = Ledger(folder)
    with ledger.lock(f"study '{study.name}'"):
        facts = make_runner(runner, runner_options).facts(study)
        ledger.claim(facts.backbone, facts.fingerprint)
        grid = build_grid(study, facts)
        _note(ledger, study, facts)
        _sweep(ledger)
        name = executor if isinstance(executor, str) else type(executor).__name__
        order = _orders(study, ledger, runner, dict(runner_options or {}), name)
        with _opened(executor, ledger, executor_options) as made, _terminable():
            state = _State(study=study, grid=grid, ledger=ledger, executor=made, observer=observer, order=order)
            return _conduct(state)


@contextlib.contextmanager
def _opened(executor: str | Executor, ledger: Ledger, options: Mapping[str, Any] | None) -> Iterator[Executor]:
    """An executor by name, closed in the end; one that was made before stays open."""
    if not isinstance(executor, str):
        yield executor
        return
    made = make_executor(executor, ledger.folder, **(options or {}))
    try:
        yield made
    finally:
        made.close()


def _orders(
    study: Study, ledger: Ledger, runner: str, options: dict[str, Any], executor: str
) -> Callable[[Pack], Order]:
    """What gives a pack to a worker, wherever it is."""
    provenance = {"study": study.name, "command": " ".join(sys.argv), "executor": executor}

    def order(pack: Pack) -> Order:
        return Order(
            ledger=str(ledger.folder.resolve()), study=study.plain(), pack=pack.plain(), runner=runner, options=options,
            provenance=provenance,
        )  # fmt: skip

    return order


def _note(ledger: Ledger, study: Study, facts: Facts) -> None:
    ledger.note(study.name, "study", study.plain())
    ledger.note(
        study.name,
        "facts",
        {
            "backbone": facts.backbone,
            "fingerprint": facts.fingerprint,
            "dtype": facts.dtype,
            "parameters": facts.parameters,
            "kind": facts.kind,
            "data": {
                name: {**data.identity(), "validation_rows": data.validation_rows} for name, data in facts.data.items()
            },
            "contamination": [list(row) for row in facts.contamination],
        },
    )


def _sweep(ledger: Ledger) -> None:
    """Remove what killed writers left, and packs whose members are all recorded (made one by one after a failure)."""
    for kind in ledger.kinds():
        artifacts.sweep(ledger.folder / "cells" / kind)
    folder = ledger.folder / "packs"
    for path in folder.glob("*/pack.json") if folder.is_dir() else ():
        pack = Pack.of_plain(artifacts.read_json(path)["pack"])
        if all(ledger.has(*cell.id) for cell in pack.cells):
            artifacts.remove_folder(path.parent)


def _conduct(state: _State) -> RunSummary:
    state.missing = state.grid.missing(state.ledger)
    before = len(state.grid.cells) - len(state.missing)
    state.tell("starting" if before == 0 else "resuming")
    try:
        while True:
            _fill(state)
            if not state.active:
                break
            for outcome in state.executor.wait(1.0):
                _settle(state, outcome)
            state.ledger.renew()
            state.tell()
    except (KeyboardInterrupt, Interrupted) as error:
        state.executor.stop()
        done = len(state.grid.cells) - len(state.grid.missing(state.ledger))
        raise Interrupted(
            f"study '{state.study.name}' was stopped with {done} of {len(state.grid.cells)} cells finished; everything is "
            f"kept in {state.ledger.folder}: run the same study again to go on."
        ) from error
    _sweep(state.ledger)
    done = len(state.grid.cells) - len(state.grid.missing(state.ledger))
    return RunSummary(
        cells=len(state.grid.cells),
        done=done,
        made=done - before,
        failed=tuple(f"{state.grid.cells[cell].name}: {why}" for cell, why in state.failed.items()),
        seconds=time.monotonic() - state.started,
        lost=state.lost,
    )


def _fill(state: _State) -> None:
    """Give out packs until every slot has one or nothing is ready."""
    if len(state.active) >= state.executor.slots:
        return
    state.missing = state.grid.missing(state.ledger)
    busy = {cell.id for pack in state.active.values() for cell in pack.cells}
    ready = [cell for cell in state.grid.ready(state.ledger) if cell.id not in busy and cell.id not in state.failed]
    begun = _begun(state, {cell.id for cell in ready})
    held = {cell.id for pack in begun for cell in pack.cells}
    single = [cell for cell in ready if cell.id in state.alone and cell.id not in held]
    free = [cell for cell in ready if cell.id not in held and cell.id not in state.alone]
    offered = [*begun, *packs(state.grid, single, 1), *packs(state.grid, free, state.study.group)]
    for pack in offered[: state.executor.slots - len(state.active)]:
        state.active[pack.key] = pack
        state.tell(f"{_words(pack)} started")
        state.executor.submit(state.order(pack), _teller(state, pack.key))


def _begun(state: _State, ready: set[CellId]) -> list[Pack]:
    """Packs that were on their way when an earlier run ended, as they were: resuming them is exact."""
    folder = state.ledger.folder / "packs"
    found = []
    for path in sorted(folder.glob("*/pack.json")) if folder.is_dir() else ():
        pack = Pack.of_plain(artifacts.read_json(path)["pack"])
        members = {cell.id for cell in pack.cells}
        if pack.key in state.active or members & set(state.failed) or members & state.alone:
            continue
        # Some members may be recorded already; their result comes out of the run directory and is not made again.
        if members & ready and all(cell in state.grid.cells for cell in members):
            found.append(pack)
    return found


def _teller(state: _State, key: str) -> Callable[[int, int], None]:
    def tell(done: int, fresh: int) -> None:
        state.first_steps.setdefault(key, done - fresh)
        state.steps[key] = done
        state.tell()

    return tell


def _settle(state: _State, outcome: Outcome) -> None:
    pack = state.active.pop(outcome.key)
    state.steps.pop(outcome.key, None)
    first = state.first_steps.pop(outcome.key, 0)
    if outcome.kind == "done":
        state.finished_steps += sum(cell.steps for cell in pack.cells) - first
        state.missing = state.grid.missing(state.ledger)
        state.tell(f"{_words(pack)} finished")
        absent = {cell.id for cell in state.missing} & {cell.id for cell in pack.cells}
        for cell in absent:
            state.failed[cell] = "its worker reported it as made, but the ledger does not hold it."
    elif outcome.kind == "disk":
        state.executor.stop()
        raise artifacts.StorageError(outcome.message)
    elif outcome.kind == "interrupted":
        raise Interrupted(outcome.message)
    elif outcome.kind == "lost":
        state.lost += 1
        state.tries[pack.key] = state.tries.get(pack.key, 0) + 1
        state.tell(f"{_words(pack)}: {outcome.message}")
        if state.tries[pack.key] >= TRIES:
            _give_up(state, pack, f"its worker was lost {TRIES} times; the last time {outcome.message}")
    else:
        _give_up(state, pack, outcome.message)


def _give_up(state: _State, pack: Pack, why: str) -> None:
    """A pack that fails is tried cell by cell; a cell that fails alone is left out, and said so."""
    state.tell(f"{_words(pack)} failed: {why}")
    if len(pack.cells) > 1:
        state.alone |= {cell.id for cell in pack.cells}
        return
    state.failed[pack.cells[0].id] = why


def _words(pack: Pack) -> str:
    shown = ", ".join(cell.name for cell in pack.cells[:3]) + (", ..." if len(pack.cells) > 3 else "")
    return f"{pack.kind} {shown}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM as Ctrl-C, while a study runs in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
