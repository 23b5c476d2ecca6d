"""SharPT's recipes, and its ablations as switches.

The paper states P = 64, Adam at 0.3, 4,000 warm-up steps, 80,000 source and 100,000 target steps; it states neither K,
nor the start of E, nor what its ablations are in detail. What stands in for them here is named at each recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from softprompt.errors import UnknownNameError, UsageError
from softprompt.fields import Count, Settings, kinds
from softprompt.methods.sharpt.start import StartSettings
from softprompt.prompts.latent import LatentSettings
from softprompt.training import recipes as training_recipes
from softprompt.training.settings import TrainSettings

Ablation = Literal["none", "no-source-training", "no-latent-space", "generator-only"]
ABLATIONS: tuple[Ablation, ...] = ("none", "no-source-training", "no-latent-space", "generator-only")
UNTRAINED: tuple[Ablation, ...] = ("no-source-training", "generator-only")
"""Ablations without source training: their space is `softprompt.methods.sharpt.train.untrained_space`."""


@dataclass(frozen=True, kw_only=True)
class SharPTRecipe(Settings):
    """Everything SharPT needs to be told.

    Attributes:
        source: settings of source training.
        target: settings of target training; its prompt_length must be the source's.
        latent: how skills are chosen and used.
        start: how the space and the generator start.
        named: whether the instance encoder reads a task's name where it stands in front of a text; a space then tends to
            hold one group of skills a task.
        watch_every: steps between measurements of skill use; the start and the end are always measured.
        reference_rows: source rows that skill use is measured on, and a k-means start is made from, at most.
        source_checkpoint: which checkpoint of source training is the space: ``final`` (the paper names no other) or
            ``best`` by the mean validation score over the sources.
    """

    source: TrainSettings
    target: TrainSettings
    latent: LatentSettings = field(default_factory=LatentSettings)
    start: StartSettings = field(default_factory=StartSettings)
    named: bool = False
    watch_every: Count = 500
    reference_rows: Count = 20_000
    source_checkpoint: Literal["final", "best"] = "final"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source.prompt_length != self.target.prompt_length:
            raise UsageError(
                f"source training has prompt_length {self.source.prompt_length} and target training "
                f"{self.target.prompt_length}; one generator makes both, so give the same."
            )

    @property
    def choices(self) -> dict[str, Any]:
        """Everything but the two trainings, flat by name: how skills are chosen, how they start, how they are kept up."""
        own = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("source", "target", "latent", "start")
        }
        return {**vars(self.latent), **vars(self.start), **own}

    def having(self, **changes: Any) -> SharPTRecipe:
        """The same recipe with some ``choices`` changed; a name that does not exist is refused with the nearest one."""
        for name in changes:
            if name not in self.choices:
                raise UnknownNameError("setting of the space", name, self.choices)

        def part(owner: Any) -> dict[str, Any]:
            return {f.name: changes[f.name] for f in fields(owner) if f.name in changes}

        latent, start = replace(self.latent, **part(self.latent)), replace(self.start, **part(self.start))
        return replace(self, latent=latent, start=start, **part(self))

    def ablated(self, ablation: Ablation) -> SharPTRecipe:
        """The recipe of an ablation of Table 3, which the paper does not define further, or of a control.

        ``no-source-training``: E stays at its stated start and the generator at its fresh one; only the target is
        trained (source steps are not run at all: see ``train.untrained_space``).
        ``no-latent-space``: the instance encoding feeds the generator directly, in place of a skill; the generator is
        trained on the sources and then on the target as before.
        ``generator-only``, our control: one fixed random vector for all rows and a fresh generator. A target tunes exactly
        as many numbers as SharPT does, with nothing of the sources in them.
        """
        if ablation not in ABLATIONS:
            raise UnknownNameError("ablation", ablation, ABLATIONS)
        if ablation == "no-latent-space":
            return replace(self, latent=replace(self.latent, latent_space=False))
        if ablation == "generator-only":
            start = replace(self.start, skill_count=1, skill_init="random")
            return replace(self, start=start, latent=replace(self.latent, top_n=1))
        return self


def choice_kinds() -> dict[str, Any]:
    """The type of every choice that `SharPTRecipe.having` takes."""
    parts = {**kinds(LatentSettings), **kinds(StartSettings), **kinds(SharPTRecipe)}
    return {name: kind for name, kind in parts.items() if name not in ("source", "target", "latent", "start")}


def paper() -> SharPTRecipe:
    """The paper, read literally; E and the generator start as linear layers and normal noise do, K = 256 is our guess."""
    return SharPTRecipe(
        source=training_recipes.sharpt_source(),
        target=training_recipes.sharpt_target(),
        start=StartSettings(
            skill_count=256,
            skill_init="normal",
            generator_init="linear",
            standardise=False,
            balanced=False,
            skill_step=0.3,
        ),
    )


def balanced() -> SharPTRecipe:
    """The paper's steps and rates with our start: k-means skills, word-like prompts, units that keep steps small."""
    return replace(paper(), start=StartSettings())


def quick() -> SharPTRecipe:
    """Minutes on two cores with the embedded backbone."""
    settings = training_recipes.quick()
    return SharPTRecipe(
        source=settings.having(steps=600, batch_size=32, embedding_step=0, eval_every=200),
        target=settings.having(embedding_step=0),
        start=StartSettings(skill_count=32),
        watch_every=100,
        reference_rows=5_000,
    )


RECIPES: Mapping[str, Callable[[], SharPTRecipe]] = {"paper": paper, "balanced": balanced, "quick": quick}


def sharpt_recipe(name: str) -> SharPTRecipe:
    """A recipe by name."""
    if name not in RECIPES:
        raise UnknownNameError("SharPT recipe", name, RECIPES)
    return RECIPES[name]()
