"""Losses, logits and prompt gradients by stock Hugging Face code, one row at a time and without any padding."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.batch import Rows, TokenBatch
from softprompt.prompts.stack import PromptStack


@dataclass
class Reference:
    """What Hugging Face computes, in the dtype of its model."""

    nll_B: Tensor
    logits: list[Tensor]  # by row, [D_b, V]
    grad_NPH: Tensor


def _embed(backbone: Backbone, model: Any, ids: Tensor) -> Tensor:
    if backbone.kind == "encoder-decoder":
        return model.encoder.embeddings.word_embeddings(ids)
    return model.get_input_embeddings()(ids)


def reference(
    backbone: Backbone, batch: TokenBatch, stack: PromptStack, which: list[int], dtype: torch.dtype
) -> Reference:
    """Row-by-row truth on a copy of the backbone's own weights cast to ``dtype``."""
    model = copy.deepcopy(backbone.hf_model).to(dtype)
    prompts = stack.prompts_NPH.detach().to(dtype).requires_grad_(True)
    losses, logits = [], []
    for b, run in enumerate(which):
        ids = batch.input_BT[b, : int(batch.input_length_B[b])]
        target = batch.target_BD[b, : int(batch.target_length_B[b])]
        parts = [prompts[run, : stack.lengths[run]], _embed(backbone, model, ids)]
        if backbone.kind == "causal":
            parts.append(_embed(backbone, model, target))
        embeds = torch.cat(parts)[None]
        if backbone.kind == "causal":
            out = model(inputs_embeds=embeds).logits[0]
            row = out[embeds.shape[1] - len(target) - 1 : -1]
        else:
            start = model.config.decoder_start_token_id
            decoder_ids = torch.cat([torch.tensor([start]), target[:-1]])[None]
            row = model(inputs_embeds=embeds, decoder_input_ids=decoder_ids).logits[0]
        logits.append(row.detach())
        losses.append(torch.nn.functional.cross_entropy(row, target, reduction="sum"))
    torch.stack(losses).sum().backward()
    return Reference(torch.stack(losses).detach(), logits, prompts.grad)


def hf_greedy(
    backbone: Backbone, batch: TokenBatch, stack: PromptStack, which: list[int], max_new_tokens: int
) -> list[list[int]]:
    """Greedy generation by transformers' ``generate``, one row at a time."""
    out = []
    for b, run in enumerate(which):
        ids = batch.input_BT[b, : int(batch.input_length_B[b])]
        prompt = stack.prompts_NPH.detach()[run, : stack.lengths[run]].to(backbone.dtype)
        embeds = torch.cat([prompt, _embed(backbone, backbone.hf_model, ids)])[None]
        start = {} if backbone.kind == "causal" else {"decoder_start_token_id": backbone.start_id}
        row = backbone.hf_model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.int64),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=backbone.end_id,
            pad_token_id=0,
            **start,
        )[0].tolist()
        if backbone.kind != "causal":
            row = row[1:]
        out.append(row[: row.index(backbone.end_id)] if backbone.end_id in row else row)
    return out


WHICH = [0, 1, 2, 0, 1]


FACTOR = 2.0  # our float32 error against the reference's, both against float64


def error_of(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.double() - truth.double()).norm() / truth.double().norm())


def ours_of(backbone, batch, stack):
    prompts = stack.prompts(Rows(run_B=torch.tensor(WHICH)))
    losses = backbone.example_losses(batch, prompts)
    stack.prompts_NPH.grad = None
    losses.nll_B.sum().backward()
    return losses, backbone.logits(batch, prompts).detach(), stack.prompts_NPH.grad
