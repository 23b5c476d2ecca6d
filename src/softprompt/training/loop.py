"""The training loop: prompt tuning on a frozen backbone (Lester et al. 2021; SPoT section 2.1.4), N runs in one batch.

Readable from top to bottom: step, keep the task embedding, validate, keep the best, checkpoint, let finished runs
leave; then the finalists are measured on their full validation rows.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.backbones.engine.host import KeptMemory, peak_memory_bytes
from softprompt.errors import DataError, Interrupted, NonFiniteError, UsageError
from softprompt.inference.evaluate import evaluate
from softprompt.prompts.prompter import Prompter
from softprompt.training.base import LoopGroup
from softprompt.training.group import Group
from softprompt.training.run_dir import RunDir, settings_plain
from softprompt.training.runs import Run, RunResult
from softprompt.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What an observer is told.

    Attributes:
        step: steps done.
        steps: steps in all.
        active: runs still training.
        records: validation records made at this step; empty between validations.
    """

    step: int
    steps: int
    active: int
    records: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Rough validations on the way, between those of ``eval_every``: they rank runs and choose no checkpoint.

    Attributes:
        at: after which steps. Where a validation is due, it stands for the look.
        rows: at most this many of a run's selecting rows, a seeded subset; 0 for all.
    """

    at: tuple[int, ...]
    rows: int = 0


Observer = Callable[[Progress], None]
# Called after each validation and look with the step and the active runs' results; names the runs that leave the race.
Leave = Callable[[int, Sequence[RunResult]], Sequence[str]]


def train_prompts(
    backbone: Backbone,
    prompter: Prompter,
    runs: Sequence[Run],
    settings: TrainSettings,
    folder: Path | None = None,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    leave: Leave | None = None,
    looks: Looks | None = None,
    extra_identity: dict[str, Any] | None = None,
) -> list[RunResult]:
    """Tune N prompts together; each comes out as if it had been tuned alone (to float tolerance).

    Args:
        backbone: frozen; its weights are never written.
        prompter: N runs, in the order of ``runs``. It is copied, not changed.
        runs: what each run trains on and is validated on.
        settings: shared by all runs.
        folder: run directory; None keeps everything in memory (then a stop loses the training).
        resume: continue, bit for bit, what ``folder`` holds (or start, where it holds nothing).
        observer: told of every step.
        leave: asked after each validation and look which runs to drop (transfer's race). A dropped run is not measured
            on its reporting rows.
        looks: rough validations at further steps, for ``leave``.
        extra_identity: more plain JSON that tells this training from another (e.g. how prompts were initialised).

    Returns:
        One result a run, in order. Runs that met a non-finite loss have status ``non_finite`` and their last good
        checkpoint; if all runs did, an error is raised instead.

    Raises:
        UsageError: the request cannot be trained as asked.
        Interrupted: stopped by a signal; the folder can be resumed.
        NonFiniteError: no run is left.
        OutOfMemoryError: not even one row fits.
    """
    settings = settings.resolved(backbone)
    _check(backbone, prompter, runs, settings)
    directory = None
    if folder is not None:
        identity = {**_identity(backbone, prompter, runs, settings, looks), **(extra_identity or {})}
        directory = open_run_dir(folder, identity, resume=resume)
        if directory is not None and (done := directory.finished([run.name for run in runs])) is not None:
            return done
    start, trained = (prompter.keep(range(prompter.run_count)) for _ in range(2))
    group = Group(backbone, trained, runs, settings)
    if directory is not None and (state := directory.load()) is not None:
        group.load(*state)
    parallel.wait()
    with stop_requests() as stopped:
        train_group(group, directory, observer, stopped, leave, looks)
    _final_scores(backbone, start, group)
    failed = [r for r in group.results if r.status == "non_finite"]
    if directory is not None:
        directory.finish(group.results)
    if len(failed) == len(runs):
        raise NonFiniteError(failed[0].note[0].upper() + failed[0].note[1:])
    return group.results


def _identity(
    backbone: Backbone, prompter: Prompter, runs: Sequence[Run], settings: TrainSettings, looks: Looks | None
) -> dict[str, Any]:
    """Plain JSON of everything a training's results depend on."""
    return {
        "settings": settings_plain(settings),
        "backbone": backbone.fingerprint,
        "prompter": type(prompter).__name__,
        "runs": [run.identity() for run in runs],
        **({} if looks is None else {"looks": settings_plain(looks)}),
    }


def open_run_dir(folder: Path, identity: dict[str, Any], *, resume: bool) -> RunDir:
    """The run directory on every process; only the first one writes."""
    if parallel.is_main():
        directory = RunDir(folder, identity, resume=resume)
        parallel.wait()
        return directory
    parallel.wait()
    return RunDir(folder, identity, resume=True, writes=False)


def train_group(
    group: LoopGroup,
    directory: RunDir | None,
    observer: Observer | None,
    stopped: threading.Event,
    leave: Leave | None = None,
    looks: Looks | None = None,
) -> None:
    """Step a group of prompts, or of weights, until its runs are done; ``leave`` and ``looks`` as of `train_prompts`.

    Raises:
        Interrupted: stopped by a signal; the directory can be resumed.
    """
    settings, memory = group.settings, KeptMemory()
    while group.active and group.step_number < settings.steps:
        group.step()
        memory.bound()
        records: list[dict[str, Any]] = []
        step = group.step_number
        group.keep_on_the_way()
        look = looks is not None and step in looks.at
        whole = step % settings.eval_every == 0 or step == settings.steps
        due = whole or look
        if group.active and due:
            records = group.validate(None if whole or looks is None else looks.rows)
            group.finish(group.stale(), "stopped_early")
            if leave is not None and group.active:
                leaving = leave(step, [group.results[i] for i in group.active])
                group.finish([i for i in group.active if group.runs[i].name in leaving], "dropped")
        if group.active:
            group.finish(group.complete(), "done")
        if due and directory is not None:
            directory.log(records)
            directory.save(*group.state())
        if observer is not None:
            observer(Progress(step=step, steps=settings.steps, active=len(group.active), records=records))
        if parallel.any_process(stopped.is_set()) and group.active and step < settings.steps:
            _stop(group, directory, saved=due)
    group.finish(list(group.active), "done")


def _stop(group: LoopGroup, directory: RunDir | None, *, saved: bool) -> None:
    at = f"stopped at step {group.step_number} of {group.settings.steps}"
    if directory is None:
        raise Interrupted(f"{at}; nothing was saved, because no run directory was given: add --out FOLDER.")
    if not saved:
        directory.save(*group.state())
    raise Interrupted(f"{at}; saved in {directory.folder}: repeat the command with --resume to go on.")


def _final_scores(backbone: Backbone, start: Prompter, group: Group) -> None:
    """Measure every run's best checkpoint on its reporting rows (the full validation set where none are named)."""
    chosen = [i for i, result in enumerate(group.results) if result.best and result.status != "dropped"]
    if not chosen:
        return
    prompter = start.keep(chosen)
    with torch.no_grad():
        for tensors in (prompter.trained(), prompter.buffers()):
            for name, tensor in tensors.items():
                for n, i in enumerate(chosen):
                    tensor[n] = group.results[i].best[name].to(tensor.device)
    jobs = [group.job(n, i, group.runs[i].report_rows) for n, i in enumerate(chosen)]
    found = evaluate(
        backbone,
        prompter,
        jobs,
        max_target_tokens=group.settings.max_target_tokens,
        batch_tokens=2 * group.micro_tokens,
    )
    for i, job, evaluation in zip(chosen, jobs, found, strict=True):
        result = group.results[i]
        result.scores = evaluation.scores
        result.predictions = evaluation.predictions
        result.eval_tokens += evaluation.tokens
        result.evidence = {
            "select_rows": len(group.selecting_rows(i)),
            "report_rows": len(job.row_numbers()),
            "validation": group.runs[i].validation.fingerprint,
            "micro_batch_tokens": group.micro_tokens,
            "precision": backbone.precision,
            "peak_memory_bytes": peak_memory_bytes(backbone.device),
        }


def _check(backbone: Backbone, prompter: Prompter, runs: Sequence[Run], settings: TrainSettings) -> None:
    if not runs or prompter.run_count != len(runs):
        raise UsageError(f"a training needs one prompt a run: got {prompter.run_count} prompts and {len(runs)} runs.")
    names = [run.name for run in runs]
    if len(set(names)) != len(names):
        raise UsageError(f"run names must differ, got {sorted(n for n in set(names) if names.count(n) > 1)} twice.")
    for run in runs:
        if any(len(part) == 0 for part in run.train) or len(run.validation) == 0:
            raise DataError(f"task '{run.task.name}' has no rows to train or validate on: check its data.")
        if backbone.max_length is not None:
            longest = max(int(np.max(part.input_lengths)) for part in run.train)
            if prompter.prompt_length + longest > backbone.max_length:
                raise UsageError(
                    f"a prompt of {prompter.prompt_length} tokens and inputs of up to {longest} exceed the "
                    f"{backbone.max_length} positions of backbone '{backbone.name}': lower --prompt-length or "
                    "--max-input-tokens."
                )


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that is set by the first Ctrl-C or SIGTERM; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: Any) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
