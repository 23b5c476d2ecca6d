"""Model tuning and LoRA as methods: weights as trained tensors, from the backbone's own or from a multi-task tuning's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from softprompt.methods.method import OfRows, Result, Target, Work, result_of
from softprompt.training.settings import LoopSettings, TuneSettings
from softprompt.training.weights.lora import LoraSettings, tune_lora
from softprompt.training.weights.tune import tune_model
from softprompt.training.weights.tuned import ModelState


class ModelTuning(OfRows):
    """All weights tuned on the target, or low-rank adapters of them.

    Args:
        settings: batches are counted in tokens.
        lora: shape of the adapters; None for all weights.
        start: weights to start from (multi-task model tuning, SPoT Appendix C); None for the backbone's.
        name: of the method; by what is tuned where empty.
    """

    def __init__(
        self,
        settings: TuneSettings,
        *,
        lora: LoraSettings | None = None,
        start: ModelState | None = None,
        name: str = "",
    ) -> None:
        self.settings, self.lora, self.start = settings, lora, start
        self.name = name or ("model_tuning" if lora is None else "lora")

    @property
    def limits(self) -> LoopSettings:
        """See `OfRows`."""
        return self.settings

    def plain(self) -> dict[str, Any]:
        """See `Method.plain`."""
        return {**self.settings.plain(), **({} if self.lora is None else {"lora": asdict(self.lora)})}

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """See `Method.run`; the runs are made one after the other, for each holds a whole model."""
        label = target.label or target.name
        results = []
        for seed in seeds:
            run = target.run(f"{label}-{seed}" if len(seeds) > 1 else label, seed)
            place = work.place(str(seed) if len(seeds) > 1 else "")
            more: Any = {"resume": work.resume, "observer": work.observer(self.name, 1)}
            if self.lora is not None:
                results.append(tune_lora(work.backbone, run, self.settings, self.lora, place, **more))
            else:
                results.append(tune_model(work.backbone, run, self.settings, place, start=self.start, **more))
        found = result_of(self.name, target, results, work.backbone)
        found.tuned = results[0].tuned_parameters
        return found
