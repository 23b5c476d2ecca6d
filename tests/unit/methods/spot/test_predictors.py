"""Predictors: what each one says, on cases that can be worked out."""

from __future__ import annotations

import pytest
import torch
from tests.models import corpus, tiny_backbone

from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import UsageError
from softprompt.methods.spot.predictors import (
    chosen_rows,
    few_step_losses,
    prompt_losses,
    text_similarities,
    zero_shot_losses,
)
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import EncodedSplit, encode_split
from softprompt.tasks.task import Example, Split


def encoded(backbone: Backbone, rows: int = 12) -> EncodedSplit:
    examples = [
        Example(key=f"toy/train/{i}", inputs=text, targets="yes" if i % 2 else "no film", extra={})
        for i, text in enumerate(corpus(rows, seed=4))
    ]
    return encode_split(Split.of("train", examples), backbone, max_input_tokens=None, max_target_tokens=None)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_many_prompts_score_in_shared_batches_as_one_by_one(kind: str) -> None:
    backbone = tiny_backbone(kind)
    split = encoded(backbone)
    prompts = [torch.randn(n, backbone.hidden_size) for n in (3, 5, 3)]
    rows = [4, 1, 9, 7]
    found = prompt_losses(backbone, prompts, split, rows, rows_per_pass=5)
    assert found.tokens_R.tolist() == [len(split.targets(i)) for i in rows]
    positions = 0
    for s, prompt in enumerate(prompts):
        stack = PromptStack(prompt[None])(torch.zeros(1, dtype=torch.int64))
        for r, i in enumerate(rows):
            batch = TokenBatch.of([split.inputs(i).tolist()], [split.targets(i).tolist()])
            assert float(found.nll_SR[s, r]) == pytest.approx(
                float(backbone.example_losses(batch, stack).nll_B), rel=1e-4
            )
            positions += len(prompt) + len(split.inputs(i)) + len(split.targets(i))
    assert found.forward_tokens == positions
    total = found.nll_SR.sum(1) / found.tokens_R.sum()
    assert torch.allclose(found.per_token_S(), total)
    with pytest.raises(UsageError, match="no rows"):
        prompt_losses(backbone, prompts, split, [])


def test_zero_shot_loss_prefers_the_prompt_tuned_on_the_target() -> None:
    backbone = tiny_backbone("t5")
    split = encoded(backbone)
    start = torch.randn(4, backbone.hidden_size)
    stack = PromptStack(start[None], tuned=True)
    optimizer = torch.optim.Adam(stack.trained().values(), lr=0.1)
    batch = TokenBatch.of([split.inputs(i).tolist() for i in range(12)], [split.targets(i).tolist() for i in range(12)])
    for _ in range(30):
        optimizer.zero_grad()
        backbone.example_losses(batch, stack(torch.zeros(12, dtype=torch.int64))).nll_B.mean().backward()
        optimizer.step()
    tuned = stack.prompts_NPH.detach()[0]
    found = zero_shot_losses(backbone, [start, tuned], split, rows=8)
    assert found.per_token_S()[1] < found.per_token_S()[0]
    assert found.forward_tokens > 0


def test_few_step_loss_measures_on_rows_that_were_not_tuned_on() -> None:
    backbone = tiny_backbone("t5")
    split = encoded(backbone)
    seen: list[tuple[tuple[int, ...], list[str]]] = []

    def tune(prompts_SPH: torch.Tensor, part: EncodedSplit) -> tuple[torch.Tensor, int]:
        seen.append((tuple(prompts_SPH.shape), [e.key for e in part.examples]))
        return prompts_SPH * 0.5, 1000

    prompts_SPH = torch.randn(2, 3, backbone.hidden_size)
    found, cost = few_step_losses(backbone, prompts_SPH, split, tune, rows=5)
    ((shape, keys),) = seen
    assert shape == (2, 3, 24)
    held = [i for i, e in enumerate(split.examples) if e.key not in set(keys)]
    assert len(held) == 5
    expected = prompt_losses(backbone, list(prompts_SPH * 0.5), split, held)
    assert found.per_token_S().tolist() == pytest.approx(expected.per_token_S().tolist(), rel=1e-5)
    assert (found.forward_tokens, cost) == (expected.forward_tokens, 1000)
    with pytest.raises(UsageError, match="there are 1"):
        few_step_losses(backbone, prompts_SPH, split.select([0]), tune)


def test_tasks_of_like_words_are_alike() -> None:
    target = ["a dull film", "a great film with a good plot"]
    sources = {
        "movies": ["the film has a great plot", "a dull story"],
        "rivers": ["water flows under bridges", "stones lie there"],
        "same": target,
    }
    found = text_similarities(target, sources)
    assert found["movies"] > 0.3
    assert found["rivers"] == 0.0
    assert found["same"] == pytest.approx(1.0)


def test_rows_are_chosen_by_content_and_seed() -> None:
    split = encoded(tiny_backbone("t5"))
    assert chosen_rows(split, 5, 0) == chosen_rows(split, 5, 0)
    assert chosen_rows(split, 5, 0) != chosen_rows(split, 5, 1)
    assert sorted(chosen_rows(split, 99, 0)) == list(range(12))
