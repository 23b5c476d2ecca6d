"""Tasks that are judged by the loss of their targets (C4): the score is the loss's, and training sees new cuts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.models import corpus, tiny_backbone

from softprompt.batch import Rows, TokenBatch
from softprompt.errors import UsageError
from softprompt.inference.evaluate import EvalJob, evaluate
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.tasks.sources import MemorySource
from softprompt.tasks.splits import PrefixSplit
from softprompt.training.data import task_data
from softprompt.training.loop import train_prompts
from softprompt.training.recipes import recipe


def c4():  # type: ignore[no-untyped-def]
    rows = [{"text": text} for text in corpus(12, 3)]
    return replace(load_task("c4"), source=MemorySource(splits={"train": rows, "validation": rows[:5]}))


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_the_score_is_of_the_mean_token_loss(kind: str) -> None:
    backbone = tiny_backbone(kind)
    data = task_data(backbone, c4(), recipe("quick", prompt_length=3, max_target_tokens=0))
    stack = PromptStack(torch.randn(1, 3, backbone.hidden_size))
    for small in (10, 10_000):  # whatever stands together in a batch
        (found,) = evaluate(
            backbone, stack, [EvalJob(run=0, task=data.task, split=data.validation)], batch_tokens=small
        )
        nats = tokens = 0.0
        for i in range(5):
            batch = TokenBatch.of([data.validation.inputs(i)], [data.validation.targets(i)])
            rows = stack.prompts(Rows(run_B=torch.zeros(1, dtype=torch.int64)))
            losses = backbone.example_losses(batch, rows)
            nats, tokens = nats + float(losses.nll_B), tokens + int(losses.tokens_B)
        assert found.scores["score"] == pytest.approx(100 * np.exp(-nats / tokens), rel=1e-4)
        assert found.scores["score"] == data.task.score(found.predictions, data.validation.examples)["score"]
    with pytest.raises(UsageError, match="judged by the loss"):
        data.task.score(["a text"] * 5, data.validation.examples)


def test_training_draws_its_prefixes_anew_and_resumes_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone("t5")
    settings = recipe("quick", steps=12, batch_size=4, prompt_length=3, eval_every=6, embedding_step=0)
    data = task_data(backbone, c4(), settings)
    seen: dict[int, set[tuple[int, ...]]] = {}
    pair = PrefixSplit.pair

    def watched(self: PrefixSplit, i: int, key: int):  # type: ignore[no-untyped-def]
        found = pair(self, i, key)
        if self is data.train:
            seen.setdefault(i, set()).add(tuple(found[0].tolist()))
        return found

    monkeypatch.setattr(PrefixSplit, "pair", watched)
    start = PromptStack.of([torch.randn(3, backbone.hidden_size)], tuned=True)
    (one,) = train_prompts(backbone, start, [data.run("a", 1)], settings)
    assert one.curve[-1]["score"] > 0
    assert sum(len(cuts) > 1 for cuts in seen.values()) > 6  # twelve texts, four epochs of them
    (again,) = train_prompts(backbone, start, [data.run("a", 1)], settings)
    assert torch.equal(one.final["prompt"], again.final["prompt"])
