"""A ladder of model sizes: every method on every backbone, task and seed, as records for score against parameters.

SPoT Figure 1 and SharPT Figure 2. Records are JSON lines in ``ladder.jsonl``, one a cell; a finished cell is never run
again, and one on its way goes on from its last checkpoint. A ladder whose records were made with other settings or rows
is refused: averages over unlike cells would mislead.

Methods that need no other task are in ``ladder_methods.py``; SPoT, multi-task model tuning and SharPT, which learn from
source tasks first, are in ``softprompt.study.ladder``. Any function of a `Cell` can be a method.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.backbones.engine.host import peak_memory_bytes, start_peak_memory
from softprompt.errors import Interrupted, SoftpromptError, UnknownNameError, UsageError
from softprompt.tasks.task import Task
from softprompt.training.loop import Observer
from softprompt.training.weights.tuned import BYTES

T5_LADDER: Mapping[str, tuple[str, ...]] = {
    "t5-lm-adapted": tuple(f"google/t5-{size}-lm-adapt" for size in ("small", "base", "large", "xl", "xxl")),
    "t5-1.1": tuple(f"google/t5-v1_1-{size}" for size in ("small", "base", "large", "xl", "xxl")),
    "sharpt-sizes": tuple(f"google/t5-{size}-lm-adapt" for size in ("base", "large", "xl")),
}
"""The papers' sizes: SPoT's five (prompts are tuned on the LM-adapted ones, models on the original ones), and the three of
SharPT's Figure 2."""
RECORDS = "ladder.jsonl"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a method gave in one cell.

    Attributes:
        score: percent, of the best checkpoint on the reporting rows.
        tuned: parameters tuned for the task.
        steps: optimiser steps taken.
        seconds: of training and validation, those before an interruption included; None for the cell's wall clock.
        details: more plain JSON.
    """

    score: float
    tuned: int
    steps: int = 0
    seconds: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of a ladder.

    Attributes:
        backbone: loaded.
        task: the task.
        seed: of the run.
        folder: a run directory of its own; its parent is the backbone's.
        train_rows: at most this many training rows; None for all.
        validation_rows: likewise.
        observer: told of every step.
    """

    backbone: Backbone
    task: Task
    seed: int
    folder: Path
    train_rows: int | None = None
    validation_rows: int | None = None
    observer: Observer | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to adapt a backbone to a task.

    Attributes:
        run: makes one cell; continues what the cell's folder holds.
        settings: everything but backbone, rows and seed that the result depends on, as JSON takes it.
        passing: files of a cell's folder that are removed once the cell is recorded: a tuned model is as large as its
            backbone, and a ladder has many.
    """

    run: Callable[[Cell], Outcome]
    settings: Mapping[str, Any] = field(default_factory=dict)
    passing: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Climb:
    """A ladder climbed.

    Attributes:
        records: of every finished cell that the folder holds, older ones included.
        failed: cells of this request that could not be made, in words, and why.
    """

    records: tuple[Mapping[str, Any], ...]
    failed: Mapping[str, str]


Watch = Callable[[str], AbstractContextManager[Observer]]
"""Opens an observer for a cell, given its name."""


def climb(
    backbones: Sequence[str],
    tasks: Sequence[Task],
    methods: Mapping[str, Method],
    folder: Path,
    *,
    load: Callable[[str], Backbone],
    seeds: Sequence[int] = (0, 1, 2),
    train_rows: int | None = None,
    validation_rows: int | None = None,
    command: str = "",
    tell: Callable[[Mapping[str, Any]], None] | None = None,
    watch: Watch | None = None,
) -> Climb:
    """Run every cell that the folder does not hold yet, one backbone loaded at a time.

    A cell that cannot be made (a context too long, a model too large for the memory) is left out and named at the end.

    Args:
        backbones: ids or folders, smallest first.
        tasks: the tasks whose scores are averaged.
        methods: by name.
        folder: of the records and the run directories.
        load: loads a backbone.
        seeds: of every cell.
        train_rows: at most this many training rows a task.
        validation_rows: likewise.
        command: that makes these records; kept in each.
        tell: called with each new record.
        watch: opens each cell's observer.

    Raises:
        UsageError: nothing to run, or the folder's records were made with other settings, rows or backbones.
        Interrupted: stopped; the same call goes on.
    """
    if not backbones or not tasks or not methods or not seeds:
        raise UsageError("a ladder needs at least one backbone, task, method and seed.")
    ladder = _Ladder(folder, methods, _data(tasks, train_rows, validation_rows), command, tell, watch)
    for name in backbones:
        cells = [(t, m, s) for t in tasks for m in methods for s in seeds if (name, t.name, m, s) not in ladder.done]
        if cells:
            ladder.climb(name, load, cells, train_rows, validation_rows)
    return Climb(records=tuple(ladder.records), failed=ladder.failed)


class _Ladder:
    """A ladder on its way: what is finished, and what makes the rest."""

    def __init__(
        self, folder: Path, methods: Mapping[str, Method], data: Mapping[str, Any], command: str,
        tell: Callable[[Mapping[str, Any]], None] | None, watch: Watch | None,
    ) -> None:  # fmt: skip
        self.folder, self.methods, self.data, self.command = folder, methods, data, command
        self.tell, self.watch = tell, watch
        self.path = folder / RECORDS
        self.records = artifacts.read_json_lines(self.path) if self.path.exists() else []
        parallel.wait()  # until every process has read what there is
        self.settings = {
            name: artifacts.parse_json(artifacts.json_bytes(dict(method.settings)), self.path)
            for name, method in methods.items()
        }
        self.failed: dict[str, str] = {}
        for record in self.records:
            self._check(record)
        self.done = {(r["backbone"], r["task"], r["method"], r["seed"]) for r in self.records}

    def _check(self, record: Mapping[str, Any]) -> None:
        """Refuses a record that the present request would mix with unlike ones."""
        pairs = (("settings", self.settings.get(record["method"])), ("data", self.data.get(record["task"])))
        for what, wanted in pairs:
            found = record.get(what, {})
            if wanted is not None and found != wanted:
                name = record["method"] if what == "settings" else record["task"]
                raise UsageError(
                    f"the ladder in {self.folder} ran {name} with other {what} ({_difference(found, wanted)}): "
                    "choose another folder, or repeat what it was started with."
                )

    def climb(
        self, name: str, load: Callable[[str], Backbone], cells: Sequence[tuple[Task, str, int]],
        train_rows: int | None, validation_rows: int | None,
    ) -> None:  # fmt: skip
        """The missing cells of one backbone."""
        backbone = load(name)
        known = {r["fingerprint"] for r in self.records if r["backbone"] == name}
        if known - {backbone.fingerprint}:
            raise UsageError(
                f"the ladder in {self.folder} holds records of another backbone under the name {name}: "
                "choose another folder for this one."
            )
        for task, method, seed in cells:
            words = f"{method} on {name}, {task.name}, seed {seed}"
            with self.watch(words) if self.watch is not None else nullcontext() as observer:
                cell = Cell(
                    backbone=backbone, task=task, seed=seed, train_rows=train_rows, validation_rows=validation_rows,
                    folder=self.folder / folder_name(name) / f"{method}-{task.name}-{seed}", observer=observer,
                )  # fmt: skip
                self._make(name, method, cell, words)

    def _make(self, name: str, method: str, cell: Cell, words: str) -> None:
        started = time.perf_counter()
        start_peak_memory(cell.backbone.device)
        try:
            outcome = self.methods[method].run(cell)
        except Interrupted as error:
            raise Interrupted(
                f"the ladder was stopped in {words}; what is finished is kept in {self.folder}: run the same command "
                "again to go on."
            ) from error
        except artifacts.StorageError:
            raise
        except SoftpromptError as error:
            self.failed[words] = str(error)
            return
        record = {
            "backbone": name,
            "fingerprint": cell.backbone.fingerprint,
            "parameters": cell.backbone.parameter_count,
            "device": str(cell.backbone.device),
            "dtype": str(cell.backbone.dtype).removeprefix("torch."),
            "task": cell.task.name,
            "method": method,
            "seed": cell.seed,
            "score": outcome.score,
            "tuned_parameters": outcome.tuned,
            "stored_bytes": BYTES * outcome.tuned,
            "steps": outcome.steps,
            "seconds": round(time.perf_counter() - started if outcome.seconds is None else outcome.seconds, 3),
            "peak_bytes": peak_memory_bytes(cell.backbone.device),
            "data": self.data[cell.task.name],
            "settings": self.settings[method],
            "command": self.command,
            "details": dict(outcome.details),
        }
        self.records.append(record)
        if parallel.is_main():  # under torchrun every process climbs, and one writes
            artifacts.append_json_line(self.path, record, durable=True)
            for file in self.methods[method].passing:
                (cell.folder / file).unlink(missing_ok=True)
        if self.tell is not None:
            self.tell(record)


def _data(tasks: Sequence[Task], train_rows: int | None, validation_rows: int | None) -> dict[str, dict[str, str]]:
    """The fingerprints of each task's rows."""
    wanted = (("train", train_rows), ("validation", validation_rows))
    return {t.name: {split: t.split(split, max_rows=rows).fingerprint for split, rows in wanted} for t in tasks}


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    return "; ".join(f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now" for name in names[:3])


def figure_series(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float, float | None]]]:
    """Method to (parameters, mean score, standard deviation over seeds), in rising size.

    A seed's score is its mean over the tasks; the deviation (ddof 1) is None for a single seed. Only seeds with every
    task of the ladder count, so that averages are over the same tasks.
    """
    series: dict[str, list[tuple[float, float, float | None]]] = {}
    for method in dict.fromkeys(r["method"] for r in records):
        points = []
        for backbone in dict.fromkeys(r["backbone"] for r in records if r["method"] == method):
            means = seed_means(records, method, backbone)
            if means:
                size = next(r["parameters"] for r in records if r["backbone"] == backbone)
                spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
                points.append((float(size), float(np.mean(means)), spread))
        series[method] = sorted(points)
    return series


def seed_means(records: Sequence[Mapping[str, Any]], method: str, backbone: str) -> list[float]:
    """Each seed's mean over the ladder's tasks, percent; seeds that lack a task are left out."""
    tasks = {r["task"] for r in records}
    scores: dict[int, dict[str, float]] = {}
    for record in records:
        if record["method"] == method and record["backbone"] == backbone:
            scores.setdefault(record["seed"], {})[record["task"]] = record["score"]
    return [float(np.mean(list(own.values()))) for own in scores.values() if set(own) == tasks]


def ladder_names(name: str) -> tuple[str, ...]:
    """The backbones of a ladder by the papers' names."""
    if name not in T5_LADDER:
        raise UnknownNameError("ladder", name, T5_LADDER, "Or give a list of hub ids or folders.")
    return T5_LADDER[name]


def folder_name(backbone: str) -> str:
    """A safe folder name for an id or a path; a digest keeps different paths apart."""
    last = "".join(c if c.isalnum() or c in "_-" else "-" for c in Path(backbone).name) or "backbone"
    return f"{last}-{artifacts.sha256_bytes(backbone.encode())[:8]}"
