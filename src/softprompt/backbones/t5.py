"""The T5 family (T5, T5 v1.1, LM-adapted, Flan, mT5, ByT5, UL2) over loaded Hugging Face weights.

Letters: B rows, S packed encoder positions, R packed decoder positions, H width, A heads, K head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.dropout import Masks
from softprompt.backbones.layers import (
    ACTIVATIONS,
    Linear,
    RMSNorm,
    add_masks,
    attend,
    causal_mask,
    key_mask,
    relative_buckets,
    scale_rows,
)
from softprompt.backbones.packing import Layout
from softprompt.backbones.seq2seq import Seq2SeqBackbone
from softprompt.backbones.weights import fuse
from softprompt.errors import BackboneError


@dataclass(frozen=True, eq=False)
class _Attention:
    norm: RMSNorm
    qkv: Linear  # q, k, v stacked; for cross-attention q alone
    kv: Linear | None  # cross-attention's k, v
    out: Linear


@dataclass(frozen=True, eq=False)
class _FeedForward:
    norm: RMSNorm
    up: Linear  # [2F, H] where gated: gate, then value
    down: Linear
    gated: bool


@dataclass(frozen=True, eq=False)
class _Layer:
    self_attention: _Attention
    cross_attention: _Attention | None
    feed_forward: _FeedForward


@dataclass(eq=False)
class _State:
    """Greedy decoding: per layer self keys/values [B, A, t, K] and cross keys/values [B, A, L, K]."""

    self_kv: list[tuple[Tensor, Tensor] | None]
    cross_kv: list[tuple[Tensor, Tensor]]
    mask: Tensor | None


class T5Backbone(Seq2SeqBackbone):
    """A T5-family model. float16 is refused: T5's activations overflow in it."""

    kind = "t5"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        super().__init__(model, tokenizer, name=name, fingerprint=fingerprint)
        config = model.config
        if self.dtype == torch.float16:
            raise BackboneError("float16 was asked for a T5 model, which overflows in it: use bfloat16 or float32.")
        if config.dense_act_fn not in ACTIVATIONS:
            raise BackboneError(
                f"{name} has the activation {config.dense_act_fn!r}; known are {', '.join(sorted(ACTIVATIONS))}."
            )
        self.hidden_size, self.vocab_size = config.d_model, model.shared.weight.shape[0]
        self.max_length = None
        self.heads, self.head_width = config.num_heads, config.d_kv
        self.start_id = (
            config.decoder_start_token_id if config.decoder_start_token_id is not None else config.pad_token_id
        )
        self.end_id = first_id(config.eos_token_id)
        self.pad_id = config.pad_token_id
        self._activation = ACTIVATIONS[config.dense_act_fn]
        # Newer transformers force the config's tying flag: the tensors tell (v1.1 keeps a head of its own, unscaled).
        head = model.lm_head.weight
        self.tied = head.data_ptr() == model.shared.weight.data_ptr() or torch.equal(head, model.shared.weight)
        self._output_scale = config.d_model**-0.5 if self.tied else 1.0
        config.scale_decoder_outputs = self.tied
        self._head = Linear(head.detach())
        self._encoder = [self._layer(block) for block in model.encoder.block]
        self._decoder = [self._layer(block) for block in model.decoder.block]
        self._encoder_norm = _norm(model.encoder.final_layer_norm)
        self._decoder_norm = _norm(model.decoder.final_layer_norm)

    def _layer(self, block: Any) -> _Layer:
        parts = list(block.layer)
        attention = parts[0].SelfAttention
        own = _Attention(
            _norm(parts[0].layer_norm), fuse([attention.q, attention.k, attention.v]), None, fuse([attention.o])
        )
        cross = None
        if len(parts) == 3:
            attention = parts[1].EncDecAttention
            cross = _Attention(
                _norm(parts[1].layer_norm), fuse([attention.q]), fuse([attention.k, attention.v]), fuse([attention.o])
            )
        dense = parts[-1].DenseReluDense
        gated = hasattr(dense, "wi_0")
        up = fuse([dense.wi_0, dense.wi_1]) if gated else fuse([dense.wi])
        return _Layer(own, cross, _FeedForward(_norm(parts[-1].layer_norm), up, fuse([dense.wo]), gated))

    def _word_embeddings(self) -> Tensor:
        return self._model.shared.weight.detach()  # type: ignore[no-any-return]

    def _bias(self, stack: Any, queries: Tensor, keys: Tensor, *, bidirectional: bool) -> Tensor:
        """[1, A, Lq, Lk], the relative position bias, shared by all layers of a stack."""
        attention = stack.block[0].layer[0].SelfAttention
        bucket = relative_buckets(
            keys[None, :] - queries[:, None],
            bidirectional=bidirectional,
            buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        table: Tensor = attention.relative_attention_bias.weight.detach()
        return table[bucket].permute(2, 0, 1)[None]

    def _encode(self, x_SH: Tensor, layout: Layout, masks: Masks) -> Tensor:
        place = torch.arange(layout.longest, device=self.device)
        bias = self._bias(self._model.encoder, place, place, bidirectional=True)
        bias_BALL = add_masks(bias, key_mask(layout, self.dtype))
        x_SH = scale_rows(x_SH, masks.channels(0, self.hidden_size), layout)
        for i, layer in enumerate(self._encoder):
            x_SH = self._self_attention(x_SH, layer.self_attention, layout, bias_BALL, masks, 10 * i + 10)
            x_SH = self._feed_forward(x_SH, layer.feed_forward, layout, masks, 10 * i + 14)
        x_SH = self._encoder_norm(x_SH)
        return scale_rows(x_SH, masks.channels(1, self.hidden_size), layout)

    def _decode(self, id_R: Tensor, layout: Layout, memory_SH: Tensor, source: Layout, masks: Masks) -> Tensor:
        place = torch.arange(layout.longest, device=self.device)
        bias = self._bias(self._model.decoder, place, place, bidirectional=False)
        causal_BALL = add_masks(bias, causal_mask(layout.longest, self.dtype, self.device))
        cross_BALL = key_mask(source, self.dtype)
        x_RH = scale_rows(self._word_embeddings()[id_R], masks.channels(5000, self.hidden_size), layout)
        for i, layer in enumerate(self._decoder):
            site = 10 * i + 5010
            x_RH = self._self_attention(x_RH, layer.self_attention, layout, causal_BALL, masks, site)
            x_RH = self._cross_attention(x_RH, layer, layout, memory_SH, source, cross_BALL, masks, site + 2)
            x_RH = self._feed_forward(x_RH, layer.feed_forward, layout, masks, site + 4)
        x_RH = self._decoder_norm(x_RH)
        return scale_rows(x_RH, masks.channels(5001, self.hidden_size), layout)

    def _project(self, hidden_RH: Tensor) -> Tensor:
        return self._head(hidden_RH if self._output_scale == 1.0 else hidden_RH * self._output_scale)

    def _self_attention(
        self, x_SH: Tensor, part: _Attention, layout: Layout, bias_BALL: Tensor | None, masks: Masks, site: int
    ) -> Tensor:
        qkv = part.qkv(part.norm(x_SH)).view(-1, 3, self.heads, self.head_width)
        q, k, v = qkv.unbind(1)
        keep = masks.keys(site, layout, self.heads)
        out = part.out(attend(q, k, v, layout, layout, scale=1.0, bias_BALL=bias_BALL, keep_SA=keep))
        return x_SH + scale_rows(out, masks.channels(site + 1, self.hidden_size), layout)

    def _cross_attention(
        self,
        x_RH: Tensor,
        layer: _Layer,
        layout: Layout,
        memory_SH: Tensor,
        source: Layout,
        bias_BALL: Tensor | None,
        masks: Masks,
        site: int,
    ) -> Tensor:
        part = layer.cross_attention
        assert part is not None and part.kv is not None
        q = part.qkv(part.norm(x_RH)).view(-1, self.heads, self.head_width)
        k, v = part.kv(memory_SH).view(-1, 2, self.heads, self.head_width).unbind(1)
        keep = masks.keys(site, source, self.heads)
        out = part.out(attend(q, k, v, layout, source, scale=1.0, bias_BALL=bias_BALL, keep_SA=keep))
        return x_RH + scale_rows(out, masks.channels(site + 1, self.hidden_size), layout)

    def _feed_forward(self, x_SH: Tensor, part: _FeedForward, layout: Layout, masks: Masks, site: int) -> Tensor:
        up = part.up(part.norm(x_SH))
        if part.gated:
            gate, value = up.chunk(2, dim=-1)
            inner = self._activation(gate) * value
        else:
            inner = self._activation(up)
        inner = scale_rows(inner, masks.channels(site, inner.shape[-1]), layout)
        return x_SH + scale_rows(part.down(inner), masks.channels(site + 1, self.hidden_size), layout)

    def _start(self, memory_SH: Tensor, source: Layout) -> _State:
        cross = []
        for layer in self._decoder:
            assert layer.cross_attention is not None and layer.cross_attention.kv is not None
            kv = source.pad(layer.cross_attention.kv(memory_SH))
            k, v = kv.view(source.rows, source.longest, 2, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
            cross.append((k, v))
        return _State([None] * len(self._decoder), cross, key_mask(source, self.dtype))

    def _step(self, id_B: Tensor, position: int, state: _State) -> Tensor:
        rows = id_B.shape[0]
        keys = torch.arange(position + 1, device=self.device)
        bias = self._bias(self._model.decoder, keys[-1:], keys, bidirectional=False)
        x_BH = self._word_embeddings()[id_B]
        for i, layer in enumerate(self._decoder):
            own, cross = layer.self_attention, layer.cross_attention
            assert cross is not None
            q, k, v = own.qkv(own.norm(x_BH)).view(rows, 3, self.heads, 1, self.head_width).unbind(1)
            past = state.self_kv[i]
            if past is not None:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            state.self_kv[i] = (k, v)
            x_BH = x_BH + own.out(_attend_step(q, k, v, bias))
            q = cross.qkv(cross.norm(x_BH)).view(rows, self.heads, 1, self.head_width)
            x_BH = x_BH + cross.out(_attend_step(q, *state.cross_kv[i], state.mask))
            x_BH = self._feed_forward(x_BH, layer.feed_forward, _NO_LAYOUT, _NO_MASKS, 0)
        return self._decoder_norm(x_BH)

    def _keep_rows(self, state: _State, rows: Tensor) -> _State:
        return _State(
            [None if kv is None else (kv[0][rows], kv[1][rows]) for kv in state.self_kv],
            [(k[rows], v[rows]) for k, v in state.cross_kv],
            None if state.mask is None else state.mask[rows],
        )


_NO_MASKS = Masks(None, torch.device("cpu"))
_NO_LAYOUT = Layout((), torch.device("cpu"))


def _attend_step(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of one query position: [B, A * K]."""
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return out.flatten(1)


def _norm(module: Any) -> RMSNorm:
    return RMSNorm(module.weight.detach(), module.variance_epsilon)


def first_id(value: int | list[int] | None) -> int:
    """The first of a config's end-of-sequence ids."""
    if value is None:
        raise BackboneError("the model's config names no end-of-sequence id, which generation needs.")
    return value if isinstance(value, int) else value[0]
