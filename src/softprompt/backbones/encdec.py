"""A BERT encoder with a BERT decoder that cross-attends to it, over a Hugging Face EncoderDecoderModel.

Prompt rows stand in front of the encoder's word embeddings, before position and type embeddings and their layer norm;
positions run over prompt and text. Letters: B rows, S packed encoder positions, R packed decoder positions, H width,
A heads, K head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.engine.attention import (
    DecodeState,
    Memory,
    attend_absorbed,
    attend_memory,
    attend_step,
    hide_later,
)
from softprompt.backbones.engine.dropout import Masks
from softprompt.backbones.engine.formulas import ACTIVATIONS, wide
from softprompt.backbones.engine.layers import Attention, FeedForward, Layer, Norm, fuse
from softprompt.backbones.engine.ops import activate, add_layer_norm, attend_self
from softprompt.backbones.engine.packing import Layout
from softprompt.backbones.seq2seq import Seq2SeqBackbone
from softprompt.backbones.sharding import through
from softprompt.backbones.texts import end_ids
from softprompt.errors import BackboneError, UsageError

_DECODER_SITES = 5000  # dropout sites of the decoder begin here, ten to a layer
_NO_MASKS = Masks(None, torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class _Embeddings:
    """Tables [V, H] and [positions, H], the vector [H] of type 0, and the norm after their sum."""

    word: Tensor
    position: Tensor
    kind_H: Tensor
    norm: Norm


class EncoderDecoderBackbone(Seq2SeqBackbone):
    """A BERT-to-BERT encoder-decoder: the embedded default and others of its shape."""

    kind = "encoder-decoder"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        if getattr(model.encoder, "pooler", None) is not None:
            model.encoder.pooler = None  # unused, and random where the checkpoint has none
        super().__init__(model, tokenizer, name=name, fingerprint=fingerprint)
        encoder, decoder = model.config.encoder, model.config.decoder
        _check_kind(encoder, decoder, name)
        self.hidden_size = encoder.hidden_size
        self.heads, self._decoder_heads = encoder.num_attention_heads, decoder.num_attention_heads
        self.max_length = encoder.max_position_embeddings
        self.max_target_length = decoder.max_position_embeddings
        self.vocab_size = decoder.vocab_size
        start_id = model.config.decoder_start_token_id
        self.start_id = start_id if start_id is not None else tokenizer.cls_token_id
        named = getattr(model.config, "eos_token_id", None) is not None
        self.end_ids = end_ids(model, tokenizer) if named else (int(tokenizer.sep_token_id),)
        self.end_id = self.end_ids[0]
        self.pad_id = tokenizer.pad_token_id
        self._encoder_embeddings = _embeddings(model.encoder.embeddings)
        self._decoder_embeddings = _embeddings(model.decoder.bert.embeddings)
        self._encoder = [_layer(module, encoder.hidden_act) for module in model.encoder.encoder.layer]
        self._decoder = [_layer(module, decoder.hidden_act) for module in model.decoder.bert.encoder.layer]
        self._decoder_depth = len(self._decoder)
        head = model.decoder.cls.predictions
        self._transform, self._transform_norm = fuse([head.transform.dense]), _norm(head.transform.LayerNorm)
        self._transform_act = ACTIVATIONS[decoder.hidden_act]
        self._head = fuse([head.decoder])

    def _word_embeddings(self) -> Tensor:
        return self._encoder_embeddings.word

    def _input_prefix(self) -> list[int]:
        return [int(self.tokenizer.cls_token_id)]

    def _encode(self, x_SH: Tensor, layout: Layout, masks: Masks) -> Tensor:
        y_SH = masks.drop(_embed(x_SH, layout.position_S, self._encoder_embeddings), 0, layout)
        again = self.checkpointing and y_SH.requires_grad
        for i, layer in enumerate(self._encoder):
            run = partial(self._encoder_layer, layout=layout, masks=masks, site=10 * i + 10)
            y_SH = through(layer, run, y_SH, again=again)
        return y_SH

    def _encoder_layer(self, layer: Layer, y_SH: Tensor, layout: Layout, masks: Masks, site: int) -> Tensor:
        y_SH, qkv = layer.own.q.branch(y_SH)
        keep = masks.keys(site, layout, self.heads)
        scale = (self.hidden_size // self.heads) ** -0.5
        out_SH = layer.own.out(attend_self(qkv, keep, None, layout, self.heads, scale))
        y_SH = self._residual(y_SH, out_SH, masks, site + 1, layout, layer.own.norm)
        return self._feed(y_SH, layer.feed, layout, masks, site + 4)

    def _residual(self, y_SH: Tensor, out_SH: Tensor, masks: Masks, site: int, layout: Layout, norm: Norm) -> Tensor:
        assert norm.bias is not None
        keep = masks.channels(site, self.hidden_size)
        return add_layer_norm(y_SH, out_SH, keep, layout, norm.weight, norm.bias, norm.eps)

    def _feed(self, y_SH: Tensor, part: FeedForward, layout: Layout, masks: Masks, site: int) -> Tensor:
        y_SH, up = part.up.branch(y_SH)
        out_SH = part.down(activate(up, None, layout, part.activation, gated=False))
        return self._residual(y_SH, out_SH, masks, site, layout, part.norm)

    def _decode(self, id_R: Tensor, layout: Layout, memory: Memory, masks: Masks) -> Tensor:
        self._check_target(layout.longest)
        tables = self._decoder_embeddings
        reach_AR = hide_later(torch.zeros(self._decoder_heads, max(2 * layout.longest - 1, 1), device=self.device))
        y_RH = masks.drop(_embed(tables.word[id_R], layout.position_S, tables), _DECODER_SITES, layout)
        for i, layer in enumerate(self._decoder):
            site = _DECODER_SITES + 10 * i + 10
            run = partial(self._decoder_layer, layout=layout, reach_AR=reach_AR, memory=memory, masks=masks, site=site)
            y_RH = through(layer, run, y_RH)
        return y_RH

    def _decoder_layer(
        self, layer: Layer, y_RH: Tensor, layout: Layout, reach_AR: Tensor, memory: Memory, masks: Masks, site: int
    ) -> Tensor:
        assert layer.cross is not None
        assert layer.cross.kv is not None
        heads = self._decoder_heads
        scale = (self.hidden_size // heads) ** -0.5
        y_RH, qkv = layer.own.q.branch(y_RH)
        keep = masks.keys(site, layout, heads)
        out_RH = layer.own.out(attend_self(qkv, keep, reach_AR, layout, heads, scale))
        y_RH = self._residual(y_RH, out_RH, masks, site + 1, layout, layer.own.norm)
        y_RH, q_RD = layer.cross.q.branch(y_RH)
        keep = masks.keys(site + 2, memory.layout, heads)
        out_RH = layer.cross.out(attend_memory(q_RD, layer.cross.kv, memory, keep, layout, heads, scale))
        y_RH = self._residual(y_RH, out_RH, masks, site + 3, layout, layer.cross.norm)
        return self._feed(y_RH, layer.feed, layout, masks, site + 4)

    def _check_target(self, longest: int) -> None:
        if longest > self.max_target_length:
            raise UsageError(
                f"a target of {longest} tokens was asked of backbone {self.name}, whose decoder holds "
                f"{self.max_target_length}: lower max_target_tokens."
            )

    def _project(self, hidden_RH: Tensor, *, exact: bool = False) -> Tensor:
        norm = self._transform_norm
        assert norm.bias is not None
        hidden_RH = self._transform_act(self._transform(hidden_RH))
        if exact:
            weight, bias = wide(norm.weight), wide(norm.bias)
            return self._head.exact(F.layer_norm(wide(hidden_RH), hidden_RH.shape[-1:], weight, bias, norm.eps))
        return self._head(F.layer_norm(hidden_RH, hidden_RH.shape[-1:], norm.weight, norm.bias, norm.eps))

    def _step(self, id_B: Tensor, position: int | Tensor, state: DecodeState) -> Tensor:
        rows, tables = id_B.shape[0], self._decoder_embeddings
        place = torch.as_tensor(position, dtype=torch.int64, device=self.device).expand(rows)
        self._check_target(int(place.max()) + 1)
        hidden = state.own_mask(self.dtype)
        layout = Layout((1,) * rows, self.device)
        y_BH = _embed(tables.word[id_B], place, tables)
        for i, layer in enumerate(self._decoder):
            run = partial(self._step_layer, i=i, layout=layout, state=state, hidden=hidden)
            y_BH = through(layer, run, y_BH)
        return y_BH

    def _step_layer(
        self, layer: Layer, y_BH: Tensor, i: int, layout: Layout, state: DecodeState, hidden: Tensor | None
    ) -> Tensor:
        assert layer.cross is not None
        assert layer.cross.kv is not None
        heads = self._decoder_heads
        width = self.hidden_size // heads
        q, k, v = layer.own.q(y_BH).view(layout.rows, 3, heads, 1, width).unbind(1)
        out_BH = layer.own.out(attend_step(q, *state.append(i, k, v), hidden, width**-0.5))
        y_BH = self._residual(y_BH, out_BH, _NO_MASKS, 0, layout, layer.own.norm)
        q = layer.cross.q(y_BH)[:, None]
        mixed = attend_absorbed(q, layer.cross.kv, state.source_BLH, state.mask, None, heads, width**-0.5)
        y_BH = self._residual(y_BH, layer.cross.out(mixed[:, 0]), _NO_MASKS, 0, layout, layer.cross.norm)
        return self._feed(y_BH, layer.feed, layout, _NO_MASKS, 0)


def _check_kind(encoder: Any, decoder: Any, name: str) -> None:
    if (encoder.model_type, decoder.model_type) != ("bert", "bert"):
        raise BackboneError(
            f"{name} pairs a {encoder.model_type} encoder with a {decoder.model_type} decoder; only BERT with BERT is "
            "supported among encoder-decoder pairs: load a T5-family model instead."
        )
    if encoder.hidden_size != decoder.hidden_size:
        raise BackboneError(f"{name} has an encoder and a decoder of different width, which is not supported.")
    for config in (encoder, decoder):
        if config.hidden_act not in ACTIVATIONS:
            raise BackboneError(
                f"{name} has the activation {config.hidden_act!r}; known: {', '.join(sorted(ACTIVATIONS))}."
            )


def _embed(x_SH: Tensor, position_S: Tensor, tables: _Embeddings) -> Tensor:
    norm = tables.norm
    total = x_SH + tables.kind_H + tables.position[position_S]
    return F.layer_norm(total, total.shape[-1:], norm.weight, norm.bias, norm.eps)


def _embeddings(module: Any) -> _Embeddings:
    return _Embeddings(
        module.word_embeddings.weight.detach(),
        module.position_embeddings.weight.detach(),
        module.token_type_embeddings.weight.detach()[0],
        _norm(module.LayerNorm),
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)


def _attention(module: Any, *, cross: bool) -> Attention:
    own = module.self
    out, norm = fuse([module.output.dense]), _norm(module.output.LayerNorm)
    if cross:
        return Attention(fuse([own.query]), fuse([own.key, own.value]), out, norm)
    return Attention(fuse([own.query, own.key, own.value]), None, out, norm)


def _layer(module: Any, activation: str) -> Layer:
    up, down = fuse([module.intermediate.dense]), fuse([module.output.dense])
    return Layer(
        _attention(module.attention, cross=False),
        _attention(module.crossattention, cross=True) if hasattr(module, "crossattention") else None,
        FeedForward(up, down, False, activation, _norm(module.output.LayerNorm)),
    )
