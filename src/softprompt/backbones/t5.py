"""The T5 family (T5, T5 v1.1, LM-adapted, Flan, mT5, ByT5, UL2, UMT5) over loaded Hugging Face weights.

UMT5 has a relative bias of its own in every layer, the others one for each stack.

Letters: B rows, S packed encoder positions, R packed decoder positions, H width, A heads, K head width, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
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
from softprompt.backbones.engine.layers import Attention, FeedForward, Layer, Linear, Norm, fuse, relative_buckets
from softprompt.backbones.engine.ops import activate, add_rms, attend_self
from softprompt.backbones.engine.packing import Layout
from softprompt.backbones.seq2seq import Seq2SeqBackbone
from softprompt.backbones.sharding import through
from softprompt.backbones.texts import end_ids
from softprompt.errors import BackboneError

_DECODER_SITES = 5000  # dropout sites of the decoder begin here, ten to a layer
_NO_MASKS = Masks(None, torch.device("cpu"))


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
        start_id = config.decoder_start_token_id
        self.start_id = start_id if start_id is not None else config.pad_token_id
        self.end_ids = end_ids(model, tokenizer)
        self.end_id = self.end_ids[0]
        self.pad_id = config.pad_token_id
        # Newer transformers force the config's tying flag: the tensors tell (v1.1 keeps a head of its own, unscaled).
        head = model.lm_head.weight
        self.tied = head.data_ptr() == model.shared.weight.data_ptr() or torch.equal(head, model.shared.weight)
        self._output_scale = config.d_model**-0.5 if self.tied else 1.0
        config.scale_decoder_outputs = self.tied
        if config.model_type == "umt5":
            config.tie_word_embeddings = self.tied
        self._head = Linear(head.detach())
        self._encoder = [_layer(block, config.dense_act_fn) for block in model.encoder.block]
        self._decoder = [_layer(block, config.dense_act_fn) for block in model.decoder.block]
        self._decoder_depth = len(self._decoder)
        self._encoder_norm = _norm(model.encoder.final_layer_norm)
        self._decoder_norm = _norm(model.decoder.final_layer_norm)

    def _word_embeddings(self) -> Tensor:
        return self._model.shared.weight.detach()  # type: ignore[no-any-return]

    def _biases(self, stack: Any, distance: Tensor, *, bidirectional: bool) -> list[Tensor]:
        """By layer, float32 [A, ...]: the bias of keys at these distances (key - query)."""
        made: list[Tensor] = []
        for block in stack.block:
            attention = block.layer[0].SelfAttention
            if not attention.has_relative_attention_bias:
                made.append(made[-1])
                continue
            bucket = relative_buckets(
                distance,
                bidirectional=bidirectional,
                buckets=attention.relative_attention_num_buckets,
                max_distance=attention.relative_attention_max_distance,
            )
            table: Tensor = attention.relative_attention_bias.weight.detach()
            table = table if table.dtype == torch.float64 else table.float()
            made.append(table[bucket].movedim(-1, 0).contiguous())
        return made

    def _encode(self, x_SH: Tensor, layout: Layout, masks: Masks) -> Tensor:
        distance_R = torch.arange(1 - layout.longest, max(layout.longest, 1), device=self.device)
        reach = self._biases(self._model.encoder, distance_R, bidirectional=True)
        x_SH = masks.drop(x_SH, 0, layout)
        out_SH: Tensor | None = None
        again = self.checkpointing and x_SH.requires_grad
        for i, layer in enumerate(self._encoder):
            run = partial(self._encoder_layer, layout=layout, reach_AR=reach[i], masks=masks, site=10 * i + 10)
            x_SH, out_SH = through(layer, run, x_SH, out_SH, again=again)
        last = 10 * len(self._encoder) + 5
        hidden_SH = self._residual(x_SH, out_SH, masks, last, layout, self._encoder_norm)[1]
        return masks.drop(hidden_SH, 1, layout)

    def _encoder_layer(
        self,
        layer: Layer,
        x_SH: Tensor,
        out_SH: Tensor | None,
        layout: Layout,
        reach_AR: Tensor,
        masks: Masks,
        site: int,
    ) -> tuple[Tensor, Tensor]:
        """The residual stream and what is still to be added to it (by the next norm, in the same pass)."""
        x_SH, h_SH = self._residual(x_SH, out_SH, masks, site - 5, layout, layer.own.norm)
        keep = masks.keys(site, layout, self.heads)
        out_SH = layer.own.out(attend_self(layer.own.q(h_SH), keep, reach_AR, layout, self.heads, 1.0))
        x_SH, h_SH = self._residual(x_SH, out_SH, masks, site + 1, layout, layer.feed.norm)
        return x_SH, self._feed(h_SH, layer.feed, layout, masks, site + 4)

    def _residual(
        self, x_SH: Tensor, out_SH: Tensor | None, masks: Masks, site: int, layout: Layout, norm: Norm
    ) -> tuple[Tensor, Tensor]:
        keep = None if out_SH is None else masks.channels(site, self.hidden_size)
        return add_rms(x_SH, out_SH, keep, layout, norm.weight, norm.eps)

    def _feed(self, h_SH: Tensor, part: FeedForward, layout: Layout, masks: Masks, site: int) -> Tensor:
        keep = masks.channels(site, part.down.weight.shape[1])
        return part.down(activate(part.up(h_SH), keep, layout, part.activation, gated=part.gated))

    def _decode(self, id_R: Tensor, layout: Layout, memory: Memory, masks: Masks) -> Tensor:
        distance_R = torch.arange(1 - layout.longest, max(layout.longest, 1), device=self.device)
        found = self._biases(self._model.decoder, distance_R, bidirectional=False)
        reach = [hide_later(found[0])] * len(found) if found[0] is found[-1] else [hide_later(bias) for bias in found]
        x_RH = masks.drop(self._word_embeddings()[id_R], _DECODER_SITES, layout)
        out_RH: Tensor | None = None
        for i, layer in enumerate(self._decoder):
            site = _DECODER_SITES + 10 * i + 10
            run = partial(self._decoder_layer, layout=layout, reach_AR=reach[i], memory=memory, masks=masks, site=site)
            x_RH, out_RH = through(layer, run, x_RH, out_RH)
        last = _DECODER_SITES + 10 * len(self._decoder) + 5
        hidden_RH = self._residual(x_RH, out_RH, masks, last, layout, self._decoder_norm)[1]
        return masks.drop(hidden_RH, _DECODER_SITES + 1, layout)

    def _decoder_layer(
        self,
        layer: Layer,
        x_RH: Tensor,
        out_RH: Tensor | None,
        layout: Layout,
        reach_AR: Tensor,
        memory: Memory,
        masks: Masks,
        site: int,
    ) -> tuple[Tensor, Tensor]:
        """As ``_encoder_layer``."""
        assert layer.cross is not None
        assert layer.cross.kv is not None
        x_RH, h_RH = self._residual(x_RH, out_RH, masks, site - 5, layout, layer.own.norm)
        keep = masks.keys(site, layout, self.heads)
        out_RH = layer.own.out(attend_self(layer.own.q(h_RH), keep, reach_AR, layout, self.heads, 1.0))
        x_RH, h_RH = self._residual(x_RH, out_RH, masks, site + 1, layout, layer.cross.norm)
        keep = masks.keys(site + 2, memory.layout, self.heads)
        q_RD = layer.cross.q(h_RH)
        out_RH = layer.cross.out(attend_memory(q_RD, layer.cross.kv, memory, keep, layout, self.heads, 1.0))
        x_RH, h_RH = self._residual(x_RH, out_RH, masks, site + 3, layout, layer.feed.norm)
        return x_RH, self._feed(h_RH, layer.feed, layout, masks, site + 4)

    def _project(self, hidden_RH: Tensor, *, exact: bool = False) -> Tensor:
        hidden_RH = wide(hidden_RH) if exact else hidden_RH
        scaled = hidden_RH if self._output_scale == 1.0 else hidden_RH * self._output_scale
        return self._head.exact(scaled) if exact else self._head(scaled)

    def _step(self, id_B: Tensor, position: int | Tensor, state: DecodeState) -> Tensor:
        rows, past = id_B.shape[0], state.past
        # Rows stand with their newest positions side by side, so that distances are the same in all of them.
        keys = torch.arange(past + 1, device=self.device)
        found = self._biases(self._model.decoder, keys - past, bidirectional=False)
        biases = [bias.to(self.dtype)[None, :, None, :] for bias in found]
        hidden = state.own_mask(self.dtype)
        if hidden is not None:
            biases = [bias + hidden for bias in biases]
        layout = Layout((1,) * rows, self.device)
        x_BH, out_BH = self._word_embeddings()[id_B], None
        for i, layer in enumerate(self._decoder):
            run = partial(self._step_layer, i=i, layout=layout, bias=biases[i], state=state)
            x_BH, out_BH = through(layer, run, x_BH, out_BH)
        return self._residual(x_BH, out_BH, _NO_MASKS, 0, layout, self._decoder_norm)[1]

    def _step_layer(
        self,
        layer: Layer,
        x_BH: Tensor,
        out_BH: Tensor | None,
        i: int,
        layout: Layout,
        bias: Tensor,
        state: DecodeState,
    ) -> tuple[Tensor, Tensor]:
        assert layer.cross is not None
        assert layer.cross.kv is not None
        x_BH, h_BH = self._residual(x_BH, out_BH, _NO_MASKS, 0, layout, layer.own.norm)
        q, k, v = layer.own.q(h_BH).view(layout.rows, 3, self.heads, 1, self.head_width).unbind(1)
        out_BH = layer.own.out(attend_step(q, *state.append(i, k, v), bias, 1.0))
        x_BH, h_BH = self._residual(x_BH, out_BH, _NO_MASKS, 0, layout, layer.cross.norm)
        q = layer.cross.q(h_BH)[:, None]
        mixed = attend_absorbed(q, layer.cross.kv, state.source_BLH, state.mask, None, self.heads, 1.0)
        out_BH = layer.cross.out(mixed[:, 0])
        x_BH, h_BH = self._residual(x_BH, out_BH, _NO_MASKS, 0, layout, layer.feed.norm)
        return x_BH, self._feed(h_BH, layer.feed, layout, _NO_MASKS, 0)


def _layer(block: Any, activation: str) -> Layer:
    parts = list(block.layer)
    own = parts[0].SelfAttention
    cross = None
    if len(parts) == 3:
        other = parts[1].EncDecAttention
        cross = Attention(fuse([other.q]), fuse([other.k, other.v]), fuse([other.o]), _norm(parts[1].layer_norm))
    dense = parts[-1].DenseReluDense
    gated = hasattr(dense, "wi_0")
    up = fuse([dense.wi_0, dense.wi_1]) if gated else fuse([dense.wi])
    return Layer(
        Attention(fuse([own.q, own.k, own.v]), None, fuse([own.o]), _norm(parts[0].layer_norm)),
        cross,
        FeedForward(up, fuse([dense.wo]), gated, activation, _norm(parts[-1].layer_norm)),
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), None, module.variance_epsilon)
