"""What all decoder-only backbones share: texts, limits, identity. A row is [prompt; inputs; targets]; targets are scored.

``decoder.py`` runs the Llama family and GPT-2 through packed rows of its own; ``causal_hf.py`` runs everything else through its
transformers module.

Letters: B rows, P prompt tokens, T input tokens, D target tokens, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone, dtype_name
from softprompt.backbones.engine.quantized import activation_bytes, parameter_count, precision_of
from softprompt.backbones.fingerprint import digest_memory, digest_tensors
from softprompt.backbones.sharding import local, no_whole_model
from softprompt.backbones.stored import StoredModel
from softprompt.backbones.texts import end_ids, special_ids, tokenize, wants_space
from softprompt.batch import PromptBatch
from softprompt.errors import BackboneError, IncompatibleBackboneError, UsageError


class CausalBackbone(Backbone):
    """A decoder-only model with a language-model head.

    Args:
        model: the Hugging Face module, or its stored weights; frozen here.
        tokenizer: its tokenizer.
        name: what the user asked for.
        fingerprint: hex digest of the stored model.

    Attributes:
        end_ids: all ids that end an answer (``texts.end_ids``).
        end_id: the one that targets end with.
    """

    kind = "causal"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        self._model = model.eval().requires_grad_(False)
        self.tokenizer, self.name, self.fingerprint = tokenizer, name, fingerprint
        # Gemma scales its embeddings after the lookup (inputs_embeds are taken as they are): ask the module, not the table.
        self._embed = model.get_input_embeddings()
        self._table: Tensor = self._embed.weight.detach()
        self.vocab_size, self.hidden_size = self._table.shape
        self.dtype, self.device = self._table.dtype, self._table.device
        self.precision = precision_of(model) or dtype_name(self.dtype)
        self.parameter_count = parameter_count(model)
        self.activation_bytes = activation_bytes(model, self.dtype)
        self.max_length = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        # A row is one text for the tokenizer: what it puts in front stands before the inputs, what it puts behind after
        # the targets.
        self._prefix, suffix = special_ids(tokenizer)
        self.end_ids = end_ids(model, tokenizer, suffix)
        self.end_id = self.end_ids[0]
        self._suffix = suffix if self.end_id in suffix else [*suffix, self.end_id]
        self._target_space = wants_space(tokenizer)

    @property
    def hf_model(self) -> Any:
        if self.sharded:
            raise no_whole_model(self.name)
        if isinstance(self._model, StoredModel):
            self._model = self._model.live()
        return self._model

    def weights_digest(self) -> str:
        if not self.sharded:
            return digest_memory(self._model)
        tensors = (*self._model.named_parameters(), *self._model.named_buffers())
        return digest_tensors((name, local(tensor)) for name, tensor in tensors)

    def embedding_table(self) -> Tensor:
        with torch.no_grad():
            ids = torch.arange(self.vocab_size, device=self.device)
            return self._embed(ids).detach().float()  # type: ignore[no-any-return]

    def tokenize_inputs(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        return tokenize(self.tokenizer, texts, max_tokens, self._prefix, [], keep_end=True)

    def tokenize_targets(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        if self._target_space:
            texts = [f" {text}" for text in texts]
        return tokenize(self.tokenizer, texts, max_tokens, [], self._suffix)

    def framing(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        return tuple(self._prefix), (), tuple(self._suffix)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [str(self.tokenizer.decode(list(row), skip_special_tokens=True)).strip() for row in rows]

    def _check(self, prompts: PromptBatch | None, longest: int) -> None:
        """Refuse prompts of another width, and rows longer than the model."""
        if prompts is not None and prompts.unique_UPH.shape[2] != self.hidden_size:
            raise IncompatibleBackboneError(
                f"the prompt has width {prompts.unique_UPH.shape[2]} and backbone {self.name} has width "
                f"{self.hidden_size}: prompts do not move between backbones; load its own or retrain it."
            )
        if self.max_length is not None and longest > self.max_length:
            raise UsageError(
                f"a row of {longest} positions (prompt, text and answer) was asked of backbone {self.name}, which holds "
                f"{self.max_length}: shorten the text, the answer or the prompt."
            )


def nothing_to_score() -> UsageError:
    """What is raised for a row that has nothing before its targets."""
    return UsageError("a row with neither prompt nor input tokens cannot be scored by a causal model.")


def refuse_encoder(config: Any, name: str) -> None:
    """Refuse a model that is neither T5-like nor decoder-only."""
    if getattr(config, "is_encoder_decoder", False):
        raise BackboneError(
            f"{name} is an encoder-decoder of type {config.model_type!r}; supported are the T5 family, BERT-to-BERT "
            "pairs and decoder-only language models."
        )
