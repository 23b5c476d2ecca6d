"""The two architectures that can be pre-trained, and one loss for both.

Legend: B examples, T input tokens, P prompt rows, L = P+T, D target tokens, H width, V vocabulary, C candidate words,
M targets that count (all examples together), S slots.

- ``encoder-decoder``: a frozen pre-trained BERT encoder, and a BERT decoder with cross-attention which is trained here.
  The decoder's word vectors, for input and output, are the encoder's own frozen ones.
- ``t5``: a T5 v1.1 of any size, trained from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from softprompt.backbones.builtin import join

if TYPE_CHECKING:
    from transformers import EncoderDecoderModel, PreTrainedModel

IGNORED = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Padded token ids.

    Attributes:
        ids_BT: inputs; mask_BT: 1 where an input is; labels_BD: targets, ``IGNORED`` where there is none.
        slot_B: the slot row of each example, -1 where it has none.
        prompt_rows: P, rows in front of the inputs (slot rows last, noise before them).
        slots_learn: whether the slot rows take a gradient here (a backward pass through the encoder).
        seed: for the noise rows.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    labels_BD: Tensor
    slot_B: Tensor
    prompt_rows: int
    seed: int
    slots_learn: bool = False


def compose(
    encoder: PreTrainedModel, *, layers: int, positions: int, feed_forward: int, heads: int
) -> EncoderDecoderModel:
    """A frozen ``encoder`` with a fresh decoder of its width, vocabulary and word vectors."""
    from transformers import BertConfig, BertLMHeadModel

    source = encoder.config
    config = BertConfig(
        vocab_size=source.vocab_size, hidden_size=source.hidden_size, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=feed_forward, max_position_embeddings=positions,
        type_vocab_size=1, is_decoder=True, add_cross_attention=True, tie_word_embeddings=True,
        pad_token_id=source.pad_token_id, layer_norm_eps=1e-12,
    )  # fmt: skip
    return join(encoder, BertLMHeadModel(config))


class Slots(nn.Module):
    """Trained prompt rows [S, R, H], one block for each kind of question; they are not part of the shipped model."""

    def __init__(self, count: int, rows: int, words_VH: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(count)
        drawn = torch.randint(1000, words_VH.shape[0], (count * rows,), generator=generator)
        self.rows_SRH = nn.Parameter(words_VH.detach().float()[drawn].view(count, rows, -1).clone())

    def forward(self, batch: TokenBatch, words_VH: Tensor) -> Tensor:
        """Prompt rows [B, P, H]: random words with noise, the last R of them the example's slot where it has one."""
        size, rows = batch.slot_B.shape[0], batch.prompt_rows
        generator = torch.Generator().manual_seed(batch.seed)
        drawn = torch.randint(1000, words_VH.shape[0], (size, rows), generator=generator).to(words_VH.device)
        scale = 0.1 * torch.rand((size, 1, 1), generator=generator)
        noise = scale * torch.randn((size, rows, words_VH.shape[1]), generator=generator)
        prompt = words_VH.detach()[drawn].float() + noise.to(words_VH.device)
        width = self.rows_SRH.shape[1]
        if rows < width or not bool((batch.slot_B >= 0).any()):
            return prompt
        rows_SRH = self.rows_SRH if batch.slots_learn else self.rows_SRH.detach()
        own = rows_SRH[batch.slot_B.clamp(min=0)] + 0.2 * noise[:, -width:].to(words_VH.device)
        chosen = torch.where((batch.slot_B >= 0)[:, None, None], own, prompt[:, -width:])
        return torch.cat([prompt[:, : rows - width], chosen], dim=1)


class Trainee(nn.Module):
    """A model in training: encodes, decodes, and scores the targets against some or all words."""

    def __init__(self, model: PreTrainedModel, slots: Slots | None, *, frozen_encoder: bool) -> None:
        super().__init__()
        self.model, self.slots, self.frozen_encoder = model, slots, frozen_encoder
        self.bert = hasattr(model, "decoder") and hasattr(model.decoder, "bert")

    def words(self) -> Tensor:
        """The input word vectors [V, H]."""
        weight: Tensor = self.model.get_encoder().get_input_embeddings().weight
        return weight

    def encode(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Encoder states [B, L, H] and their mask [B, L]."""
        encoder: Any = self.model.get_encoder()
        embeds, mask = functional.embedding(batch.ids_BT, self.words()), batch.mask_BT
        learns = not self.frozen_encoder
        if batch.prompt_rows and self.slots is not None:
            prompt = self.slots(batch, self.words())
            learns = learns or prompt.requires_grad
            embeds = torch.cat([prompt.to(embeds.dtype), embeds], dim=1)
            mask = torch.cat([mask.new_ones(mask.shape[0], batch.prompt_rows), mask], dim=1)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            states: Tensor = encoder(inputs_embeds=embeds, attention_mask=mask)[0]
        return states, mask

    def decode(self, batch: TokenBatch, states_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """Decoder states [M, H] at the targets that count, ready for the output matrix."""
        model: Any = self.model
        start = model.config.decoder_start_token_id
        previous = torch.roll(batch.labels_BD, 1, dims=1).masked_fill(
            batch.labels_BD == IGNORED, model.config.pad_token_id
        )
        previous = previous.masked_fill(previous == IGNORED, model.config.pad_token_id)
        previous[:, 0] = start
        counts = batch.labels_BD != IGNORED
        stack = model.decoder.bert if self.bert else model.get_decoder()
        hidden = stack(
            input_ids=previous, encoder_hidden_states=states_BLH, encoder_attention_mask=mask_BL, use_cache=False
        )[0][counts]
        if self.bert:
            hidden = model.decoder.cls.predictions.transform(hidden)
        result: Tensor = hidden
        return result

    def losses(self, batch: TokenBatch, candidates_C: Tensor | None) -> Tensor:
        """Each target's cross-entropy [M], against ``candidates_C`` or all words."""
        states, mask = self.encode(batch)
        hidden = self.decode(batch, states, mask)
        gold = batch.labels_BD[batch.labels_BD != IGNORED]
        words, bias = self._output()
        if candidates_C is not None:
            place = torch.zeros(words.shape[0], dtype=torch.long, device=gold.device)
            place[candidates_C] = torch.arange(len(candidates_C), device=gold.device)
            gold, words = place[gold], words[candidates_C]
            bias = None if bias is None else bias[candidates_C]
        logits = functional.linear(hidden, words.to(hidden.dtype)).float()
        if bias is not None:
            logits = logits + bias
        return functional.cross_entropy(logits, gold, reduction="none")

    def _output(self) -> tuple[Tensor, Tensor | None]:
        model: Any = self.model
        if self.bert:
            return model.decoder.get_output_embeddings().weight, model.decoder.cls.predictions.bias
        return model.lm_head.weight, None


def target_weights(batch: TokenBatch) -> Tensor:
    """A weight for each target [M]: one over the root of its example's length, so that short answers count."""
    counts = batch.labels_BD != IGNORED
    length_B = counts.sum(1, keepdim=True).float()
    return (length_B.rsqrt() * counts)[counts]


def split_parameters(trainee: Trainee) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """What Muon trains (matrices of layers), what AdamW trains, and the word and prompt vectors (AdamW, own rate)."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in trainee.named_parameters():
        if not parameter.requires_grad:
            continue
        if any(part in name for part in ("embed", "shared", "slots", "lm_head", "relative", "adapter")):
            vectors.append(parameter)
        elif parameter.ndim == 2:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    return matrices, rest, vectors
