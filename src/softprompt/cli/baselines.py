"""``softprompt model-tune`` and ``prompt-design``: what soft prompts are compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import say, training
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from softprompt.baselines.tune_settings import TuneSettings
    from softprompt.baselines.tuned import TunedModel
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData


@command(app, "model-tune")
def model_tune(
    task: o.TaskName,
    data: o.Data = None,
    lora: Annotated[bool, typer.Option("--lora", help="Tune LoRA adapters instead of all weights.")] = False,
    rank: Annotated[int, typer.Option("--rank", help="Of LoRA.", min=1)] = 8,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="model-tuning-quick, model-tuning, lora-quick, lora, ...")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; runs/model-tune-TASK if not given.")] = None,
    resume: o.Resume = False,
    seed: o.Seed = 1,
    steps: o.Steps = None,
    learning_rate: o.LearningRate = None,
    max_input_tokens: o.MaxInputTokens = None,
    set_: o.Set = None,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Tune all weights, or LoRA, on a task: the baseline."""
    from softprompt.baselines.lora import LoraSettings, tune_lora
    from softprompt.baselines.model_tuning import tune_model
    from softprompt.baselines.tune_settings import tune_recipe

    named = tune_recipe(recipe or ("lora-quick" if lora else "model-tuning-quick"))
    settings = o.changed_settings(
        named, set_, steps=steps, learning_rate=learning_rate, max_input_tokens=max_input_tokens
    )
    (chosen,) = o.open_tasks([task], data)
    model = o.open_backbone(backbone, dtype, device, revision)
    encoded = _encode(model, chosen, settings, train_rows, validation_rows)
    folder = out or Path("runs") / f"{'lora' if lora else 'model-tune'}-{chosen.name}"
    run = encoded.run(f"{chosen.name}-{seed}", seed)
    with training("tuning") as observer:
        if lora:
            tuned = tune_lora(model, run, settings, LoraSettings(rank=rank), folder, resume=resume, observer=observer)
        else:
            tuned = tune_model(model, run, settings, folder, resume=resume, observer=observer)
    return _answer(chosen, tuned, folder)


def _encode(backbone: Any, task: Task, settings: TuneSettings, train: int | None, validation: int | None) -> TaskData:
    """Rows cut as the settings say; no prompt takes room."""
    from softprompt.tasks.encoded import encode_split
    from softprompt.training.data import TaskData

    limits = [n for n in (settings.max_input_tokens or None, backbone.max_length) if n is not None]
    made = TaskData(
        task=task,
        train=encode_split(
            task.split("train", max_rows=train), backbone, max_input_tokens=min(limits) if limits else None,
            max_target_tokens=settings.max_target_tokens,
        ),
        validation=encode_split(
            task.split("validation", max_rows=validation), backbone, max_input_tokens=backbone.max_length,
            max_target_tokens=None,
        ),
    )  # fmt: skip
    say(f"task {task.name}: {len(made.train)} training and {len(made.validation)} validation rows")
    return made


def _answer(task: Task, tuned: TunedModel, folder: Path) -> Answer:
    facts = {**tuned.plain(), "task": task.name, "run": folder}
    facts.pop("predictions", None)
    row = [task.name, tuned.scores.get("score"), tuned.best_step, tuned.steps, tuned.tuned_parameters, tuned.seconds]
    shown = table(["task", "score", "best step", "steps", "tuned parameters", "seconds"], [row])
    return Answer(data=facts, show=both(shown, lines(f"run directory: {folder}")))


@command(app, "prompt-design")
def prompt_design(
    task: o.TaskNames,
    data: o.Data = None,
    shots: Annotated[int, typer.Option("--shots", help="Training examples in the context.")] = 16,
    fit: Annotated[bool, typer.Option("--fit", help="Take as many examples as the backbone holds.")] = False,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Divide by content-free rows (Zhao et al. 2021).")
    ] = False,
    instruction: Annotated[str, typer.Option("--instruction", help="First paragraph of the prompt.")] = "",
    answer: Annotated[str, typer.Option("--answer", help="Between a row and its answer.")] = "\nAnswer:",
    label_word: Annotated[
        list[str] | None, typer.Option("--label-word", metavar="LABEL=WORD", help="A word that stands for a label.")
    ] = None,
    max_rows: Annotated[int | None, typer.Option("--max-rows", help="At most this many rows answered.", min=1)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the examples' draw.")] = 0,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Answer from a few-shot text prompt: the baseline."""
    from softprompt.baselines.prompt_design import DesignSettings, prompt_design

    settings = DesignSettings(
        shots=shots, fit=fit, calibrated=calibrated, instruction=instruction, seed=seed,
        answer=answer.replace("\\n", "\n"), label_words=_label_words(label_word or ()),
    )  # fmt: skip
    tasks = o.open_tasks(o.words(task, "--task"), data)
    model = o.open_backbone(backbone, dtype, device, revision)
    found = [prompt_design(model, t, settings, validation=t.split("validation", max_rows=max_rows)) for t in tasks]
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
