"""``softprompt model-tune`` and ``prompt-design``: what soft prompts are compared with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import Flags, flag, spelled
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import training
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from softprompt.backbones.base import Backbone
    from softprompt.tasks.mixture import Mixture
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData
    from softprompt.training.settings import TuneSettings
    from softprompt.training.weights.tuned import TunedModel

MULTITASK = "Multi-task model tuning"


@dataclass(frozen=True, kw_only=True)
class StageFlags(Flags):
    """What model tuning tunes on: one task, or a mixture and then its targets."""

    task: Annotated[str | None, flag("--task", "Task: a name or a path to your own.", complete=o.task_completion)] = (
        None
    )
    mixture: Annotated[
        str | None,
        flag(
            "--mixture",
            "Tune on these first: a mixture's name, task,task or task=rate,task=rate.",
            MULTITASK,
            complete=o.mixture_completion,
        ),
    ] = None
    targets: Annotated[
        str | None,
        flag(
            "--targets",
            "With --mixture: the tasks tuned after it, commas between.",
            MULTITASK,
            complete=o.task_completion,
        ),
    ] = None
    mixture_steps: Annotated[
        int | None, flag("--mixture-steps", "Steps on the mixture; as many as --steps if not given.", MULTITASK)
    ] = None

    def check(self, lora: bool) -> None:
        """Raises UsageError unless the flags name one task, or a mixture and its targets."""
        if self.mixture is None:
            for flag, value in (("--targets", self.targets), ("--mixture-steps", self.mixture_steps)):
                if value is not None:
                    raise UsageError(
                        f"{flag} goes with --mixture: name the tasks tuned first, or tune one task with --task."
                    )
            if self.task is None:
                raise UsageError("model-tune needs --task, or --mixture with --targets.")
            return
        if self.task is not None:
            raise UsageError("model-tune takes --task, or --mixture with --targets, not both: leave one out.")
        if self.targets is None:
            raise UsageError("--mixture is tuned first and its targets after it: name them with --targets.")
        if lora:
            raise UsageError("multi-task model tuning tunes all weights: leave --lora out, or --mixture.")


@command(
    app, "model-tune", "softprompt model-tune --task my.csv --lora",
    "softprompt model-tune --mixture glue --targets cb,copa --data DIR --recipe model-tuning --batch-tokens 65536",
)  # fmt: skip
def model_tune(
    *,
    stage: StageFlags,
    data: o.Data = None,
    model: o.BackboneFlags,
    lora: Annotated[bool, flag("--lora", "Tune LoRA adapters instead of all weights.")] = False,
    rank: Annotated[int, flag("--rank", "Of LoRA.", min=1)] = 8,
    out: Annotated[
        Path | None, flag("--out", "Run directory; runs/model-tune-TASK (or -MIXTURE) if not given.")
    ] = None,
    resume: o.Resume = False,
    seed: o.Seed = 1,
    batch_tokens: Annotated[
        str | None, flag("--batch-tokens", "Tokens of a step; several, commas between, are swept.")
    ] = None,
    tuning: o.TuningFlags,
    limits: o.RowLimitFlags,
) -> Answer:
    """Tune all weights, or LoRA, on a task: the baseline."""
    stage.check(lora)
    if lora and tuning.given.get("sharded"):
        raise UsageError("--sharded is of model tuning, and LoRA's adapters are small: leave --sharded out, or --lora.")
    sizes: Sequence[int | None] = (None,) if batch_tokens is None else opening.numbers(batch_tokens, "--batch-tokens")
    if stage.mixture is not None and len(sizes) > 1:
        raise UsageError("a sweep goes over one task: with --mixture give one number of --batch-tokens.")
    sweep = [tuning.settings("lora-quick" if lora else "model-tuning-quick", batch_tokens=size) for size in sizes]
    if stage.mixture is not None:
        mixed, parts = opening.open_mixture(stage.mixture, data)
        chosen = opening.open_tasks(opening.words(str(stage.targets), "--targets"), data)
        folder = out or Path("runs") / f"model-tune-{'+'.join(mixed.tasks) if ',' in mixed.name else mixed.name}"
        opening.check_out(folder, resume=resume)
        backbone, settings = model.open(), sweep[0]
        steps = settings.steps if stage.mixture_steps is None else stage.mixture_steps
        stages = settings.having(steps=steps, patience=0), settings
        made = _multitask(backbone, mixed, parts, chosen, stages, limits.plain(), folder, seed, resume)
        return replace(made, next=_beside(opening.words(str(stage.targets), "--targets")[0], data, model.words()))
    (one,) = opening.open_tasks([str(stage.task)], data)
    folder = out or Path("runs") / f"{'lora' if lora else 'model-tune'}-{one.name}"
    opening.check_out(folder, resume=resume)
    backbone = model.open()
    made = _alone(backbone, one, sweep, limits.plain(), rank if lora else None, folder, seed, resume)
    return replace(made, next=_beside(str(stage.task), data, model.words()))


def _beside(task: str, data: Path | None, model: Sequence[str]) -> list[tuple[object, ...]]:
    """What a baseline is compared with: a soft prompt, and examples in the text."""
    rows = spelled({"data": data})
    return [("train", task, *rows, *model), ("prompt-design", "--task", task, *rows, *model)]


def _multitask(
    model: Backbone,
    mixture: Mixture,
    parts: Sequence[Task],
    targets: Sequence[Task],
    stages: tuple[TuneSettings, TuneSettings],
    rows: Mapping[str, int | None],
    folder: Path,
    seed: int,
    resume: bool,
) -> Answer:
    """Tune on the mixture, then on each target from its weights."""
    from softprompt.training.data import mixed_run
    from softprompt.training.weights.tune import tune_multitask

    encoded = opening.encode(model, parts, stages[0], **rows)
    data = opening.encode(model, targets, stages[1], **rows)
    rates = mixture.rates({part.task.name: len(part.train) for part in encoded})
    first = mixed_run("mixture", seed, encoded, [rates[p.task.name] for p in encoded], stages[0])
    runs = [one.run(f"{one.task.name}-{seed}", seed) for one in data]
    with training("tuning") as observer:
        mixed, tuned = tune_multitask(model, first, runs, *stages, folder, resume=resume, observer=observer)
    found = [
        {**_facts(model, one, result, folder / run.name), "batch_tokens": stages[1].batch_tokens}
        for one, result, run in zip(data, tuned, runs, strict=True)
    ]
    drawn = {part.task.name: {"rate": rates[part.task.name], "train": part.train.fingerprint} for part in encoded}
    about = {"tasks": drawn, "steps": mixed.steps, "seconds": mixed.seconds, "peak_bytes": mixed.peak_bytes}
    told = lines(f"mixture: {mixed.steps} steps, {mixed.seconds:.1f} s", f"run directory: {folder}")
    return Answer(
        data={"mixture": {"name": mixture.name, "run": folder / "mixture", **about}, "targets": found, "run": folder},
        show=both(_rows(found), told),
    )


def _alone(
    model: Backbone,
    task: Task,
    sweep: Sequence[TuneSettings],
    rows: Mapping[str, int | None],
    rank: int | None,
    folder: Path,
    seed: int,
    resume: bool,
) -> Answer:
    """Tune all weights, or adapters of a rank, on one task; once for each settings of a sweep over the batch size."""
    from softprompt.training.weights.lora import LoraSettings, tune_lora
    from softprompt.training.weights.tune import tune_model

    (data,) = opening.encode(model, [task], sweep[0], **rows)
    run = data.run(f"{task.name}-{seed}", seed)
    found = []
    for settings in sweep:
        place = folder / f"batch-{settings.batch_tokens}" if len(sweep) > 1 else folder
        with training(f"tuning, {settings.batch_tokens} tokens a step" if len(sweep) > 1 else "tuning") as observer:
            if rank is None:
                tuned = tune_model(model, run, settings, place, resume=resume, observer=observer)
            else:
                tuned = tune_lora(
                    model, run, settings, LoraSettings(rank=rank), place, resume=resume, observer=observer
                )  # fmt: skip
        found.append({**_facts(model, data, tuned, place), "batch_tokens": settings.batch_tokens})
    if len(sweep) == 1:
        return Answer(data=found[0], show=both(_rows(found), lines(f"run directory: {folder}")))
    best = max(found, key=lambda facts: facts["best_score"])  # as choosing a checkpoint: by the choosing rows
    told = lines(f"best by validation: {best['batch_tokens']} tokens a step", f"run directories: {folder}")
    return Answer(data={"sweep": found, "best": best["batch_tokens"], "run": folder}, show=both(_rows(found), told))


def _facts(model: Backbone, data: TaskData, tuned: TunedModel, folder: Path) -> dict[str, Any]:
    """What a tuning gave and cost, and what made it."""
    facts = {name: value for name, value in tuned.plain().items() if name != "predictions"}
    return {
        **facts,
        "task": data.task.name,
        "run": folder,
        "stored_bytes": tuned.stored_bytes,
        "data": {"train": data.train.fingerprint, "validation": data.validation.fingerprint},
        "backbone": model.name,
        "fingerprint": model.fingerprint,
        "command": opening.command_line(),
    }


def _rows(found: Sequence[Mapping[str, Any]]) -> Callable[[Console], None]:
    """One row a tuning: score, and what it cost."""
    columns: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "task": lambda f: f["task"],
        "batch tokens": lambda f: f.get("batch_tokens"),
        "score": lambda f: f["scores"].get("score"),
        "best step": lambda f: f["best_step"],
        "steps": lambda f: f["steps"],
        "tuned parameters": lambda f: f["tuned_parameters"],
        "stored MiB": lambda f: f["stored_bytes"] / 2**20,
        "seconds": lambda f: f["seconds"],
        "peak MiB": lambda f: f["peak_bytes"] / 2**20,
    }
    return table(list(columns), [[value(f) for value in columns.values()] for f in found])


@command(
    app, "prompt-design", "softprompt prompt-design --task my.csv --shots 8 --backbone smollm2",
    "softprompt prompt-design --task cb,rte --data DIR --fit --calibrated",
)  # fmt: skip
def prompt_design(
    *,
    task: o.TaskNames,
    data: o.Data = None,
    model: o.BackboneFlags,
    shots: Annotated[int, flag("--shots", "Training examples in the context.", min=0)] = 16,
    fit: Annotated[bool, flag("--fit", "Take as many examples as the backbone holds.")] = False,
    calibrated: Annotated[bool, flag("--calibrated", "Divide by content-free rows (Zhao et al. 2021).")] = False,
    instruction: Annotated[str, flag("--instruction", "First paragraph of the prompt.", o.ROWS)] = "",
    answer: Annotated[str, flag("--answer", "Between a row and its answer.", o.ROWS)] = "\nAnswer:",
    label_word: Annotated[
        list[str] | None, flag("--label-word", "A word that stands for a label.", o.ROWS, metavar="LABEL=WORD")
    ] = None,
    max_rows: o.MaxRows = None,
    seed: Annotated[int, flag("--seed", "Of the examples' draw.")] = 0,
) -> Answer:
    """Answer from a few-shot text prompt: the baseline."""
    from softprompt.methods.few_shot import DesignSettings
    from softprompt.methods.prompt_design import prompt_design

    settings = DesignSettings(
        shots=shots, fit=fit, calibrated=calibrated, instruction=instruction, seed=seed,
        answer=answer.replace("\\n", "\n"), label_words=_label_words(label_word or ()),
    )  # fmt: skip
    tasks = opening.open_tasks(opening.words(task, "--task"), data)
    backbone = model.open()
    tasks = opening.worded(tasks, "auto", backbone)
    found = [prompt_design(backbone, t, settings, validation=t.split("validation", max_rows=max_rows)) for t in tasks]
    rows = [
        [r.task, len(r.examples), r.rows, r.likelihood.get("score") if r.likelihood else None, r.generation["score"]]
        for r in found
    ]
    shown = table(["task", "shots", "rows", "likelihood", "generation"], rows)
    first = opening.words(task, "--task")[0]
    tuned = ("model-tune", "--task", first, "--lora", *spelled({"data": data}), *model.words())
    after = [*_beside(first, data, model.words())[:1], tuned]
    return Answer(data={"results": found, "fingerprint": backbone.fingerprint}, show=shown, next=after)


def _label_words(given: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    if any(not sign for _, sign, _ in pairs):
        raise UsageError(f"--label-word takes LABEL=WORD, got {json.dumps(list(given))}.")
    return {label: word for label, _, word in pairs}
