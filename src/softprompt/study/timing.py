"""How fast a study's own steps go on this machine: a few of them are made, and timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softprompt.study.settings import Study

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.prompts.stack import PromptStack
    from softprompt.training.data import TaskData

SECONDS = 30.0
TASKS = 3
"""Targets whose rows are stepped through."""
ROWS = 512
"""Training rows of each."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Measured on this machine with the study's backbone, settings and rows.

    Attributes:
        train_rate: positions a second in training, all runs of a group together.
        eval_rate: positions a second in validation.
        memory: the most bytes that the device (or process) held.
        seconds: that were timed.
        steps: training steps that were timed.
        runs: that stepped together.
        tasks: whose rows they were.
    """

    train_rate: float
    eval_rate: float
    memory: int
    seconds: float
    steps: int
    runs: int
    tasks: tuple[str, ...]

    def line(self) -> str:
        """For a terminal."""
        return (
            f"measured here: {self.steps} steps of {self.runs} prompts on {', '.join(self.tasks)}, "
            f"{self.train_rate:,.0f} positions a second in training and {self.eval_rate:,.0f} in validation"
        )


def time_steps(study: Study, backbone: Backbone, names: Sequence[str], seconds: float = SECONDS) -> Timing | None:
    """Train and validate prompts of a study for some seconds; nothing is kept. None where every prompt diverged at once.

    Args:
        study: its target settings count, and as many prompts step together as in a pack of it.
        backbone: the study's.
        names: tasks whose rows are at hand; the first `TASKS` are used.
        seconds: two thirds of them train, one third validates.
    """
    from softprompt.backbones.engine.host import peak_memory_bytes, start_peak_memory

    data = [_rows(study, backbone, name) for name in names[:TASKS]]
    start_peak_memory(backbone.device)
    steps, positions, spent = _train(study, backbone, data, seconds * 2 / 3)
    if not positions:
        return None
    eval_positions, eval_spent = _validate(study, backbone, data, seconds / 3)
    return Timing(
        train_rate=positions / spent, eval_rate=eval_positions / eval_spent, memory=peak_memory_bytes(backbone.device),
        seconds=spent + eval_spent, steps=steps, runs=study.group, tasks=tuple(one.task.name for one in data),
    )  # fmt: skip


def _rows(study: Study, backbone: Backbone, name: str) -> TaskData:
    from softprompt.tasks.catalog import load_task
    from softprompt.training.data import task_data

    most = min(study.rows_of(name)["train"] or ROWS, ROWS)
    return task_data(
        backbone, load_task(name, study.data or None), study.target, train_rows=most,
        validation_rows=min(study.rows_of(name)["validation"] or ROWS, ROWS),
    )  # fmt: skip


def _train(study: Study, backbone: Backbone, data: Sequence[TaskData], seconds: float) -> tuple[int, float, float]:
    """(steps, positions, seconds) of a group like the study's, after one step that is not counted."""
    from softprompt.training.group import Group

    settings = study.target.having(embedding_step=0, patience=0)
    runs = [data[n % len(data)].run(f"timing-{n}", n) for n in range(study.group)]
    group = Group(backbone, _stack(study, backbone, study.group), runs, settings)
    group.step()
    before, started = sum(result.tokens for result in group.results), time.perf_counter()
    while group.active and (time.perf_counter() - started < seconds or group.step_number < 2):
        group.step()
    _wait(backbone)
    spent = time.perf_counter() - started
    return group.step_number - 1, float(sum(result.tokens for result in group.results) - before), spent


def _validate(study: Study, backbone: Backbone, data: Sequence[TaskData], seconds: float) -> tuple[float, float]:
    """(positions, seconds) of validations like the study's."""
    import numpy as np

    from softprompt.inference.evaluate import EvalJob, evaluate
    from softprompt.training.base import default_micro_tokens

    stack = _stack(study, backbone, 1)
    tokens = study.target.micro_batch_tokens or default_micro_tokens(backbone)
    positions, first, started = 0.0, 0, time.perf_counter()
    while time.perf_counter() - started < seconds or not positions:
        for one in data:
            size = len(one.validation)
            rows = np.arange(first, first + 32) % size
            job = EvalJob(run=0, task=one.task, split=one.validation, rows=np.unique(rows))
            (found,) = evaluate(
                backbone, stack, [job], max_target_tokens=study.target.max_target_tokens, batch_tokens=2 * tokens
            )
            positions += found.tokens
        first += 32
    return positions, time.perf_counter() - started


def _stack(study: Study, backbone: Backbone, count: int) -> PromptStack:
    from softprompt.prompts.init import default_init, initial_prompt
    from softprompt.prompts.stack import PromptStack

    prompts = [initial_prompt(backbone, default_init("source"), study.target.prompt_length, n) for n in range(count)]
    return PromptStack.of([prompt.to(backbone.device) for prompt in prompts], tuned=True)


def _wait(backbone: Backbone) -> None:
    import torch

    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
