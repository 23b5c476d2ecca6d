"""Running a study from its file to a finished ledger, and reading its results back.

load_study -> plan_study -> run_study -> collect -> report_study (softprompt.report.study)
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt.errors import Interrupted, UsageError
from softprompt.study.executors import Executor, Order, Outcome, make_executor
from softprompt.study.grid import ARM_STRATEGIES, CellId, Facts, Grid, Pack, StudyCell, build_grid, packs
from softprompt.study.ledger import Ledger
from softprompt.study.records import Floats, PromptId, Results, RunScore, StrategyScore
from softprompt.study.runner import DEFAULT_RUNNER, make_runner
from softprompt.study.settings import Study, load_study, study_of

__all__ = ["RunProgress", "RunSummary", "collect", "load_study", "open_study", "run_study"]

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
    steps: dict[str, tuple[int, int]] = field(default_factory=dict)
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
        open_steps = sum(
            (done - self.first_steps.get(key, 0)) * len(self.active[key].cells)
            for key, (done, _) in self.steps.items()
            if key in self.active
        )
        seconds = time.monotonic() - self.started
        rate = (self.finished_steps + open_steps) / seconds if seconds > 0 else 0.0
        behind = sum(done * len(self.active[key].cells) for key, (done, _) in self.steps.items() if key in self.active)
        left = max(0, sum(cell.steps for cell in self.missing) - behind)
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
        made = (
            make_executor(executor, ledger.folder, **(executor_options or {}))
            if isinstance(executor, str)
            else executor
        )
        provenance = {
            "study": study.name,
            "command": " ".join(sys.argv),
            "executor": executor if isinstance(executor, str) else type(executor).__name__,
        }

        def order(pack: Pack) -> Order:
            return Order(
                ledger=str(ledger.folder.resolve()),
                study=study.plain(),
                pack=pack.plain(),
                runner=runner,
                options=dict(runner_options or {}),
                provenance=provenance,
            )

        state = _State(study=study, grid=grid, ledger=ledger, executor=made, observer=observer, order=order)
        try:
            with _terminable():
                return _conduct(state)
        finally:
            if isinstance(executor, str):
                made.close()


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
    def tell(done: int, total: int) -> None:
        state.first_steps.setdefault(key, done - 1)
        state.steps[key] = done, total
        state.tell()

    return tell


def _settle(state: _State, outcome: Outcome) -> None:
    pack = state.active.pop(outcome.key)
    seen = state.steps.pop(outcome.key, None)
    first = state.first_steps.pop(outcome.key, 0)
    if outcome.kind == "done":
        per_cell = pack.cells[0].steps - first if seen is not None else pack.cells[0].steps
        state.finished_steps += per_cell * len(pack.cells)
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


# Reading results -----------------------------------------------------------------------------------------------------


def open_study(folder: str | Path, name: str | None = None) -> tuple[Study, Ledger, Mapping[str, Any]]:
    """A study that was run in a ledger, with its facts.

    Args:
        folder: of the ledger.
        name: of the study; may be left out where the ledger holds one.

    Raises:
        UsageError: there is none, or several and no name was given.
    """
    ledger = Ledger(folder)
    names = ledger.studies()
    if not names:
        raise UsageError(f"{folder} holds no study: run one there first (`softprompt study run STUDY --out {folder}`).")
    if name is None and len(names) > 1:
        raise UsageError(f"{folder} holds the studies {', '.join(names)}: say which one.")
    chosen = name or names[0]
    plain, facts = ledger.noted(chosen, "study"), ledger.noted(chosen, "facts")
    if plain is None or facts is None:
        raise UsageError(f"{folder} holds no study '{chosen}'; it holds {', '.join(names)}.")
    return study_of(plain, f"study '{chosen}'"), ledger, facts


def collect(study: Study, ledger: Ledger, facts: Facts) -> Results:
    """What is finished of a study, as records. Diverged runs and unfinished cells are absent."""
    grid = build_grid(study, facts)
    held = {kind: ledger.keys(kind) for kind in {kind for kind, _ in grid.cells}}
    runs, strategies = [], []
    for cell in grid.of_kind("evaluation"):
        of_kind, of_key = cell.spec["of"]
        if cell.key not in held["evaluation"] or of_key not in held[of_kind]:
            continue
        parent = grid.cells[of_kind, of_key]
        evaluation, training = ledger.read("evaluation", cell.key).result, ledger.read(of_kind, of_key).result
        score = _score(study, evaluation)
        if score is None:
            continue
        target, seed = str(parent.spec["target"]), int(parent.spec["seed"])
        if of_kind in ("baseline", "transfer"):
            source = (str(parent.spec["source"]), int(parent.spec["source_seed"])) if of_kind == "transfer" else None
            runs.append(
                RunScore(
                    target=target,
                    seed=seed,
                    score=score,
                    source=source,
                    halves=_pair(evaluation["halves"]),
                    seconds=float(training["seconds"]),
                    steps=int(training["steps"]),
                    diverged=training["status"] == "non_finite",
                )
            )
        else:
            names = {"weighted_average": "weighted_average", "mixture_transfer": "multitask_mixture", **ARM_STRATEGIES}
            similarity, k = str(parent.spec.get("similarity", "")), int(parent.spec.get("k", 0))
            strategies.append(
                StrategyScore(
                    strategy=names[of_kind], similarity=similarity, k=k, target=target, seed=seed, score=score
                )
            )
    embeddings, others = _embeddings(study, grid, ledger, held)
    return Results(
        sources=study.sources,
        targets=study.targets,
        seeds=study.seeds,
        runs=tuple(runs),
        embeddings=embeddings,
        other_embeddings=others,
        strategies=tuple(strategies),
        predictors=_predictors(study, facts, grid, ledger, held),
        report_half=1 if study.protocol == "halves" else None,
    )


def skill_relations(study: Study, ledger: Ledger, facts: Facts) -> tuple[list[str], Floats] | None:
    """SharPT's relations of tasks by shared skills, averaged over finished spaces; None without one."""
    cells = build_grid(study, facts).of_kind("latent_space")
    found = [
        ledger.read(cell.kind, cell.key).result.get("relations") for cell in cells if ledger.has(cell.kind, cell.key)
    ]
    known = [relation for relation in found if relation]
    if not known:
        return None
    return list(known[0]["tasks"]), np.mean([np.asarray(relation["cosine"]) for relation in known], axis=0)


def _score(study: Study, evaluation: Mapping[str, Any]) -> float | None:
    value = evaluation["halves"][1] if study.protocol == "halves" else evaluation["score"]
    return None if value is None else float(value)


def _pair(halves: Sequence[Any]) -> tuple[float, float] | None:
    first, second = halves
    return None if first is None or second is None else (float(first), float(second))


def _embeddings(
    study: Study, grid: Grid, ledger: Ledger, held: Mapping[str, set[str]]
) -> tuple[dict[PromptId, Floats], dict[str, dict[PromptId, Floats]]]:
    main: dict[PromptId, Floats] = {}
    others: dict[str, dict[PromptId, Floats]] = {}
    # A task that is source and target has two embeddings; the source's stands under its name unless only the other is
    # there. Similarities between tasks are the papers' for disjoint sources and targets.
    for cell in reversed(grid.of_kind("embedding")):
        if cell.key in held["embedding"]:
            place = str(cell.spec["name"]), int(cell.spec["seed"])
            step = int(cell.spec["step"])
            table = main if step == study.embedding.step else others.setdefault(str(step), {})
            table[place] = np.asarray(ledger.tensors("embedding", cell.key)["prompt"].numpy(), dtype=np.float64)
    if study.embedding.best:
        best: dict[PromptId, Floats] = {}
        for cell in [*grid.of_kind("baseline"), *grid.of_kind("source")]:
            if cell.key in held[cell.kind] and int(cell.spec["seed"]) in study.seeds:
                tensors = ledger.tensors(cell.kind, cell.key)
                if "best" in tensors:
                    place = str(cell.spec.get("source", cell.spec.get("target"))), int(cell.spec["seed"])
                    best[place] = np.asarray(tensors["best"].numpy(), dtype=np.float64)
        if best:
            others["best checkpoint"] = best
    return main, others


def _predictors(
    study: Study, facts: Facts, grid: Grid, ledger: Ledger, held: Mapping[str, set[str]]
) -> dict[str, dict[PromptId, dict[str, float]]]:
    """Further rankings: the sources' sizes, which cost nothing, and what the study measured."""
    found: dict[str, dict[PromptId, dict[str, float]]] = {}
    rows = {source: sum(facts.data[task].train_rows for task in study.tasks_of(source)) for source in study.sources}
    if any(rows.values()):
        found["data-size"] = {
            (source, seed): dict.fromkeys(study.targets, float(rows[source]))
            for source in study.sources
            for seed in study.seeds
        }
    for cell in grid.of_kind("prediction"):
        if cell.key not in held["prediction"]:
            continue
        values = ledger.read("prediction", cell.key).result["values"]
        for name, by_prompt in values.items():
            table = found.setdefault(name, {})
            for source, seed in cell.spec["names"]:
                value = by_prompt[f"{source}.{seed}"]
                if value is not None:
                    table.setdefault((source, int(seed)), {})[str(cell.spec["target"])] = float(value)
    return found


def facts_of(study: Study, noted: Mapping[str, Any]) -> Facts:
    """The facts a study was run with, from its ledger, so that a report needs neither data nor backbone."""
    from softprompt.study.grid import DataFacts

    data = {
        name: DataFacts(
            train=row["train"],
            validation=row["validation"],
            train_rows=row["train_rows"],
            validation_rows=row["validation_rows"],
            metrics=tuple(row["metrics"]),
            labels=tuple(row["labels"]),
        )
        for name, row in noted["data"].items()
    }
    return Facts(
        backbone=noted["backbone"],
        fingerprint=noted["fingerprint"],
        dtype=noted["dtype"],
        parameters=int(noted["parameters"]),
        data=data,
        contamination=tuple((t, s, int(n)) for t, s, n in noted["contamination"]),
    )
