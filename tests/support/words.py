"""A task small enough for a tiny random backbone to be tuned on, and runs of it."""

from __future__ import annotations

import os
import signal

import torch
from tests.support.models import corpus

from softprompt.prompts.stack import PromptStack
from softprompt.tasks.example import Example
from softprompt.training.loop import train_prompts
from softprompt.training.runs import Run
from softprompt.training.settings import TrainSettings


class WordTask:
    """Is a word in the sentence: a task small enough for a random backbone to be tuned on."""

    name = "word"
    labels = ("no", "yes")
    metrics = ("accuracy",)
    description = None
    scored_by_label = True
    judged_by_loss = False

    def judge_of(self, example):
        return self

    def groups(self, examples):
        return [e.key for e in examples]

    def score(self, predictions, examples, canonical=None):
        gold = [canonical(e.targets) if canonical else e.targets for e in examples]
        right = [p == g for p, g in zip(predictions, gold, strict=True)]
        return {"accuracy": 100.0 * sum(right) / max(1, len(right)), "score": 100.0 * sum(right) / max(1, len(right))}


def examples(count, seed):
    return [
        Example(key=f"word/{seed}/{i}", inputs=text, targets="yes" if "film" in text else "no")
        for i, text in enumerate(corpus(count, seed))
    ]


SETTINGS = TrainSettings(
    steps=6, batch_size=4, prompt_length=3, optimizer="adam", learning_rate=0.05, eval_every=2, embedding_step=3,
    micro_batch_tokens=60, max_target_tokens=4, dropout=0.1, clip_norm=1.0,
)  # fmt: skip


def runs_of(splits, seeds, **changes):
    train, validation = splits
    return [
        Run(name=f"word-{seed}", seed=seed, train=(train,), task=WordTask(), validation=validation, **changes)
        for seed in seeds
    ]


def prompts(backbone, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, SETTINGS.prompt_length, backbone.hidden_size, generator=generator)


def train(backbone, splits, seeds, start, settings=SETTINGS, folder=None, **options):
    return train_prompts(backbone, PromptStack(start, tuned=True), runs_of(splits, seeds), settings, folder, **options)


class StopAt:
    """An observer that asks for a stop as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def __call__(self, progress):
        if progress.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)
