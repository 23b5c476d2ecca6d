"""A ladder's methods by name, with those that learn from source tasks first: SPoT, multi-task model tuning and SharPT.

What is learned from the sources is learned once a backbone and seed, in a folder beside the cells, and used by every
target task. Its cost is in each cell's ``details``, apart from the cell's own seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from softprompt.baselines import ladder_methods as own
from softprompt.baselines.ladder import Cell, Method, Outcome
from softprompt.errors import UnknownNameError, UsageError
from softprompt.methods.few_shot import DesignSettings
from softprompt.tasks.mixture import Mixture
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData, mixture_run, task_data
from softprompt.training.settings import TrainSettings
from softprompt.training.weights.lora import LoraSettings
from softprompt.training.weights.settings import TuneSettings

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.methods.sharpt.recipes import SharPTRecipe
    from softprompt.methods.sharpt.space import Space
    from softprompt.training.weights.tuned import ModelState

METHODS = ("prompt-tuning", "spot", "sharpt", "model-tuning", "multitask-tuning", "lora", "prompt-design")
FROM_SOURCES = ("spot", "sharpt", "multitask-tuning")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class LadderSettings:
    """Settings of every method of a ladder.

    Attributes:
        prompt: prompt tuning, and SPoT on its targets.
        source: SPoT's source prompt.
        tune: model tuning, and multi-task model tuning on its targets.
        tune_source: multi-task model tuning on the sources.
        lora_tune: LoRA's training.
        lora: its shape.
        design: prompt design.
        sharpt: SharPT's recipe; None where it is not asked for.
        encoder: SharPT's instance encoder.
        mixture: the sources' names and rates; None where no method learns from sources.
        sources: the source tasks, in the mixture's order.
    """

    prompt: TrainSettings
    source: TrainSettings
    tune: TuneSettings
    tune_source: TuneSettings
    lora_tune: TuneSettings
    lora: LoraSettings = field(default_factory=LoraSettings)
    design: DesignSettings = field(default_factory=DesignSettings)
    sharpt: SharPTRecipe | None = None
    encoder: str = "auto"
    mixture: Mixture | None = None
    sources: Sequence[Task] = ()


def ladder_methods(names: Sequence[str], settings: LadderSettings) -> dict[str, Method]:
    """Methods by name.

    Raises:
        UnknownNameError: no such method.
        UsageError: a method that learns from sources, and none were given.
    """
    for name in names:
        if name not in METHODS:
            raise UnknownNameError("method", name, METHODS)
        if name in FROM_SOURCES and settings.mixture is None:
            raise UsageError(f"the method {name} learns from source tasks first: name them with --sources.")
    makers: Mapping[str, Callable[[], Method]] = {
        "prompt-tuning": lambda: own.prompt_tuning_method(settings.prompt),
        "spot": lambda: _SpotLadder(settings).method(),
        "sharpt": lambda: _SharPTLadder(settings).method(),
        "model-tuning": lambda: own.model_tuning_method(settings.tune),
        "multitask-tuning": lambda: _MultitaskLadder(settings).method(),
        "lora": lambda: own.lora_method(settings.lora_tune, settings.lora),
        "prompt-design": lambda: own.prompt_design_method(settings.design),
    }
    return {name: makers[name]() for name in names}


class _FromSources(Generic[Made]):
    """A method in two stages: something learned from the sources, kept for the targets of one backbone and seed."""

    name = ""
    passing: Sequence[str] = ()

    def __init__(self, settings: LadderSettings) -> None:
        self.settings = settings
        self._parts: dict[str, list[TaskData]] = {}
        self._made: dict[tuple[str, int], tuple[Made, dict[str, Any]]] = {}

    def method(self) -> Method:
        """As a ladder takes it."""
        assert self.settings.mixture is not None
        return Method(
            run=self.run, settings={"sources": asdict(self.settings.mixture), **self.plain()}, passing=self.passing
        )

    def plain(self) -> dict[str, Any]:
        """The settings of both stages."""
        raise NotImplementedError

    def encode(self, cell: Cell, task: Task) -> TaskData:
        """A source task tokenised for the first stage."""
        raise NotImplementedError

    def learn(self, cell: Cell, parts: Sequence[TaskData], folder: Path) -> tuple[Made, dict[str, Any]]:
        """The first stage, and its cost."""
        raise NotImplementedError

    def apply(self, cell: Cell, made: Made) -> Outcome:
        """The second stage."""
        raise NotImplementedError

    def run(self, cell: Cell) -> Outcome:
        """Both stages; the first is made once a backbone and seed."""
        mark = cell.backbone.fingerprint
        if mark not in self._parts:
            self._parts = {mark: [self.encode(cell, task) for task in self.settings.sources]}
        parts = self._parts[mark]
        if (mark, cell.seed) not in self._made:
            self._made = {(mark, cell.seed): self.learn(cell, parts, cell.folder.parent / f"{self.name}-{cell.seed}")}
        made, cost = self._made[mark, cell.seed]
        found = self.apply(cell, made)
        sources = {part.task.name: part.train.fingerprint for part in parts}
        details = {**found.details, "source_training": {**cost, "data": sources}}
        return Outcome(score=found.score, tuned=found.tuned, steps=found.steps, seconds=found.seconds, details=details)

    def rates(self, parts: Sequence[TaskData]) -> tuple[float, ...]:
        """How often each source is drawn."""
        assert self.settings.mixture is not None
        rates = self.settings.mixture.rates({part.task.name: len(part.train) for part in parts})
        return tuple(rates[part.task.name] for part in parts)


class _SpotLadder(_FromSources["Tensor"]):
    """Generic SPoT: one source prompt from the sources' mixture starts every target's (SPoT section 2)."""

    name = "spot-source"

    def plain(self) -> dict[str, Any]:
        return {"source": asdict(self.settings.source), "target": asdict(self.settings.prompt)}

    def encode(self, cell: Cell, task: Task) -> TaskData:
        return task_data(
            cell.backbone, task, self.settings.source, train_rows=cell.train_rows, validation_rows=cell.validation_rows
        )

    def learn(self, cell: Cell, parts: Sequence[TaskData], folder: Path) -> tuple[Tensor, dict[str, Any]]:
        from softprompt.prompts.init import default_init, initial_prompts
        from softprompt.prompts.stack import PromptStack
        from softprompt.training.loop import train_prompts

        length = self.settings.source.prompt_length
        start = initial_prompts(cell.backbone, default_init("source"), length, [cell.seed]).to(cell.backbone.device)
        # A mixture has no validation of its own: its last checkpoint counts (SPoT section 3.3).
        run = (
            parts[0].run(self.name, cell.seed)
            if len(parts) == 1
            else mixture_run(self.name, cell.seed, parts, self.rates(parts), validated_on=parts[0], validated=False)
        )
        (result,) = train_prompts(
            cell.backbone, PromptStack(start, tuned=True), [run], self.settings.source, folder, resume=True,
            observer=cell.observer,
        )  # fmt: skip
        prompt = (result.best or result.final)["prompt"]
        return prompt, {"steps": result.steps, "seconds": round(result.seconds, 3)}

    def apply(self, cell: Cell, made: Tensor) -> Outcome:
        from softprompt.prompts.init import default_init

        return own.tune_prompt(cell, self.settings.prompt, default_init("transfer", prompt=made, origin="sources"))


class _MultitaskLadder(_FromSources["ModelState"]):
    """Multi-task model tuning: all weights on the sources' mixture, then on each target (SPoT Appendix C)."""

    name = "multitask-source"
    passing = own.TUNED_FILES

    def plain(self) -> dict[str, Any]:
        return {"source": self.settings.tune_source.plain(), "target": self.settings.tune.plain()}

    def encode(self, cell: Cell, task: Task) -> TaskData:
        from softprompt.training.weights.data import tuning_data

        return tuning_data(
            cell.backbone, task, self.settings.tune_source, train_rows=cell.train_rows,
            validation_rows=cell.validation_rows,
        )  # fmt: skip

    def learn(self, cell: Cell, parts: Sequence[TaskData], folder: Path) -> tuple[ModelState, dict[str, Any]]:
        from softprompt.training.weights.data import mixed_run
        from softprompt.training.weights.tune import tune_model

        settings = self.settings.tune_source
        run = mixed_run("mixture", cell.seed, parts, self.rates(parts), settings)
        tuned = tune_model(
            cell.backbone, run, settings, folder, keep_final=True, resume=True, observer=cell.observer
        )  # fmt: skip
        assert tuned.last is not None
        return tuned.last, {"steps": tuned.steps, "seconds": round(tuned.seconds, 3), "tokens": tuned.tokens}

    def apply(self, cell: Cell, made: ModelState) -> Outcome:
        from softprompt.training.weights.tune import tune_model

        run = own.cell_data(cell, self.settings.tune).run(cell.task.name, cell.seed)
        return own.tuned_outcome(
            tune_model(
                cell.backbone, run, self.settings.tune, cell.folder, start=made, resume=True, observer=cell.observer
            )
        )


class _SharPTLadder(_FromSources["tuple[Space, CachedEncoder]"]):
    """SharPT: a latent space from the plain union of the sources, its generator tuned on each target."""

    name = "sharpt-space"

    @property
    def recipe(self) -> SharPTRecipe:
        if self.settings.sharpt is None:
            raise UsageError("the method sharpt needs a SharPT recipe: name one with --sharpt-recipe.")
        return self.settings.sharpt

    def plain(self) -> dict[str, Any]:
        return {"recipe": asdict(self.recipe), "encoder": self.settings.encoder}

    def encode(self, cell: Cell, task: Task) -> TaskData:
        return self._data(cell, task, self.recipe.source)

    def _data(self, cell: Cell, task: Task, settings: TrainSettings) -> TaskData:
        return task_data(
            cell.backbone, task, settings, train_rows=cell.train_rows, validation_rows=cell.validation_rows
        )

    def learn(
        self, cell: Cell, parts: Sequence[TaskData], folder: Path
    ) -> tuple[tuple[Space, CachedEncoder], dict[str, Any]]:
        from softprompt.methods.sharpt.cache import CachedEncoder
        from softprompt.methods.sharpt.encoders import load_encoder
        from softprompt.methods.sharpt.train import train_space, tuned_share

        encoder = CachedEncoder(load_encoder(self.settings.encoder, cell.backbone))
        (trained,) = train_space(
            cell.backbone, encoder, parts, self.recipe, seeds=[cell.seed], folder=folder, resume=True,
            observer=cell.observer,
        )  # fmt: skip
        shared = tuned_share(trained.space, cell.backbone)["source"]
        cost = {"steps": trained.result.steps, "seconds": round(trained.result.seconds, 3), "tuned": int(shared)}
        return (trained.space, encoder), cost

    def apply(self, cell: Cell, made: tuple[Space, CachedEncoder]) -> Outcome:
        from softprompt.methods.sharpt.train import adapt, tuned_share

        space, encoder = made
        data = self._data(cell, cell.task, self.recipe.target)
        (adapted,) = adapt(
            cell.backbone, encoder, space, [data], self.recipe.target, seeds=[cell.seed], folder=cell.folder,
            resume=True, observer=cell.observer,
        )  # fmt: skip
        result = adapted.result
        return Outcome(
            score=result.scores["score"], tuned=int(tuned_share(space, cell.backbone)["target"]), steps=result.steps,
            seconds=result.seconds, details={"scores": result.scores, "best_step": result.best_step},
        )  # fmt: skip
