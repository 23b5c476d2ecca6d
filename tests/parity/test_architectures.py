"""Every model type that is accepted without a trial, against transformers: losses, logits, prompt gradients, answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.decoders import DECODERS
from tests.support.models import _spread, random_batch, random_prompts, tiny_model, tiny_tokenizer
from tests.support.reference import WHICH, error_of, hf_greedy, ours_of, reference

from softprompt.backbones.base import Backbone
from softprompt.backbones.load import wrap
from softprompt.backbones.selftest import TESTED, check_answers
from softprompt.batch import Rows
from softprompt.errors import BackboneError

_LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
CONFIGS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {**_GPT, "n_ctx": 128, "n_inner": 48, "rotary_dim": 4},
    "cohere": _LLAMA,
    "cohere2": {**_LLAMA, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "glm": {**_LLAMA, "head_dim": 8},
    "glm4": {**_LLAMA, "head_dim": 8},
    "gpt_bigcode": _GPT,
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 6,
        "max_position_embeddings": 128,
    },
    "gpt_neox": {**_LLAMA, "rotary_pct": 0.5},
    "gptj": {**_GPT, "rotary_dim": 4},
    "granite": {**_LLAMA, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "nemotron": _LLAMA,
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "opt": {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32,
            "max_position_embeddings": 128},
    "phi": {**_LLAMA, "partial_rotary_factor": 0.5},
    "phi3": {**_LLAMA, "sliding_window": 6},
    "smollm3": {**_LLAMA, "no_rope_layers": [1, 0]},
    "stablelm": _LLAMA,
    "starcoder2": {**_LLAMA, "sliding_window": 6},
}  # fmt: skip


def tiny(kind: str, **more: Any) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer("llama")
    config = AutoConfig.for_model(
        kind, **{**CONFIGS.get(kind, _LLAMA), **more}, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    return _spread(AutoModelForCausalLM.from_config(config)), tokenizer


def backbone_of(kind: str) -> Backbone:
    model, tokenizer = tiny(kind)
    return wrap(model, tokenizer, name=f"tiny-{kind}")


def test_the_table_of_tested_types_is_what_is_tested() -> None:
    assert {*CONFIGS, *(kind for kind, _ in DECODERS.values())} == TESTED


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_architecture_is_as_transformers_has_it(kind: str) -> None:
    backbone = backbone_of(kind)
    batch, stack = random_batch(backbone), random_prompts(backbone)
    truth = reference(backbone, batch, stack, WHICH, torch.float64)
    losses, logits, grad = ours_of(backbone, batch, stack)
    rows = torch.cat([logits[b, : len(row)] for b, row in enumerate(truth.logits)])
    assert error_of(losses.nll_B.detach(), truth.nll_B) < 1e-5
    assert error_of(rows, torch.cat(truth.logits)) < 1e-5
    assert error_of(grad, truth.grad_NPH) < 1e-5
    still = random_prompts(backbone, tuned=False)
    prompts = still.prompts(Rows(run_B=torch.tensor(WHICH)))
    expected = hf_greedy(backbone, batch, still, WHICH, 8)
    assert backbone.generate(batch, prompts, 8) == expected
    for b in range(batch.size):
        row = torch.tensor([b])
        assert backbone.generate(batch.select(row), prompts.select(row), 8) == [expected[b]]
    check_answers(backbone, backbone.hf_model)  # what unknown types must pass, known ones pass


@pytest.mark.parametrize("kind", ["olmo3", "mixtral", "arcee"])
def test_an_unknown_architecture_that_passes_the_trial_is_used(kind: str) -> None:
    backbone = backbone_of(kind)
    assert kind not in TESTED
    assert len(backbone.generate(random_batch(backbone, targets=False), None, 3)) == 5


def test_unknown_architectures_that_fail_it_are_refused() -> None:
    for kind in ("openai-gpt", "rwkv"):  # no cache, no masks
        model, tokenizer = tiny(kind, hidden_size=32, num_hidden_layers=2, n_embd=32, n_layer=2, n_head=4)
        with pytest.raises(BackboneError, match=f"'{kind}', which no test of ours knows"):
            wrap(model, tokenizer, name="unknown")


def test_a_model_that_ignores_masks_or_prompts_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    model.config.model_type = "home-made"
    forward = model.forward

    def blind(attention_mask: Any = None, position_ids: Any = None, logits_to_keep: int = 0, **given: Any) -> Any:
        return forward(**given, logits_to_keep=logits_to_keep)

    def deaf(inputs_embeds: Any = None, position_ids: Any = None, logits_to_keep: int = 0, **given: Any) -> Any:
        more = {} if inputs_embeds is None else {"inputs_embeds": inputs_embeds * 1.5}
        return forward(**given, **more, position_ids=position_ids, logits_to_keep=logits_to_keep)

    model.forward = blind
    with pytest.raises(BackboneError, match="beside a longer row"):
        wrap(model, tokenizer, name="blind")
    model.forward = deaf
    with pytest.raises(BackboneError, match="given a prompt's embeddings"):
        wrap(model, tokenizer, name="deaf")
    model.forward = forward
    wrap(model, tokenizer, name="plain")
