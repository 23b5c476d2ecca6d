"""Tiny random models of the Llama family and of GPT-2, one for each form that our own path reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.models import _spread, tiny_tokenizer

from softprompt.backbones.base import Backbone
from softprompt.backbones.load import wrap

_SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied-biased": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    "llama3-rope": (
        "llama",
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1000.0, "factor": 4.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 32}},
    ),
    "llama-many-heads": ("llama", {"num_key_value_heads": 4}),
    "mistral": ("mistral", {"sliding_window": 6}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1,
         "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2": (
        "gemma2",
        {"head_dim": 16, "sliding_window": 5, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
         "query_pre_attn_scalar": 24},
    ),
    "gemma3": (
        "gemma3_text",
        {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 24,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "gpt2": ("gpt2", {"n_inner": 48}),
}  # fmt: skip
"""Name -> model type and what its config says beside the shape all share."""

FORMS = [pytest.param(name, marks=pytest.mark.slow) if name in ("qwen2", "gemma") else name for name in DECODERS]
"""The names for a test's parameters; forms that others contain are slow."""


def tiny_decoder_model(name: str, *, seed: int = 0, **shape: Any) -> tuple[Any, Any]:
    """The Hugging Face module (float32) and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    kind, more = DECODERS[name]
    tokenizer = tiny_tokenizer("llama")
    config = AutoConfig.for_model(
        kind, **{**_SHAPE, **more, **shape}, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return _spread(model), tokenizer


def tiny_decoder(name: str, *, dtype: torch.dtype = torch.float32, **shape: Any) -> Backbone:
    """A backbone over it."""
    model, tokenizer = tiny_decoder_model(name, **shape)
    return wrap(model.to(dtype), tokenizer, name=f"tiny-{name}")
