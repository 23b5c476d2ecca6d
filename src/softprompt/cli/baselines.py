"""``softprompt model-tune`` and ``prompt-design``: what soft prompts are compared with; a ladder of them is in ``ladder.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import counting, say, training
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from softprompt.backbones.base import Backbone
    from softprompt.tasks.mixture import Mixture
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData
    from softprompt.training.weights.settings import TuneSettings
    from softprompt.training.weights.tuned import TunedModel

Rank = Annotated[int, typer.Option("--rank", help="Of LoRA.", min=1)]
Shots = Annotated[int, typer.Option("--shots", help="Training examples in the context.", min=0)]


@command(app, "model-tune")
def model_tune(
    task: Annotated[str | None, typer.Option("--task", help="Task: a name or a path to your own.")] = None,
    mixture: Annotated[
        str | None,
        typer.Option("--mixture", help="Tune on these first: a mixture's name, task,task or task=rate,task=rate."),
    ] = None,
    targets: Annotated[
        str | None, typer.Option("--targets", help="With --mixture: the tasks tuned after it, commas between.")
    ] = None,
    mixture_steps: Annotated[
        int | None, typer.Option("--mixture-steps", help="Steps on the mixture; as many as --steps if not given.")
    ] = None,
    data: o.Data = None,
    lora: Annotated[bool, typer.Option("--lora", help="Tune LoRA adapters instead of all weights.")] = False,
    rank: Rank = 8,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="model-tuning-quick, model-tuning, lora-quick, lora, ...")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory; runs/model-tune-TASK (or -MIXTURE) if not given.")
    ] = None,
    resume: o.Resume = False,
    seed: o.Seed = 1,
    steps: o.Steps = None,
    batch_tokens: Annotated[
        str | None, typer.Option("--batch-tokens", help="Tokens of a step; several, commas between, are swept.")
    ] = None,
    learning_rate: o.LearningRate = None,
    max_input_tokens: o.MaxInputTokens = None,
    set_: o.Set = None,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
    sharded: Annotated[
        bool,
        typer.Option(
            "--sharded", help="Weights, gradients and moments in shards on all processes of torchrun (FSDP2)."
        ),
    ] = False,
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Tune all weights, or LoRA, on a task: the baseline."""
    from softprompt.training.weights.settings import tune_recipe

    _check_stages(task, mixture, targets, mixture_steps, lora)
    if lora and sharded:
        raise UsageError("--sharded is of model tuning, and LoRA's adapters are small: leave --sharded out, or --lora.")
    named = tune_recipe(recipe or ("lora-quick" if lora else "model-tuning-quick"))
    sizes: Sequence[int | None] = (None,) if batch_tokens is None else o.numbers(batch_tokens, "--batch-tokens")
    if mixture is not None and len(sizes) > 1:
        raise UsageError("a sweep goes over one task: with --mixture give one number of --batch-tokens.")
    settings, *others = (
        o.changed_settings(
            named,
            set_,
            steps=steps,
            batch_tokens=size,
            learning_rate=learning_rate,
            max_input_tokens=max_input_tokens,
            sharded=sharded or None,
            checkpointing=checkpointing or None,
        )
        for size in sizes
    )
    rows = {"train_rows": train_rows, "validation_rows": validation_rows}
    if mixture is not None:
        mixed, parts = o.open_mixture(mixture, data)
        chosen = o.open_tasks(o.words(str(targets), "--targets"), data)
        model = o.open_backbone(backbone, dtype, device, revision)
        folder = out or Path("runs") / f"model-tune-{'+'.join(mixed.tasks) if ',' in mixed.name else mixed.name}"
        first = settings.having(steps=settings.steps if mixture_steps is None else mixture_steps, patience=0)
        return _multitask(model, mixed, parts, chosen, (first, settings), rows, folder, seed, resume)
    (one,) = o.open_tasks([str(task)], data)
    model = o.open_backbone(backbone, dtype, device, revision)
    folder = out or Path("runs") / f"{'lora' if lora else 'model-tune'}-{one.name}"
    return _alone(model, one, (settings, *others), rows, rank if lora else None, folder, seed, resume)


def _check_stages(
    task: str | None, mixture: str | None, targets: str | None, mixture_steps: int | None, lora: bool
) -> None:
    """Raises UsageError unless the flags name one task, or a mixture and its targets."""
    if mixture is None:
        for flag, value in (("--targets", targets), ("--mixture-steps", mixture_steps)):
            if value is not None:
                raise UsageError(
                    f"{flag} goes with --mixture: name the tasks tuned first, or tune one task with --task."
                )
        if task is None:
            raise UsageError("model-tune needs --task, or --mixture with --targets.")
        return
    if task is not None:
        raise UsageError("model-tune takes --task, or --mixture with --targets, not both: leave one out.")
    if targets is None:
        raise UsageError("--mixture is tuned first and its targets after it: name them with --targets.")
    if lora:
        raise UsageError("multi-task model tuning tunes all weights: leave --lora out, or --mixture.")


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
    from softprompt.training.weights.data import mixed_run
    from softprompt.training.weights.tune import tune_multitask

    encoded = [_encode(model, task, stages[0], rows) for task in parts]
    data = [_encode(model, task, stages[1], rows) for task in targets]
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

    data = _encode(model, task, sweep[0], rows)
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


def _encode(backbone: Backbone, task: Task, settings: TuneSettings, rows: Mapping[str, int | None]) -> TaskData:
    """A task tokenised, with a line of progress."""
    from softprompt.training.weights.data import tuning_data

    made = tuning_data(backbone, task, settings, **rows)
    say(f"task {task.name}: {len(made.train)} training and {len(made.validation)} validation rows")
    return made


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
        "command": o.command_line(),
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


@command(app, "prompt-design")
def prompt_design(
    task: o.TaskNames,
    data: o.Data = None,
    shots: Shots = 16,
    fit: Annotated[bool, typer.Option("--fit", help="Take as many examples as the backbone holds.")] = False,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Divide by content-free rows (Zhao et al. 2021).")
    ] = False,
    instruction: Annotated[str, typer.Option("--instruction", help="First paragraph of the prompt.")] = "",
    answer: Annotated[str, typer.Option("--answer", help="Between a row and its answer.")] = "\nAnswer:",
    label_word: Annotated[
        list[str] | None, typer.Option("--label-word", metavar="LABEL=WORD", help="A word that stands for a label.")
    ] = None,
    max_rows: o.MaxRows = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the examples' draw.")] = 0,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Answer from a few-shot text prompt: the baseline."""
    from softprompt.methods.few_shot import DesignSettings
    from softprompt.methods.prompt_design import prompt_design

    settings = DesignSettings(
        shots=shots, fit=fit, calibrated=calibrated, instruction=instruction, seed=seed,
        answer=answer.replace("\\n", "\n"), label_words=_label_words(label_word or ()),
    )  # fmt: skip
    tasks = o.open_tasks(o.words(task, "--task"), data)
    model = o.open_backbone(backbone, dtype, device, revision)
    tasks = o.worded(tasks, "auto", model)
    with counting("answering") as progress:
        found = [
            prompt_design(model, t, settings, validation=t.split("validation", max_rows=max_rows), progress=progress)
            for t in tasks
        ]
    rows = [
        [r.task, len(r.examples), r.rows, r.likelihood.get("score") if r.likelihood else None, r.generation["score"]]
        for r in found
    ]
    shown = table(["task", "shots", "rows", "likelihood", "generation"], rows)
    return Answer(data={"results": found, "fingerprint": model.fingerprint}, show=shown)


def _label_words(given: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    if any(not sign for _, sign, _ in pairs):
        raise UsageError(f"--label-word takes LABEL=WORD, got {json.dumps(list(given))}.")
    return {label: word for label, _, word in pairs}
