"""Llama-like models and GPT-2 from their files alone, named and nested as transformers has them.

Importing transformers' modelling code takes longer than all else that a command does before it starts. Our layers need the
weights and the config; the live module is made when somebody asks for it. What is not of the usual form is left to transformers.

Letters: H width, F feed-forward width, A query heads, G key/value heads, K head width, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList

_CLASSES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "gpt2": "GPT2LMHeadModel",
}  # fmt: skip


class _Part(torch.nn.Module):
    """Named modules and plain values."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class _Linear(torch.nn.Linear):
    """Without numbers until they are read: drawing some on the meta device imports the compiler."""

    def reset_parameters(self) -> None:
        """Nothing."""


class _Embedding(torch.nn.Embedding):
    """The same."""

    def reset_parameters(self) -> None:
        """Nothing."""


class _Norm(_Part):
    """Weight [H], and bias [H] for layer norms."""

    def __init__(self, width: int, eps: float, *, bias: bool = False) -> None:
        super().__init__(eps=eps)
        self.weight = torch.nn.Parameter(torch.empty(width))
        self.bias = torch.nn.Parameter(torch.empty(width)) if bias else None


class _Turned(_Part):
    """A linear layer stored the other way round, weight [in, out]."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__(nf=outputs)
        self.weight = torch.nn.Parameter(torch.empty(inputs, outputs))
        self.bias = torch.nn.Parameter(torch.empty(outputs))


class StoredModel(_Part):
    """Weights and config of a decoder, without code that runs them.

    Attributes:
        folder: where it was read from.
        config: transformers' config.
        generation_config: its ``eos_token_id``.
    """

    def __init__(self, folder: Path, config: Any, dtype: torch.dtype) -> None:
        with torch.device("meta"):
            super().__init__(**(_gpt2(config) if config.model_type == "gpt2" else _llama(config)))
        self.folder, self.config, self.dtype = folder, config, dtype
        self.generation_config = SimpleNamespace(eos_token_id=_ends(folder))

    @property
    def base_model(self) -> Any:
        """All but the head."""
        return self.transformer if self.config.model_type == "gpt2" else self.model

    def get_input_embeddings(self) -> Any:
        """Token ids to embeddings, a module."""
        return self.base_model.wte if self.config.model_type == "gpt2" else self.base_model.embed_tokens

    def get_output_embeddings(self) -> Any:
        """The head, a linear module."""
        return self._modules["lm_head"]

    def fill(self, tensors: dict[str, Tensor]) -> None:
        """Take stored tensors by name as parameters.

        Raises:
            RuntimeError: names or shapes are not all those of the config.
        """
        embed = self.get_input_embeddings()
        tied = self.config.tie_word_embeddings
        if tied:
            (name,) = (n for n, p in self.named_parameters() if p is embed.weight)
            tensors = {**tensors, "lm_head.weight": tensors.get(name, torch.empty(0))}
        self.load_state_dict({name: tensor.to(self.dtype) for name, tensor in tensors.items()}, assign=True)
        if tied:
            self.get_output_embeddings().weight = embed.weight

    def live(self) -> Any:
        """transformers' module with this one's weights, on its device; they are held once."""
        from transformers import AutoModelForCausalLM

        from softprompt.backbones.quiet import quiet

        auto: Any = AutoModelForCausalLM
        with quiet():
            model = auto.from_pretrained(self.folder, dtype=self.dtype, trust_remote_code=False, use_safetensors=True)
        model.to(self.get_input_embeddings().weight.device)
        mine = dict(self.named_parameters())
        for name, parameter in model.named_parameters():
            parameter.data = mine[name].data
        return model.eval().requires_grad_(False)


def stored_model(folder: Path, files: Sequence[Path], config: Any, dtype: torch.dtype) -> StoredModel | None:
    """A model read from its files; None where it is not of a form that is known here.

    Args:
        folder: has config.json.
        files: its safetensors files.
        config: transformers' config of it.
        dtype: of the weights in memory.

    Raises:
        SafetensorError: a damaged file.
    """
    from safetensors import safe_open

    if not _usual(config):
        return None
    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as stored:
            tensors.update({name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118
    plain = all(tensor.is_floating_point() for tensor in tensors.values())
    if not plain or (config.tie_word_embeddings and "lm_head.weight" in tensors):
        return None
    model = StoredModel(folder, config, dtype)
    try:
        model.fill(tensors)
    except RuntimeError:
        return None
    return model


def _usual(config: Any) -> bool:
    """Whether the config says nothing but what is built here."""
    kind = config.model_type
    if list(config.architectures or []) != [_CLASSES.get(kind)] or getattr(config, "quantization_config", None):
        return False
    if kind == "gpt2":
        return True
    rope = config.rope_parameters or {}
    return (
        set(rope) <= {"rope_type", "rope_theta"} and rope.get("rope_type") == "default" and bool(rope.get("rope_theta"))
    )


def _ends(folder: Path) -> Any:
    """``eos_token_id`` of generation_config.json, None where it says nothing."""
    file = folder / "generation_config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise OSError(f"{file} is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise OSError(f"{file} holds no object of settings")
    return found.get("eos_token_id")


def _llama(config: Any) -> dict[str, Any]:
    width, inner, eps = config.hidden_size, config.intermediate_size, config.rms_norm_eps
    bias = bool(getattr(config, "mlp_bias", False))
    layers = [
        _Part(
            self_attn=_attention(config, i),
            mlp=_Part(
                gate_proj=_Linear(width, inner, bias), up_proj=_Linear(width, inner, bias),
                down_proj=_Linear(inner, width, bias),
            ),
            input_layernorm=_Norm(width, eps),
            post_attention_layernorm=_Norm(width, eps),
        )
        for i in range(config.num_hidden_layers)
    ]  # fmt: skip
    body = _Part(
        embed_tokens=_Embedding(config.vocab_size, width), layers=ModuleList(layers), norm=_Norm(width, eps),
        rotary_emb=_rotary(config),
    )  # fmt: skip
    return {"model": body, "lm_head": _Linear(width, config.vocab_size, bias=False)}


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _attention(config: Any, layer: int) -> _Part:
    kind, head, width = config.model_type, _head_width(config), config.hidden_size
    queries, groups = config.num_attention_heads * head, config.num_key_value_heads * head
    bias = bool(getattr(config, "attention_bias", False))
    inner = bias or kind == "qwen2"
    norms: dict[str, Any] = {}
    if kind == "qwen3":
        norms = {f"{name}_norm": _Norm(head, config.rms_norm_eps) for name in "qk"}
    types = getattr(config, "layer_types", None) or ()
    slides = kind.startswith("qwen") and len(types) > layer and types[layer] == "sliding_attention"
    return _Part(
        q_proj=_Linear(width, queries, inner), k_proj=_Linear(width, groups, inner), v_proj=_Linear(width, groups, inner),
        o_proj=_Linear(queries, width, bias), **norms, head_dim=head, scaling=head**-0.5,
        sliding_window=config.sliding_window if slides else None,
    )  # fmt: skip


def _rotary(config: Any) -> _Part:
    """Inverse frequencies float32 [K / 2]."""
    head = _head_width(config)
    with torch.device("cpu"):
        power = torch.arange(0, head, 2, dtype=torch.float) / head
        inverse = 1.0 / (config.rope_parameters["rope_theta"] ** power)
    found = _Part(rope_type="default", attention_scaling=1.0)
    for name in ("inv_freq", "original_inv_freq"):
        found.register_buffer(name, inverse.clone(), persistent=False)
    return found


def _gpt2(config: Any) -> dict[str, Any]:
    width, eps = config.n_embd, config.layer_norm_epsilon
    inner = config.n_inner or 4 * width

    def blocks() -> Iterator[_Part]:
        for _ in range(config.n_layer):
            yield _Part(
                ln_1=_Norm(width, eps, bias=True),
                attn=_Part(c_attn=_Turned(3 * width, width), c_proj=_Turned(width, width)),
                ln_2=_Norm(width, eps, bias=True),
                mlp=_Part(c_fc=_Turned(inner, width), c_proj=_Turned(width, inner)),
            )

    body = _Part(
        wte=_Embedding(config.vocab_size, width), wpe=_Embedding(config.n_positions, width), h=ModuleList(blocks()),
        ln_f=_Norm(width, eps, bias=True),
    )  # fmt: skip
    return {"transformer": body, "lm_head": _Linear(width, config.vocab_size, bias=False)}
