"""What is particular to decoder-only models: ends of answers, spaces before targets, special tokens."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import CAUSAL_KINDS, random_batch, random_prompts, tiny_backbone, tiny_model

from softprompt.backbones.load import wrap
from softprompt.batch import Rows, TokenBatch
from softprompt.errors import BackboneError, UsageError


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


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_row_with_nothing_before_its_target_is_refused(kind: str) -> None:
    backbone = tiny_backbone(kind)
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


def test_every_end_token_ends_an_answer() -> None:
    backbone = tiny_backbone("llama")
    model = backbone.hf_model
    (plain,) = backbone.generate(TokenBatch.of([[5, 6, 7]]), None, 4)
    model.generation_config.eos_token_id = [backbone.end_id, plain[2]]
    again = wrap(model, backbone.tokenizer, name="two ends", fingerprint="0" * 64)
    assert again.end_ids == (backbone.end_id, plain[2])
    assert again.generate(TokenBatch.of([[5, 6, 7]]), None, 4) == [plain[: plain.index(plain[2])]]


def test_special_tokens_are_the_tokenizers() -> None:
    from tokenizers import processors

    model, tokenizer = tiny_model("llama")
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    backbone = wrap(model, tokenizer, name="framed", fingerprint="0" * 64)
    (ids,), (goal,) = backbone.tokenize_inputs(["a cat"]), backbone.tokenize_targets(["yes"])
    assert ids == tokenizer("a cat")["input_ids"][:-1]  # a row is one text: its end stands behind the targets
    assert ids[:2] == [begin, begin]
    assert goal[-1] == end
    assert goal.count(end) == 1


def test_a_tokenizer_beyond_the_table_is_refused() -> None:
    model, tokenizer = tiny_model("llama")
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(BackboneError, match=f"'<new>' the id {len(tokenizer) - 1}.*{len(tokenizer) - 1} rows"):
        wrap(model, tokenizer, name="unresized", fingerprint="0" * 64)
