"""Small tasks in memory over the words of ``tests.support.models``, and an instance encoder that needs no model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.inference.evaluate import EvalJob, evaluate
from softprompt.methods.method import Target, Work
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.method import AdaptedPrompt, SharPT
from softprompt.methods.sharpt.recipes import (
    SharPTRecipe,
)
from softprompt.methods.sharpt.space import Space
from softprompt.methods.sharpt.start import StartSettings
from softprompt.methods.sharpt.train import untrained_space
from softprompt.tasks.rows import BadRows, Formed, Row
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData, task_data
from softprompt.training.settings import TrainSettings

SETTINGS = TrainSettings(
    steps=6,
    batch_size=4,
    prompt_length=3,
    optimizer="adam",
    learning_rate=0.05,
    eval_every=3,
    eval_rows=0,
    embedding_step=0,
    max_input_tokens=32,
    max_target_tokens=8,
)

FILMS = [{"text": "a great film", "label": "good"}, {"text": "a poor story", "label": "bad"}] * 10


def films_task(name: str = "films") -> Task:
    """A task of rows, as a user of ``import softprompt as sp`` makes it."""
    return Task.from_rows(FILMS, validation=FILMS[:4], text="text", label="label", name=name)


@dataclass(frozen=True)
class ListSource:
    """Rows from a list, by split."""

    lists: dict[str, list[dict[str, Any]]]

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        for i, values in enumerate(self.lists[split]):
            yield Row(values=values, line=i + 1, where=f"memory/{split}", train=split == "train")

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory"}


def form(row: Row) -> Sequence[Formed]:
    labels = ("yes", "no")
    return [Formed(row.text("text"), labels[row.values["label"]], {"label": row.values["label"]})]


def small_task(name: str = "animals", *, train: int = 24, validation: int = 8, one_class: bool = False) -> Task:
    """A two-class task: is the animal named first a cat?"""
    draw = random.Random(name)

    def make(count: int) -> list[dict[str, Any]]:
        rows = []
        for i in range(count):
            label = 0 if one_class else i % 2
            words = draw.choices(["house", "river", "tree", "red", "green", "runs", "eats"], k=draw.randint(2, 6))
            rows.append({"text": f"{name} " + " ".join(["dog" if label else "cat", *words]), "label": label})
        return rows

    lists = {"train": make(train), "validation": make(validation)}
    return Task(
        name=name, category="toy", labels=("yes", "no"), metrics=("accuracy",), source=ListSource(lists), form=form
    )


def small_data(backbone: Backbone, name: str = "animals", settings: TrainSettings = SETTINGS, **shape: Any) -> TaskData:
    """The same, tokenised."""
    return task_data(backbone, small_task(name, **shape), settings)


class WordEncoder:
    """Encodes a text as the mean of fixed random vectors of its words."""

    name = "words"

    def __init__(self, width: int = 5, seed: int = 0) -> None:
        self.width = width
        self.seed = seed
        self.fingerprint = hashlib.sha256(f"words/{width}/{seed}".encode()).hexdigest()
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.calls += len(texts)
        return torch.stack([torch.stack([self._word(w) for w in text.split()]).mean(0) for text in texts])

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def _word(self, word: str) -> Tensor:
        digest = hashlib.sha256(f"{self.seed}/{word}".encode()).digest()
        return torch.randn(self.width, generator=torch.Generator().manual_seed(int.from_bytes(digest[:6], "big")))


RECIPE = SharPTRecipe(
    source=SETTINGS, target=SETTINGS, start=StartSettings(skill_count=4), watch_every=4, reference_rows=30
)


def small_sharpt(backbone: Backbone, settings: TrainSettings = SETTINGS) -> SharPT:
    """The method on a space of four skills that was not trained."""
    encoder, recipe = CachedEncoder(WordEncoder()), replace(RECIPE, source=settings, target=settings)
    space = untrained_space(backbone, encoder, [small_data(backbone, "fish", settings)], recipe)
    return SharPT(space, encoder, settings)


def sources(backbone: Any) -> list[Any]:
    return [small_data(backbone, "animals"), small_data(backbone, "birds", train=10)]


def adapt(
    backbone: Backbone,
    encoder: CachedEncoder,
    space: Space,
    targets: Sequence[TaskData],
    settings: TrainSettings,
    *,
    seeds: Sequence[int] = (0,),
    observer: Any = None,
    **work: Any,
) -> list[AdaptedPrompt]:
    """The generator tuned on targets, all rows choosing and reporting."""
    place = Work(backbone=backbone, observe=lambda *_: observer, **work)
    return SharPT(space, encoder, settings).adapt(place, [Target(data=data) for data in targets], seeds)


def rescored(live: Any, weights: Mapping[str, torch.Tensor], job: EvalJob) -> Mapping[str, float]:
    """Scores of tuned weights on a job's rows, from a fresh copy of the model that was tuned."""
    live.load({name: weights[name] for name in live.masters})
    with live.evaluating() as tuned:
        return evaluate(tuned, None, [job], max_target_tokens=8)[0].scores
