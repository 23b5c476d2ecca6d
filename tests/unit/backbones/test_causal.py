"""What is particular to decoder-only models: the cache of prompts, spaces before targets, beginnings of text."""

from __future__ import annotations

import pytest
import torch
from tests.models import CAUSAL_KINDS, random_batch, random_prompts, tiny_backbone

from softprompt.batch import Rows, TokenBatch
from softprompt.errors import UsageError


@pytest.mark.parametrize("kind", CAUSAL_KINDS)
def test_a_prompts_keys_and_values_are_computed_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone(kind)
    batch, stack = random_batch(backbone, targets=False), random_prompts(backbone, tuned=False)
    prompts = stack.prompts(Rows(run_B=torch.tensor([0, 1, 2, 0, 1])))
    first = backbone.generate(batch, prompts, 5)
    assert set(backbone._prompt_kv) == {"prompt-0-0", "prompt-0-1", "prompt-0-2"}
    calls = []
    forward = backbone.hf_model.forward
    monkeypatch.setattr(
        backbone.hf_model, "forward", lambda *a, **k: calls.append("inputs_embeds" in k) or forward(*a, **k)
    )
    assert backbone.generate(batch, prompts, 5) == first
    assert not any(calls)  # no prompt went through the model again


@pytest.mark.parametrize("kind", CAUSAL_KINDS)
def test_generation_without_a_prompt_equals_hugging_face(kind: str) -> None:
    backbone = tiny_backbone(kind)
    batch = random_batch(backbone, rows=3, targets=False)
    for b, found in enumerate(backbone.generate(batch, None, 6)):
        ids = batch.input_BT[b : b + 1, : int(batch.input_length_B[b])]
        theirs = backbone.hf_model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0
        )[0, ids.shape[1] :].tolist()
        assert found == (theirs[: theirs.index(backbone.end_id)] if backbone.end_id in theirs else theirs)


def test_texts_join_as_they_are_tokenised() -> None:
    gpt2, llama = tiny_backbone("gpt2"), tiny_backbone("llama")
    assert gpt2.tokenize_targets(["yes"])[0][:-1] == gpt2.tokenizer(" yes", add_special_tokens=False)["input_ids"]
    assert llama.tokenize_targets(["yes"])[0][:-1] == llama.tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert llama.tokenize_inputs(["a cat"])[0][0] == llama.tokenizer.bos_token_id
    for backbone in (gpt2, llama):
        assert backbone.decode(backbone.tokenize_targets(["yes no"])) == ["yes no"]


def test_a_row_with_nothing_before_its_target_is_refused() -> None:
    backbone = tiny_backbone("gpt2")
    with pytest.raises(UsageError, match="neither"):
        backbone.example_losses(TokenBatch.of([[]], [[1, 2]]), None)


def test_checkpointing_changes_nothing() -> None:
    found = []
    for on in (False, True):
        backbone = tiny_backbone("llama")
        backbone.checkpointing = on
        assert backbone.checkpointing is on
        batch, stack = random_batch(backbone), random_prompts(backbone)
        backbone.example_losses(batch, stack.prompts(Rows(run_B=torch.tensor([0, 1, 2, 0, 1])))).nll_B.sum().backward()
        found.append(stack.prompts_NPH.grad)
    torch.testing.assert_close(found[0], found[1])
