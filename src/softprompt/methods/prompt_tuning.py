"""Prompt tuning on a target alone (Lester et al. 2021), from scratch or from a given prompt, as a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from softprompt.methods.method import OfRows, Result, Target, Work, result_of
from softprompt.prompts.init import default_init, initial_prompt
from softprompt.training.settings import LoopSettings, TrainSettings


class PromptTuning(OfRows):
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

    @property
    def limits(self) -> LoopSettings:
        """See `OfRows`."""
        return self.settings

    def plain(self) -> dict[str, Any]:
        """See `Method.plain`."""
        return {**asdict(self.settings), "source": self.source}

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """See `Method.run`."""
        length, label = self.settings.prompt_length, target.label or target.name
        if self.prompt_PH is None:
            starts = [target.start(work.backbone, f"{label}-{seed}", seed, length) for seed in seeds]
        else:
            init = default_init("transfer", prompt=self.prompt_PH, origin=self.source)
            starts = [
                (target.run(f"{label}-{seed}", seed), initial_prompt(work.backbone, init, length, seed))
                for seed in seeds
            ]
        results = list(work.train("", starts, self.settings).values())
        sources = ((self.source, 1.0),) if self.source else ()
        return result_of(self.name, target, results, work.backbone, sources=sources)
