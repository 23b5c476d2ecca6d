"""Predictors: what each one says, on cases that can be worked out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.models import corpus, tiny_backbone

from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import UsageError
from softprompt.library.similarity import similarity
from softprompt.methods.spot.predictors import (
    Candidate,
    DataSize,
    FewStepLoss,
    SimilarityPredictor,
    TextSimilarity,
    TransferTarget,
    ZeroShotLoss,
    chosen_rows,
    predict_all,
    prompt_losses,
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
    candidates = [
        Candidate(name="start", task="a", prompt=start),
        Candidate(name="none", task="b"),
        Candidate(name="tuned", task="c", prompt=tuned),
    ]
    found = ZeroShotLoss(backbone, rows=8).predict(TransferTarget(name="toy", train=split), candidates)
    assert found.values[2] > found.values[0]
    assert math.isnan(found.values[1])
    assert found.forward_tokens > 0
    assert found.uncertainty[0] > 0
    again = ZeroShotLoss(backbone, rows=8, rows_per_pass=3).predict(TransferTarget(name="toy", train=split), candidates)
    assert [again.values[0], again.values[2]] == pytest.approx([found.values[0], found.values[2]], rel=1e-4)


def test_few_step_loss_measures_on_rows_that_were_not_tuned_on() -> None:
    backbone = tiny_backbone("t5")
    split = encoded(backbone)
    seen: list[tuple[tuple[int, ...], list[str], int]] = []

    def tune(prompts_SPH: torch.Tensor, part: EncodedSplit, steps: int) -> tuple[torch.Tensor, int]:
        seen.append((tuple(prompts_SPH.shape), [e.key for e in part.examples], steps))
        return prompts_SPH * 0.5, 1000

    prompts = [torch.randn(n, backbone.hidden_size) for n in (3, 5, 3)]
    candidates = [Candidate(name=str(i), task="t", prompt=p) for i, p in enumerate(prompts)]
    predictor = FewStepLoss(backbone, tune, steps=7, rows=5)
    found = predictor.predict(TransferTarget(name="toy", train=split), candidates)
    assert sorted(shape for shape, _, _ in seen) == [(1, 5, 24), (2, 3, 24)], "one call for each prompt length"
    assert all(steps == 7 for _, _, steps in seen)
    tuned_on = set(seen[0][1])
    held = [i for i, e in enumerate(split.examples) if e.key not in tuned_on]
    assert len(held) == 5
    expected = prompt_losses(backbone, [p * 0.5 for p in prompts], split, held)
    assert list(found.values) == pytest.approx((-expected.per_token_S()).tolist(), rel=1e-5)
    assert found.forward_tokens == expected.forward_tokens + 2000
    with pytest.raises(UsageError, match="toy has 1"):
        predictor.predict(TransferTarget(name="toy", train=split.select([0])), candidates)


def test_similarity_is_averaged_over_the_targets_seeds() -> None:
    seeds = [torch.randn(4, 6) for _ in range(3)]
    sources = [torch.randn(5, 6), None, torch.randn(2, 6)]
    candidates = [Candidate(name=str(i), task="t", task_embedding=e) for i, e in enumerate(sources)]
    for metric in ("per_token", "average"):
        predictor = SimilarityPredictor(metric)  # type: ignore[arg-type]
        assert predictor.name == f"similarity-{metric.replace('_', '-')}"
        found = predictor.predict(TransferTarget(name="x", task_embeddings=seeds), candidates)
        for i in (0, 2):
            each = [similarity(s, sources[i], metric) for s in seeds]  # type: ignore[arg-type]
            assert found.values[i] == pytest.approx(np.mean(each), abs=1e-9)
            assert found.uncertainty[i] == pytest.approx(np.std(each, ddof=1) / math.sqrt(3), abs=1e-9)
        assert math.isnan(found.values[1])
    with pytest.raises(UsageError, match="needs task embeddings of x"):
        predictor.predict(TransferTarget(name="x"), candidates)


def test_texts_and_sizes() -> None:
    target = TransferTarget(name="x", texts=["a dull film", "a great film with a good plot"])
    candidates = [
        Candidate(name="movies", task="movies", texts=["the film has a great plot", "a dull story"], train_rows=100),
        Candidate(
            name="rivers", task="rivers", texts=["water flows under bridges", "stones lie there"], train_rows=1000
        ),
        Candidate(name="movies@1", task="movies", texts=["the film has a great plot", "a dull story"]),
        Candidate(name="unknown", task="unknown"),
    ]
    text = TextSimilarity().predict(target, candidates).values
    assert text[0] > 0.3
    assert text[1] == 0.0
    assert text[2] == text[0]
    assert math.isnan(text[3])
    same = TextSimilarity().predict(target, [Candidate(name="s", task="s", texts=target.texts)]).values
    assert same[0] == pytest.approx(1.0)
    size = DataSize().predict(target, candidates).values
    assert size[1] - size[0] == pytest.approx(math.log(10))
    assert math.isnan(size[3])
    assert set(predict_all([TextSimilarity(), DataSize()], target, candidates)) == {"text-similarity", "data-size"}
    with pytest.raises(UsageError, match="some inputs"):
        TextSimilarity().predict(TransferTarget(name="x"), candidates)
    with pytest.raises(UsageError, match="training rows of x"):
        ZeroShotLoss(tiny_backbone("t5")).predict(TransferTarget(name="x"), candidates)


def test_rows_are_chosen_by_content_and_seed() -> None:
    split = encoded(tiny_backbone("t5"))
    assert chosen_rows(split, 5, 0) == chosen_rows(split, 5, 0)
    assert chosen_rows(split, 5, 0) != chosen_rows(split, 5, 1)
    assert sorted(chosen_rows(split, 99, 0)) == list(range(12))
