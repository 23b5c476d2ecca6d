"""The methods of a ladder that need the target task alone: prompt tuning, model tuning, LoRA and prompt design."""

from __future__ import annotations

from dataclasses import asdict, replace

from softprompt.baselines.ladder import Cell, Method, Outcome
from softprompt.methods.counts import count, shape_of
from softprompt.methods.few_shot import DesignSettings
from softprompt.methods.prompt_design import prompt_design
from softprompt.prompts.init import InitSettings, initial_prompts
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.tuned import for_backbone
from softprompt.training.data import TaskData, start_of, task_data
from softprompt.training.loop import train_prompts
from softprompt.training.settings import TrainSettings
from softprompt.training.weights.data import tuning_data
from softprompt.training.weights.lora import LoraSettings, tune_lora
from softprompt.training.weights.settings import TuneSettings
from softprompt.training.weights.tune import tune_model
from softprompt.training.weights.tuned import TunedModel

TUNED_FILES = ("best.safetensors",)


def prompt_tuning_method(settings: TrainSettings) -> Method:
    """Prompt tuning from class labels (Lester et al. 2021)."""

    def run(cell: Cell) -> Outcome:
        return tune_prompt(cell, settings, start_of(cell.backbone, cell.task, "scratch"))

    return Method(run=run, settings=asdict(settings))


def tune_prompt(cell: Cell, settings: TrainSettings, init: InitSettings) -> Outcome:
    """Tune one prompt on a cell's task from a given start."""
    start = initial_prompts(cell.backbone, init, settings.prompt_length, [cell.seed]).to(cell.backbone.device)
    data = task_data(
        cell.backbone, cell.task, settings, train_rows=cell.train_rows, validation_rows=cell.validation_rows
    )
    (result,) = train_prompts(
        cell.backbone, PromptStack(start, tuned=True), [data.run(cell.task.name, cell.seed)], settings, cell.folder,
        resume=True, observer=cell.observer,
    )  # fmt: skip
    tuned = count("prompt-tuning", shape_of(cell.backbone), prompt_length=settings.prompt_length).tuned
    return Outcome(
        score=result.scores["score"], tuned=tuned, steps=result.steps, seconds=result.seconds,
        details={"scores": result.scores, "best_step": result.best_step, "tokens": result.tokens},
    )  # fmt: skip


def model_tuning_method(settings: TuneSettings) -> Method:
    """Model tuning of all weights."""

    def run(cell: Cell) -> Outcome:
        one = cell_data(cell, settings).run(cell.task.name, cell.seed)
        return tuned_outcome(tune_model(cell.backbone, one, settings, cell.folder, resume=True, observer=cell.observer))

    return Method(run=run, settings=settings.plain(), passing=TUNED_FILES)


def lora_method(settings: TuneSettings, lora: LoraSettings | None = None) -> Method:
    """LoRA through PEFT."""
    shape = lora or LoraSettings()

    def run(cell: Cell) -> Outcome:
        one = cell_data(cell, settings).run(cell.task.name, cell.seed)
        return tuned_outcome(
            tune_lora(cell.backbone, one, settings, shape, cell.folder, resume=True, observer=cell.observer)
        )

    return Method(run=run, settings={**settings.plain(), "lora": asdict(shape)})


def prompt_design_method(settings: DesignSettings) -> Method:
    """Few-shot text prompts; the score is by likelihood where the task is closed, by generation where it is not."""

    def run(cell: Cell) -> Outcome:
        task = for_backbone(cell.task, cell.backbone.kind)
        found = prompt_design(
            cell.backbone,
            task,
            replace(settings, seed=cell.seed),
            train=task.split("train", max_rows=cell.train_rows),
            validation=task.split("validation", max_rows=cell.validation_rows),
        )
        scores = found.likelihood if found.likelihood is not None else found.generation
        details = {"likelihood": found.likelihood, "generation": found.generation, "shots": len(found.examples)}
        return Outcome(score=scores["score"], tuned=0, seconds=found.seconds, details=details)

    return Method(run=run, settings=asdict(settings))


def cell_data(cell: Cell, settings: TuneSettings) -> TaskData:
    """A cell's task tokenised for model tuning."""
    return tuning_data(
        cell.backbone, cell.task, settings, train_rows=cell.train_rows, validation_rows=cell.validation_rows
    )


def tuned_outcome(result: TunedModel) -> Outcome:
    """A cell's outcome from a model tuning's result."""
    details = {"scores": result.scores, "best_step": result.best_step, "tokens": result.tokens}
    return Outcome(
        score=result.scores["score"], tuned=result.tuned_parameters, steps=result.steps, seconds=result.seconds,
        details=details,
    )  # fmt: skip
