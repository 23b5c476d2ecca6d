"""Makes the cells of a study with the trainer and the evaluator: one pack is one batch of prompts on one backbone.

A runner is named by text (``module:factory``), so that worker processes and other machines can make their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from softprompt.errors import UsageError
from softprompt.study.facts import contamination, data_facts
from softprompt.study.grid import METHOD_KINDS, Facts, Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.making import Making, Tell
from softprompt.study.method_cells import make_methods
from softprompt.study.prompt_cells import make_prediction, make_prompts, make_race
from softprompt.study.settings import Study
from softprompt.training.settings import TrainSettings

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData

DEFAULT_RUNNER = "softprompt.study.runner:PromptRunner"


class Runner(Protocol):
    """What can resolve a study's facts and make its cells."""

    def facts(self, study: Study) -> Facts:
        """The backbone and the data that the study would use now."""
        ...

    def make(
        self,
        study: Study,
        pack: Pack,
        ledger: Ledger,
        folder: Path,
        provenance: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> None:
        """Record every member of the pack, and what comes on the way, in the ledger; continue what ``folder`` holds."""
        ...


def make_runner(name: str, options: Mapping[str, Any] | None = None) -> Runner:
    """A runner by ``module:factory`` and the factory's keyword arguments.

    Raises:
        UsageError: there is no such factory.
    """
    module, _, factory = name.partition(":")
    try:
        made: Runner = getattr(importlib.import_module(module), factory)(**(options or {}))
    except (ImportError, AttributeError) as error:
        raise UsageError(f"runner {name!r} cannot be made: {error}.") from error
    return made


class PromptRunner:
    """Prompt tuning on a frozen backbone. Backbone and data are loaded once a process.

    Args:
        device: as `load_backbone` takes it.
        checkpointing: compute layers again in the backward pass; changes no bit, and so no cell's key.
    """

    def __init__(self, device: str = "auto", checkpointing: bool = False) -> None:
        self.device, self.checkpointing = device, checkpointing
        self._backbones: dict[tuple[str, str], Backbone] = {}
        self._data: dict[tuple[Any, ...], TaskData] = {}
        self._encoders: dict[tuple[str, str, str], CachedEncoder] = {}

    # -- what there is ------------------------------------------------------------------------------------------------

    def backbone(self, study: Study) -> Backbone:
        """The study's backbone, loaded once."""
        key = study.backbone, study.dtype
        if key not in self._backbones:
            from softprompt.backbones.load import load_backbone

            self._backbones[key] = load_backbone(study.backbone, dtype=study.dtype, device=self.device, progress=False)
            self._backbones[key].checkpointing = self.checkpointing
        return self._backbones[key]

    def task(self, study: Study, name: str) -> Task:
        """A task of the study, worded for its backbone."""
        from softprompt.tasks.catalog import load_task
        from softprompt.tasks.tuned import for_backbone

        return for_backbone(load_task(name, study.data or None, progress=False), self.backbone(study).kind)

    def facts(self, study: Study) -> Facts:
        """See `Runner.facts`; every split is read, and targets are looked for among the sources' training rows.

        Raises:
            DataError: a task lacks data.
        """
        backbone = self.backbone(study)
        tasks = {name: self.task(study, name) for name in study.all_tasks}
        data = {name: data_facts(study, task, name) for name, task in tasks.items()}
        return Facts(
            backbone=study.backbone,
            fingerprint=backbone.fingerprint,
            dtype=backbone.precision,
            data=data,
            parameters=backbone.parameter_count,
            kind=backbone.kind,
            contamination=tuple(contamination(study, tasks, data)),
        )

    def data(self, study: Study, name: str, settings: TrainSettings) -> TaskData:
        """A task, tokenised once."""
        limits = study.rows_of(name)
        key = (study.backbone, study.data, name, settings.max_input_tokens, settings.max_target_tokens,
               settings.prompt_length, limits["train"], limits["validation"])  # fmt: skip
        if key not in self._data:
            from softprompt.artifacts import cache_folder
            from softprompt.training.data import task_data

            self._data[key] = task_data(
                self.backbone(study),
                self.task(study, name),
                settings,
                train_rows=limits["train"],
                validation_rows=limits["validation"],
                cache=cache_folder("encoded"),
            )
        return self._data[key]

    # -- making cells -------------------------------------------------------------------------------------------------

    def encoder(self, study: Study) -> CachedEncoder:
        """SharPT's instance encoder, its encodings kept in memory."""
        key = study.backbone, study.dtype, study.sharpt.encoder
        if key not in self._encoders:
            from softprompt.methods.sharpt.cache import CachedEncoder
            from softprompt.methods.sharpt.encoders import load_encoder

            self._encoders[key] = CachedEncoder(load_encoder(study.sharpt.encoder, self.backbone(study)))
        return self._encoders[key]

    def make(
        self,
        study: Study,
        pack: Pack,
        ledger: Ledger,
        folder: Path,
        provenance: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> None:
        """See `Runner.make`."""
        making = Making(
            loaded=self, study=study, pack=pack, ledger=ledger, folder=folder, provenance=provenance, tell=tell
        )
        if pack.kind in ("evaluation", "further_evaluation"):
            for cell in pack.cells:
                evaluate_again(making, cell)
        elif pack.kind == "prediction":
            for cell in pack.cells:
                make_prediction(making, cell)
        elif pack.kind in METHOD_KINDS:
            make_methods(making)
        elif pack.kind == "race":
            make_race(making)
        else:
            make_prompts(making)


def evaluate_again(making: Making, cell: StudyCell) -> None:
    """An evaluation whose training was recorded without one.

    Raises:
        UsageError: the answers cannot be had again without the training.
    """
    from softprompt.inference.evaluate import EvalJob, evaluate
    from softprompt.prompts.stack import PromptStack

    kind, key = cell.spec["of"]
    if kind in METHOD_KINDS:
        raise UsageError(
            f"the answers of {cell.name} were not recorded: delete {making.ledger.path(kind, key)} to make it again."
        )
    backbone, settings = making.backbone, making.study.target
    data = making.data(str(cell.spec["target"]), settings)
    prompt = making.prompt_of(kind, key, cell.name).to(backbone.device)
    job = EvalJob(run=0, task=data.task, split=data.validation)
    (found,) = evaluate(backbone, PromptStack(prompt[None]), [job], max_target_tokens=settings.max_target_tokens)
    story = {**making.provenance, "cell": cell.name}
    making.write(cell, making.halves(data.run("evaluation", 0), found.predictions), {}, story)
