"""The Llama family's own path against transformers on the same weights, and against itself.

Our error against the float64 truth is bounded by transformers' own float32 error on the same rows.
"""

from __future__ import annotations

import pytest
import torch
from tests.support.decoders import FORMS, tiny_decoder
from tests.support.models import random_batch, random_prompts
from tests.support.reference import FACTOR, WHICH, error_of, hf_greedy, ours_of, reference

from softprompt.backbones.base import Dropout
from softprompt.backbones.decoder import DecoderBackbone
from softprompt.batch import PromptBatch, Rows, TokenBatch


def prompts_of(stack, which=WHICH) -> PromptBatch:
    return stack.prompts(Rows(run_B=torch.tensor(which)))


@pytest.mark.parametrize("name", FORMS)
def test_loss_logits_and_prompt_gradient_are_as_exact_as_transformers(name: str) -> None:
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for seed in range(2):
        backbone = tiny_decoder(name, seed=seed)
        assert isinstance(backbone, DecoderBackbone)
        batch, stack = random_batch(backbone, seed=seed), random_prompts(backbone, seed=seed)
        truth = reference(backbone, batch, stack, WHICH, torch.float64)
        plain = reference(backbone, batch, stack, WHICH, torch.float32)
        losses, logits, grad = ours_of(backbone, batch, stack)
        rows = torch.cat([logits[b, : len(row)] for b, row in enumerate(truth.logits)])
        for what, found, other, true in (
            ("loss", losses.nll_B.detach(), plain.nll_B, truth.nll_B),
            ("logits", rows, torch.cat(plain.logits), torch.cat(truth.logits)),
            ("gradient", grad, plain.grad_NPH, truth.grad_NPH),
        ):
            ours[what] = ours.get(what, 0.0) + error_of(found, true)
            theirs[what] = theirs.get(what, 0.0) + error_of(other, true)
    for what, error in ours.items():
        assert error <= FACTOR * theirs[what] + 1e-7, (what, error, theirs[what])


@pytest.mark.parametrize("name", FORMS)
def test_greedy_answers_equal_transformers_alone_and_in_a_batch(name: str) -> None:
    backbone = tiny_decoder(name)
    batch, stack = random_batch(backbone, targets=False), random_prompts(backbone, tuned=False)
    prompts = prompts_of(stack)
    expected = hf_greedy(backbone, batch, stack, WHICH, 8)
    assert backbone.generate(batch, prompts, 8) == expected
    assert backbone.generate(batch, prompts, 8) == expected  # with keys and values of the prompts remembered
    for b in range(batch.size):
        row = torch.tensor([b])
        assert backbone.generate(batch.select(row), prompts.select(row), 8) == [expected[b]]


@pytest.mark.parametrize("name", FORMS)
def test_a_prompt_computed_once_is_a_prompt_computed_for_every_row(name: str) -> None:
    """In float64, to 1e-12: rows that share prompts, rows that carry their own, and rows one by one."""
    backbone = tiny_decoder(name, dtype=torch.float64)
    batch, stack = random_batch(backbone), random_prompts(backbone)
    unique = stack.prompts_NPH.detach().double()
    found = {}
    for how in ("once", "every row", "alone"):
        shared = unique.clone().requires_grad_(True)
        if how == "every row":  # as many unique prompts as rows
            copies, which, lengths = shared[WHICH], torch.arange(5), tuple(stack.lengths[i] for i in WHICH)
        else:
            copies, which, lengths = shared, torch.tensor(WHICH), stack.lengths
        prompts = PromptBatch(unique_UPH=copies, which_B=which, length_U=lengths, key_U=(None,) * len(lengths))
        parts = [torch.tensor([b]) for b in range(5)] if how == "alone" else [torch.arange(5)]
        losses = [backbone.example_losses(batch.select(rows), prompts.select(rows)).nll_B for rows in parts]
        loss_B = torch.cat(losses)
        loss_B.sum().backward()
        found[how] = (loss_B.detach(), shared.grad)
    for how in ("every row", "alone"):
        for ours, other in zip(found["once"], found[how], strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_dropout_in_rows_that_carry_their_prompts_is_the_rows_own(name: str) -> None:
    """Dropout's masks belong to a row: the same alone and in a batch."""
    backbone = tiny_decoder(name, dtype=torch.float64)
    batch, stack = random_batch(backbone), random_prompts(backbone, tuned=False)
    prompts = prompts_of(stack)
    keys = torch.arange(5) + 7
    dropped = backbone.example_losses(batch, prompts, Dropout(rate=0.3, key_B=keys)).nll_B
    assert float((dropped - backbone.example_losses(batch, prompts).nll_B).abs().max()) > 1e-3
    for b in range(5):
        row = torch.tensor([b])
        alone = backbone.example_losses(
            batch.select(row), prompts.select(row), Dropout(rate=0.3, key_B=keys[row])
        ).nll_B
        torch.testing.assert_close(alone, dropped[b : b + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_label_scores_are_losses(name: str) -> None:
    backbone = tiny_decoder(name, dtype=torch.float64)
    batch, stack = random_batch(backbone, targets=False), random_prompts(backbone, tuned=False)
    prompts = prompts_of(stack)
    answers = backbone.tokenize_targets(["yes", "true story plot", "no light"])
    found = backbone.label_scores(batch, prompts, [answers] * 5)
    for b in range(5):
        ids = batch.input_BT[b, : int(batch.input_length_B[b])].tolist()
        rows = TokenBatch.of([ids] * 3, answers)
        losses = backbone.example_losses(rows, prompts_of(stack, [WHICH[b]] * 3)).nll_B
        torch.testing.assert_close(found[b], -losses, rtol=1e-12, atol=1e-12)


def test_checkpointing_changes_nothing() -> None:
    found = []
    for on in (False, True):
        backbone = tiny_decoder("gemma3")
        backbone.checkpointing = on
        found.append(ours_of(backbone, random_batch(backbone), stack := random_prompts(backbone))[2])
        assert stack.prompts_NPH.grad is not None
    assert torch.equal(found[0], found[1])


def test_prompts_are_remembered_by_key_and_computed_once() -> None:
    backbone = tiny_decoder("llama")
    batch, stack = random_batch(backbone, targets=False), random_prompts(backbone, tuned=False)
    passed: list[int] = []
    run = backbone._through_layers
    backbone._through_layers = lambda x_SH, *rest: passed.append(len(x_SH)) or run(x_SH, *rest)
    backbone.generate(batch, prompts_of(stack), 3)
    backbone.generate(batch, prompts_of(stack), 3)
    text = int(batch.input_length_B.sum())
    assert passed == [sum(stack.lengths), text, text]
    assert set(backbone._prompt_kv) == set(stack.keys)


def test_an_empty_text_behind_a_prompt_and_rows_without_prompts_are_answered() -> None:
    backbone = tiny_decoder("mistral")
    stack = random_prompts(backbone, lengths=(3, 5), tuned=False)
    unique = torch.cat([torch.zeros_like(stack.prompts_NPH[:1]), stack.prompts_NPH])
    prompts = PromptBatch(
        unique_UPH=unique, which_B=torch.tensor([1, 0, 2]), length_U=(0, 3, 5), key_U=(None, "a", "b")
    )
    rows = [[], [7, 8, 9, 10], [5, 6]]
    together = backbone.generate(TokenBatch.of(rows), prompts, 6)
    for b, row in enumerate(rows):
        one = prompts.select(torch.tensor([b]))
        assert backbone.generate(TokenBatch.of([row]), one, 6) == [together[b]]
    assert backbone.generate(TokenBatch.of(rows[1:2]), None, 6) == together[1:2]


@pytest.mark.parametrize("name", ["llama", pytest.param("qwen2", marks=pytest.mark.slow), "gemma3", "gpt2"])
def test_bfloat16_error_is_that_of_transformers(name: str) -> None:
    ours, theirs = [], []
    for seed in range(6):
        backbone = tiny_decoder(name, seed=seed, dtype=torch.bfloat16)
        batch, stack = random_batch(backbone, seed=seed), random_prompts(backbone, seed=seed)
        truth = reference(backbone, batch, stack, WHICH, torch.float32)
        plain = reference(backbone, batch, stack, WHICH, torch.bfloat16)
        losses, _, grad = ours_of(backbone, batch, stack)
        ours.append([error_of(losses.nll_B.detach(), truth.nll_B), error_of(grad, truth.grad_NPH)])
        theirs.append([error_of(plain.nll_B, truth.nll_B), error_of(plain.grad_NPH, truth.grad_NPH)])
    ratio = torch.tensor(ours).median(0).values / torch.tensor(theirs).median(0).values
    assert float(ratio.max()) < 1.4, ratio
