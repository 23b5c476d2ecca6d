"""A BERT encoder with a BERT decoder that cross-attends to it, over a Hugging Face EncoderDecoderModel.

Prompt rows stand in front of the encoder's word embeddings, before position and type embeddings and their layer norm;
positions run over prompt and text. Letters: B rows, S packed encoder positions, R packed decoder positions, H width,
A heads, K head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.dropout import Masks
from softprompt.backbones.layers import (
    ACTIVATIONS,
    LayerNorm,
    Linear,
    attend,
    causal_mask,
    key_mask,
    scale_rows,
)
from softprompt.backbones.packing import Layout
from softprompt.backbones.seq2seq import Seq2SeqBackbone
from softprompt.backbones.t5 import first_id
from softprompt.backbones.weights import fuse
from softprompt.errors import BackboneError


@dataclass(frozen=True, eq=False)
class _Attention:
    qkv: Linear  # q, k, v stacked; for cross-attention q alone
    kv: Linear | None  # cross-attention's k, v
    out: Linear
    norm: LayerNorm


@dataclass(frozen=True, eq=False)
class _Layer:
    self_attention: _Attention
    cross_attention: _Attention | None
    up: Linear
    down: Linear
    norm: LayerNorm


@dataclass(frozen=True, eq=False)
class _Embeddings:
    word: Tensor
    position: Tensor
    type_H: Tensor
    norm: LayerNorm


@dataclass(eq=False)
class _State:
    """Greedy decoding: per layer self keys/values [B, A, t, K] and cross keys/values [B, A, L, K]."""

    self_kv: list[tuple[Tensor, Tensor] | None]
    cross_kv: list[tuple[Tensor, Tensor]]
    mask: Tensor | None


class EncoderDecoderBackbone(Seq2SeqBackbone):
    """A BERT-to-BERT encoder-decoder: the embedded default and others of its shape."""

    kind = "encoder-decoder"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        super().__init__(model, tokenizer, name=name, fingerprint=fingerprint)
        encoder, decoder = model.config.encoder, model.config.decoder
        if encoder.model_type != "bert" or decoder.model_type != "bert":
            raise BackboneError(
                f"{name} pairs a {encoder.model_type} encoder with a {decoder.model_type} decoder; only BERT with BERT "
                "is supported among encoder-decoder pairs: load a T5-family model instead."
            )
        if encoder.hidden_size != decoder.hidden_size:
            raise BackboneError(f"{name} has encoder and decoder of different width, which is not supported.")
        self.hidden_size = encoder.hidden_size
        self.heads = encoder.num_attention_heads
        self._decoder_heads = decoder.num_attention_heads
        self.max_length = encoder.max_position_embeddings
        self.max_target_length = decoder.max_position_embeddings
        self.vocab_size = decoder.vocab_size
        self.start_id = model.config.decoder_start_token_id
        if self.start_id is None:
            self.start_id = tokenizer.cls_token_id
        end_id = getattr(model.config, "eos_token_id", None)
        self.end_id = first_id(end_id if end_id is not None else tokenizer.sep_token_id)
        self.pad_id = tokenizer.pad_token_id
        self._encoder_act = ACTIVATIONS[encoder.hidden_act]
        self._decoder_act = ACTIVATIONS[decoder.hidden_act]
        self._encoder_embeddings = _embeddings(model.encoder.embeddings)
        self._decoder_embeddings = _embeddings(model.decoder.bert.embeddings)
        self._encoder = [_layer(module) for module in model.encoder.encoder.layer]
        self._decoder = [_layer(module) for module in model.decoder.bert.encoder.layer]
        head = model.decoder.cls.predictions
        self._transform, self._transform_norm = fuse([head.transform.dense]), _norm(head.transform.LayerNorm)
        self._transform_act = ACTIVATIONS[decoder.hidden_act]
        self._head = fuse([head.decoder])

    def _word_embeddings(self) -> Tensor:
        return self._encoder_embeddings.word

    def _input_prefix(self) -> list[int]:
        return [self.tokenizer.cls_token_id]

    def _embed(self, x_SH: Tensor, position_S: Tensor, tables: _Embeddings) -> Tensor:
        return tables.norm(x_SH + (tables.position + tables.type_H)[position_S])

    def _encode(self, x_SH: Tensor, layout: Layout, masks: Masks) -> Tensor:
        mask = key_mask(layout, self.dtype)
        x_SH = self._embed(x_SH, layout.position_S, self._encoder_embeddings)
        x_SH = scale_rows(x_SH, masks.channels(0, self.hidden_size), layout)
        for i, layer in enumerate(self._encoder):
            site = 10 * i + 10
            x_SH = self._self_attention(x_SH, layer.self_attention, layout, mask, masks, site, self.heads)
            x_SH = self._feed_forward(x_SH, layer, layout, masks, site + 4, encoder=True)
        return x_SH

    def _decode(self, id_R: Tensor, layout: Layout, memory_SH: Tensor, source: Layout, masks: Masks) -> Tensor:
        causal = causal_mask(layout.longest, self.dtype, self.device)
        cross_mask = key_mask(source, self.dtype)
        x_RH = self._embed(self._decoder_embeddings.word[id_R], layout.position_S, self._decoder_embeddings)
        x_RH = scale_rows(x_RH, masks.channels(5000, self.hidden_size), layout)
        heads = self._decoder_heads
        for i, layer in enumerate(self._decoder):
            site = 10 * i + 5010
            x_RH = self._self_attention(x_RH, layer.self_attention, layout, causal, masks, site, heads)
            x_RH = self._cross_attention(x_RH, layer, layout, memory_SH, source, cross_mask, masks, site + 2)
            x_RH = self._feed_forward(x_RH, layer, layout, masks, site + 4, encoder=False)
        return x_RH

    def _project(self, hidden_RH: Tensor) -> Tensor:
        return self._head(self._transform_norm(self._transform_act(self._transform(hidden_RH))))

    def _self_attention(
        self,
        x_SH: Tensor,
        part: _Attention,
        layout: Layout,
        mask: Tensor | None,
        masks: Masks,
        site: int,
        heads: int,
    ) -> Tensor:
        width = self.hidden_size // heads
        q, k, v = part.qkv(x_SH).view(-1, 3, heads, width).unbind(1)
        keep = masks.keys(site, layout, heads)
        out = part.out(attend(q, k, v, layout, layout, scale=width**-0.5, bias_BALL=mask, keep_SA=keep))
        return part.norm(x_SH + scale_rows(out, masks.channels(site + 1, self.hidden_size), layout))

    def _cross_attention(
        self,
        x_RH: Tensor,
        layer: _Layer,
        layout: Layout,
        memory_SH: Tensor,
        source: Layout,
        mask: Tensor | None,
        masks: Masks,
        site: int,
    ) -> Tensor:
        part, heads = layer.cross_attention, self._decoder_heads
        assert part is not None and part.kv is not None
        width = self.hidden_size // heads
        q = part.qkv(x_RH).view(-1, heads, width)
        k, v = part.kv(memory_SH).view(-1, 2, heads, width).unbind(1)
        keep = masks.keys(site, source, heads)
        out = part.out(attend(q, k, v, layout, source, scale=width**-0.5, bias_BALL=mask, keep_SA=keep))
        return part.norm(x_RH + scale_rows(out, masks.channels(site + 1, self.hidden_size), layout))

    def _feed_forward(
        self, x_SH: Tensor, layer: _Layer, layout: Layout, masks: Masks, site: int, *, encoder: bool
    ) -> Tensor:
        activation = self._encoder_act if encoder else self._decoder_act
        out = layer.down(activation(layer.up(x_SH)))
        return layer.norm(x_SH + scale_rows(out, masks.channels(site, self.hidden_size), layout))

    def _start(self, memory_SH: Tensor, source: Layout) -> _State:
        heads = self._decoder_heads
        cross = []
        for layer in self._decoder:
            assert layer.cross_attention is not None and layer.cross_attention.kv is not None
            kv = source.pad(layer.cross_attention.kv(memory_SH))
            k, v = kv.view(source.rows, source.longest, 2, heads, -1).permute(2, 0, 3, 1, 4)
            cross.append((k, v))
        return _State([None] * len(self._decoder), cross, key_mask(source, self.dtype))

    def _step(self, id_B: Tensor, position: int, state: _State) -> Tensor:
        rows, heads = id_B.shape[0], self._decoder_heads
        tables = self._decoder_embeddings
        place = torch.full((rows,), position, dtype=torch.int64, device=self.device)
        x_BH = self._embed(tables.word[id_B], place, tables)
        for i, layer in enumerate(self._decoder):
            own, cross = layer.self_attention, layer.cross_attention
            assert cross is not None
            q, k, v = own.qkv(x_BH).view(rows, 3, heads, 1, -1).unbind(1)
            past = state.self_kv[i]
            if past is not None:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            state.self_kv[i] = (k, v)
            x_BH = own.norm(x_BH + own.out(F.scaled_dot_product_attention(q, k, v).flatten(1)))
            q = cross.qkv(x_BH).view(rows, heads, 1, -1)
            out = F.scaled_dot_product_attention(q, *state.cross_kv[i], attn_mask=state.mask).flatten(1)
            x_BH = cross.norm(x_BH + cross.out(out))
            x_BH = layer.norm(x_BH + layer.down(self._decoder_act(layer.up(x_BH))))
        return x_BH

    def _keep_rows(self, state: _State, rows: Tensor) -> _State:
        return _State(
            [None if kv is None else (kv[0][rows], kv[1][rows]) for kv in state.self_kv],
            [(k[rows], v[rows]) for k, v in state.cross_kv],
            None if state.mask is None else state.mask[rows],
        )


def _embeddings(module: Any) -> _Embeddings:
    return _Embeddings(
        module.word_embeddings.weight.detach(),
        module.position_embeddings.weight.detach(),
        module.token_type_embeddings.weight.detach()[0],
        _norm(module.LayerNorm),
    )


def _norm(module: Any) -> LayerNorm:
    return LayerNorm(module.weight.detach(), module.bias.detach(), module.eps)


def _layer(module: Any) -> _Layer:
    own = module.attention.self
    first = _Attention(
        fuse([own.query, own.key, own.value]),
        None,
        fuse([module.attention.output.dense]),
        _norm(module.attention.output.LayerNorm),
    )
    second = None
    if hasattr(module, "crossattention"):
        cross = module.crossattention
        second = _Attention(
            fuse([cross.self.query]),
            fuse([cross.self.key, cross.self.value]),
            fuse([cross.output.dense]),
            _norm(cross.output.LayerNorm),
        )
    return _Layer(
        first,
        second,
        fuse([module.intermediate.dense]),
        fuse([module.output.dense]),
        _norm(module.output.LayerNorm),
    )
