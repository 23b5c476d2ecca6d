"""A ladder of model sizes: every method on every backbone, task and seed, as records for score against parameters.

SPoT Figure 1 and SharPT Figure 2. Records are JSON lines, one a cell; a finished cell is never run again.

Methods of this room are built in. Others (SPoT's transfer, SharPT) are given as functions, since this room does not
know theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.baselines.counts import count, peak_memory_bytes, shape_of
from softprompt.baselines.lora import LoraSettings, tune_lora
from softprompt.baselines.model_tuning import tune_model
from softprompt.baselines.prompt_design import DesignSettings, prompt_design
from softprompt.baselines.tune_settings import TuneSettings
from softprompt.baselines.tuned import TunedModel
from softprompt.errors import UnknownNameError, UsageError
from softprompt.prompts.init import default_init, initial_prompts
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData, task_data
from softprompt.training.loop import train_prompts
from softprompt.training.settings import TrainSettings

T5_LADDER: Mapping[str, tuple[str, ...]] = {
    "t5-lm-adapted": tuple(f"google/t5-{size}-lm-adapt" for size in ("small", "base", "large", "xl", "xxl")),
    "t5-1.1": tuple(f"google/t5-v1_1-{size}" for size in ("small", "base", "large", "xl", "xxl")),
}
"""The papers' sizes: prompts are tuned on the LM-adapted ones, models on the original ones."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a method gave in one cell.

    Attributes:
        score: percent, of the best checkpoint on the reporting rows.
        tuned: parameters tuned for the task.
        steps: optimiser steps taken.
        details: more plain JSON.
    """

    score: float
    tuned: int
    steps: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of a ladder.

    Attributes:
        backbone: loaded.
        task: the task.
        seed: of the run.
        folder: a run directory of its own.
        train_rows: at most this many training rows; None for all.
        validation_rows: likewise.
    """

    backbone: Backbone
    task: Task
    seed: int
    folder: Path
    train_rows: int | None = None
    validation_rows: int | None = None

    def data(self, settings: TrainSettings) -> TaskData:
        """The task tokenised for the backbone."""
        return task_data(
            self.backbone, self.task, settings, train_rows=self.train_rows, validation_rows=self.validation_rows
        )


Method = Callable[[Cell], Outcome]


def prompt_tuning_method(settings: TrainSettings) -> Method:
    """Prompt tuning from class labels (Lester et al. 2021)."""

    def run(cell: Cell) -> Outcome:
        labels = cell.task.labels
        init = default_init("scratch", labels=labels)
        start = initial_prompts(cell.backbone, init, settings.prompt_length, [cell.seed]).to(cell.backbone.device)
        prompts = PromptStack(start, tuned=True)
        one = cell.data(settings).run(cell.task.name, cell.seed)
        (result,) = train_prompts(cell.backbone, prompts, [one], settings, cell.folder, resume=True)
        tuned = count("prompt-tuning", shape_of(cell.backbone), prompt_length=settings.prompt_length).tuned
        return Outcome(score=result.scores["score"], tuned=tuned, steps=result.steps, details={"scores": result.scores})

    return run


def model_tuning_method(settings: TuneSettings) -> Method:
    """Model tuning of all weights."""

    def run(cell: Cell) -> Outcome:
        one = cell.data(_as_train(settings)).run(cell.task.name, cell.seed)
        return _outcome(tune_model(cell.backbone, one, settings, cell.folder, resume=True))

    return run


def lora_method(settings: TuneSettings, lora: LoraSettings | None = None) -> Method:
    """LoRA through PEFT."""

    def run(cell: Cell) -> Outcome:
        one = cell.data(_as_train(settings)).run(cell.task.name, cell.seed)
        return _outcome(tune_lora(cell.backbone, one, settings, lora, cell.folder, resume=True))

    return run


def prompt_design_method(settings: DesignSettings) -> Method:
    """Few-shot text prompts; the score is by likelihood where the task is closed, by generation where it is not."""

    def run(cell: Cell) -> Outcome:
        found = prompt_design(
            cell.backbone,
            cell.task,
            DesignSettings(**{**vars_of(settings), "seed": cell.seed}),
            train=cell.task.split("train", max_rows=cell.train_rows),
            validation=cell.task.split("validation", max_rows=cell.validation_rows),
        )
        scores = found.likelihood if found.likelihood is not None else found.generation
        details = {"likelihood": found.likelihood, "generation": found.generation, "shots": len(found.examples)}
        return Outcome(score=scores["score"], tuned=0, details=details)

    return run


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
    tell: Callable[[Mapping[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Run every cell that ``folder/ladder.jsonl`` does not hold yet, one backbone loaded at a time.

    Args:
        backbones: ids or folders, smallest first.
        tasks: the tasks whose scores are averaged.
        methods: by name; see the ``*_method`` functions.
        folder: of the records and the run directories.
        load: loads a backbone.
        seeds: of every cell.
        train_rows: at most this many training rows a task.
        validation_rows: likewise.
        tell: called with each new record.

    Returns:
        All records, old and new.

    Raises:
        UsageError: nothing to run.
    """
    if not backbones or not tasks or not methods or not seeds:
        raise UsageError("a ladder needs at least one backbone, task, method and seed.")
    path = folder / "ladder.jsonl"
    records: list[dict[str, Any]] = artifacts.read_json_lines(path) if path.exists() else []
    done = {_key(record) for record in records}
    for name in backbones:
        wanted = [(t, m, s) for t in tasks for m in methods for s in seeds if (name, t.name, m, s) not in done]
        if not wanted:
            continue
        backbone = load(name)
        for task, method, seed in wanted:
            place = folder / _folder_name(name) / f"{method}-{task.name}-{seed}"
            cell = Cell(
                backbone=backbone, task=task, seed=seed, folder=place, train_rows=train_rows,
                validation_rows=validation_rows,
            )  # fmt: skip
            record = _record(name, cell, method, methods[method])
            artifacts.append_json_line(path, record, durable=True)
            records.append(record)
            if tell is not None:
                tell(record)
    return records


def _record(name: str, cell: Cell, method: str, run: Method) -> dict[str, Any]:
    started = time.perf_counter()
    outcome = run(cell)
    return {
        "backbone": name,
        "fingerprint": cell.backbone.fingerprint,
        "parameters": cell.backbone.parameter_count,
        "task": cell.task.name,
        "method": method,
        "seed": cell.seed,
        "score": outcome.score,
        "tuned_parameters": outcome.tuned,
        "stored_bytes": 4 * outcome.tuned,
        "steps": outcome.steps,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_bytes": peak_memory_bytes(cell.backbone.device),
        "details": dict(outcome.details),
    }


def figure_series(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float, float | None]]]:
    """Method to (parameters, mean score, standard deviation over seeds), in rising size.

    A seed's score is its mean over the tasks; the deviation (ddof 1) is None for a single seed. Only seeds with every
    task of their backbone and method count, so that averages are over the same tasks.
    """
    tasks = {r["task"] for r in records}
    series: dict[str, list[tuple[float, float, float | None]]] = {}
    for method in dict.fromkeys(r["method"] for r in records):
        points = []
        for backbone in dict.fromkeys(r["backbone"] for r in records if r["method"] == method):
            own = [r for r in records if r["method"] == method and r["backbone"] == backbone]
            by_seed = {
                seed: {r["task"]: r["score"] for r in own if r["seed"] == seed} for seed in {r["seed"] for r in own}
            }
            means = [float(np.mean(list(scores.values()))) for scores in by_seed.values() if set(scores) == tasks]
            if means:
                spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
                points.append((float(own[0]["parameters"]), float(np.mean(means)), spread))
        series[method] = sorted(points)
    return series


def ladder_names(name: str) -> tuple[str, ...]:
    """The backbones of a ladder by the papers' names."""
    if name not in T5_LADDER:
        raise UnknownNameError("ladder", name, T5_LADDER, "Or give a list of hub ids or folders.")
    return T5_LADDER[name]


def vars_of(settings: DesignSettings) -> dict[str, Any]:
    """A settings dataclass's fields by name."""
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def _key(record: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return record["backbone"], record["task"], record["method"], record["seed"]


def _folder_name(backbone: str) -> str:
    """A safe folder name for an id or a path; a digest keeps different paths apart."""
    last = "".join(c if c.isalnum() or c in "_-" else "-" for c in Path(backbone).name) or "backbone"
    return f"{last}-{artifacts.sha256_bytes(backbone.encode())[:8]}"


def _as_train(settings: TuneSettings) -> TrainSettings:
    """The token limits of model tuning, as tokenising asks for them."""
    return TrainSettings(
        steps=1,
        prompt_length=1,
        max_input_tokens=settings.max_input_tokens,
        max_target_tokens=settings.max_target_tokens,
    )


def _outcome(result: TunedModel) -> Outcome:
    details = {"scores": result.scores, "training_seconds": result.seconds, "tokens": result.tokens}
    return Outcome(score=result.scores["score"], tuned=result.tuned_parameters, steps=result.steps, details=details)
