"""Predictors: what each one says, on cases that can be worked out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.support.models import corpus, tiny_backbone
from tests.support.small_tasks import small_task

from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import UnknownNameError, UsageError
from softprompt.methods.spot.measured import answer_states, chosen_rows, predict, prompt_losses
from softprompt.methods.spot.predictor_names import MEASURED
from softprompt.methods.spot.predictors import (
    calibrated_losses,
    check_distinct,
    label_losses,
    logme,
    order_of,
    text_similarities,
)
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Example, Split
from softprompt.tasks.splits import EncodedSplit
from softprompt.training.data import TaskData
from softprompt.training.settings import TrainSettings


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
    found = prompt_losses(backbone, [start, tuned], split, chosen_rows(split, 8, 0))
    assert found.per_token_S()[1] < found.per_token_S()[0]
    assert found.forward_tokens > 0


def toy(backbone: Backbone, labels: tuple[str, ...] | None = ("yes", "no film")) -> TaskData:
    task = dataclasses.replace(small_task("toy"), labels=labels)
    return TaskData(task=task, train=encoded(backbone), validation=encoded(backbone))


SETTINGS = TrainSettings(
    steps=40, batch_size=4, prompt_length=3, optimizer="adam", learning_rate=0.05, warmup_steps=10, embedding_step=0
)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_every_predictor_says_something_of_every_prompt_and_what_it_cost(kind: str) -> None:
    backbone = tiny_backbone(kind)
    prompts = [torch.randn(n, backbone.hidden_size) for n in (3, 4)]
    found = predict(MEASURED, backbone, prompts, toy(backbone), SETTINGS)
    assert list(found) == list(MEASURED)
    for name, one in found.items():
        assert len(one.values) == 2, name
        assert np.isfinite(one.values).all(), name
        assert one.values[0] != one.values[1], name
        assert one.forward_tokens > 0, name
    assert found["loss-decrease-5"].forward_tokens > found["loss-decrease-1"].forward_tokens
    alone = predict(["loss-decrease-1"], backbone, prompts, toy(backbone), SETTINGS)["loss-decrease-1"]
    assert alone.values == pytest.approx(
        found["loss-decrease-1"].values, abs=1e-4
    )  # the first of five steps is the same
    with pytest.raises(UsageError, match="needs a task with labels"):
        predict(["logme"], backbone, prompts, toy(backbone, None), SETTINGS)
    with pytest.raises(UnknownNameError):
        predict(["luck"], backbone, prompts, toy(backbone), SETTINGS)


def test_states_are_those_that_answers_are_predicted_from() -> None:
    for kind in ("t5", "llama", "gpt2"):
        backbone = tiny_backbone(kind)
        split = encoded(backbone)
        prompts = [torch.randn(n, backbone.hidden_size) for n in (3, 5)]
        states, _ = answer_states(backbone, prompts, split, [2, 7], rows_per_pass=3)
        for s, prompt in enumerate(prompts):
            stack = PromptStack(prompt[None])(torch.zeros(1, dtype=torch.int64))
            for r, i in enumerate([2, 7]):
                batch = TokenBatch.of([split.inputs(i).tolist()], [split.targets(i).tolist()])
                first_V = backbone.logits(batch, stack)[0, 0]
                head = backbone.hf_model.get_output_embeddings().weight.detach()
                scaled = states[s, r].float() @ head.T
                assert float(torch.corrcoef(torch.stack([scaled, first_V]))[0, 1]) > 0.9999, kind


def test_a_prompts_liking_for_one_label_is_taken_out() -> None:
    told = np.array([[[2.0, 0.0], [0.0, 2.0]], [[7.0, 0.0], [5.0, 2.0]]])  # the same, with 5 more on the first label
    gold = [0, 1]
    fair, biased = calibrated_losses(told, gold)
    raw = label_losses(told, gold)
    assert raw[1] > 5 * raw[0]
    assert fair == pytest.approx(np.log1p(np.exp(-2)))
    assert biased < 0.7 < raw[1]
    knows_nothing = calibrated_losses(np.array([[[9.0, 0.0], [9.0, 0.0]]]), gold)
    assert knows_nothing[0] == pytest.approx(np.log(2))


def test_logme_prefers_states_that_tell_the_labels_apart() -> None:
    draw = np.random.default_rng(0)
    gold = [i % 2 for i in range(40)]
    noise = draw.normal(size=(40, 12))
    signal = noise + 3 * np.asarray(gold)[:, None] * np.eye(12)[0]
    assert logme(signal, gold) > logme(noise, gold)
    # The evidence at the fixed point is the density of the labels under the Bayesian linear model it describes.
    few, y = draw.normal(size=(6, 3)), [0, 1, 0, 1, 1, 0]
    assert logme(few, y) == pytest.approx(best_density(few, y), abs=2e-3)
    with pytest.raises(UsageError, match="two labels"):
        logme(noise, [1] * 40)


def best_density(states: np.ndarray, gold: list[int]) -> float:
    """Mean over labels of the largest log density a row, found by search over both precisions."""
    from scipy.optimize import minimize
    from scipy.stats import multivariate_normal

    def density(logs: np.ndarray, y: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(y)) / beta + states @ states.T / alpha
        return -float(multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)) / len(y)

    labels = [np.asarray([g == label for g in gold], dtype=float) for label in (0, 1)]
    return float(np.mean([-minimize(density, [0.0, 0.0], args=(y,), method="Nelder-Mead").fun for y in labels]))


def test_a_constant_predictor_is_refused_and_orders_nothing() -> None:
    with pytest.raises(UsageError, match="gives all 3 source prompts one value"):
        check_distinct("data-size", [8000.0, 8000.0, 8000.0])
    check_distinct("data-size", [8000.0, 8001.0])
    check_distinct("data-size", [8000.0])
    assert order_of([0.1, 0.9, float("nan"), 0.9]) == [1, 3, 0]
    assert order_of([2.0, 2.0, 2.0]) == []
    assert order_of([2.0]) == [0]


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
