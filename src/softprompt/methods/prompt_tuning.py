"""Prompt tuning on a target alone (Lester et al. 2021), from scratch or from a given prompt, as a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.methods.method import Result, Target, Work, result_of
from softprompt.prompts.init import default_init, initial_prompt
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData, start_of, task_data
from softprompt.training.settings import TrainSettings


class PromptTuning:
    """One prompt a seed: from class labels, or from a source prompt that is given.

    Args:
        settings: of every run.
        prompt_PH: float [P, H], the prompt to start from; None for a start from scratch.
        source: name of that prompt.
        name: of the method.
    """

    def __init__(
        self, settings: TrainSettings, *, prompt_PH: Tensor | None = None, source: str = "", name: str = "scratch"
    ) -> None:
        self.settings, self.prompt_PH, self.source, self.name = settings, prompt_PH, source, name

    def plain(self) -> dict[str, Any]:
        """See `Method.plain`."""
        return {**asdict(self.settings), "source": self.source}

    def encode(
        self, backbone: Backbone, task: Task, *, train_rows: int | None = None, validation_rows: int | None = None
    ) -> TaskData:
        """See `Method.encode`."""
        return task_data(backbone, task, self.settings, train_rows=train_rows, validation_rows=validation_rows)

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """See `Method.run`."""
        init = start_of(work.backbone, target.data.task, "scratch")
        if self.prompt_PH is not None:
            init = default_init("transfer", prompt=self.prompt_PH, origin=self.source)
        length, label = self.settings.prompt_length, target.label or target.name
        starts = [
            (target.run(f"{label}-{seed}", seed), initial_prompt(work.backbone, init, length, seed)) for seed in seeds
        ]
        results = list(work.train("", starts, self.settings).values())
        sources = ((self.source, 1.0),) if self.source else ()
        return result_of(self.name, target, results, work.backbone, sources=sources)
