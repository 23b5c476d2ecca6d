"""Whether an architecture that no test knows answers right: tried once at load, on a few short rows.

A decoder-only model may ignore masks, positions, caches or given embeddings; its answers would then depend on the rows
beside a row, silently. What tests/parity knows is not tried again.

Letters: B rows, D target tokens, V vocabulary, H width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.causal_hf import TransformersCausal
from softprompt.backbones.engine.formulas import wide
from softprompt.batch import PromptBatch, TokenBatch
from softprompt.errors import BackboneError

TESTED = frozenset(
    {
        "bloom", "codegen", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2",
        "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "llama", "mistral", "mpt", "nemotron", "olmo", "olmo2", "opt",
        "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2",
    }
)  # fmt: skip
"""Model types whose losses, logits, prompt gradients and answers equal transformers' in tests/parity."""

_SHORT, _LONG, _PROMPT, _TARGET = 5, 37, 3, 3  # tokens
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # of the logits' deviation
_ROUGH = 0.2  # the same in 16 bits


def check_answers(backbone: TransformersCausal, model: Any) -> None:
    """Try a backbone of an unknown architecture.

    Raises:
        BackboneError: a row beside a longer one answers otherwise than alone, or otherwise than in plain transformers.
    """
    try:
        with torch.no_grad():
            found = _differences(backbone, model)
    except BackboneError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _refused(
            backbone, model, f"it could not be run with embeddings, masks, positions and a cache ({reason})"
        ) from error
    for what, difference in found.items():
        # Written so that NaN is refused too.
        if not difference <= _TOLERANCE.get(backbone.dtype, _ROUGH):
            raise _refused(backbone, model, f"{what}, by {difference:.2g} of the deviation of its logits")


def _refused(backbone: TransformersCausal, model: Any, why: str) -> BackboneError:
    return BackboneError(
        f"{backbone.name} is of type {model.config.model_type!r}, which no test of ours knows, and a trial failed: {why}; "
        f"use a model of a tested type: {', '.join(sorted(TESTED))}."
    )


def _differences(backbone: TransformersCausal, model: Any) -> dict[str, float]:
    """What was compared, and the largest difference in units of the logits' deviation."""
    draw = torch.Generator().manual_seed(0)
    most = min(backbone.vocab_size, 5000)
    rows = [torch.randint(most // 10, most, (n,), generator=draw).tolist() for n in (_SHORT, _LONG)]
    goals = [torch.randint(most // 10, most, (_TARGET,), generator=draw).tolist() for _ in rows]
    front = torch.randint(most // 10, most, (_PROMPT,), generator=draw)
    together = TokenBatch.of(rows, goals, backbone.device)
    alone = TokenBatch.of(rows[:1], goals[:1], backbone.device)
    prompts = _as_prompt(backbone, front, 2)
    one = prompts.select(torch.tensor([0], device=backbone.device))
    text = [*front.tolist(), *rows[0], *goals[0]]
    plain = wide(model(input_ids=torch.tensor([text], device=backbone.device)).logits[0, -_TARGET - 1 : -1])
    spread = float(plain.std())
    single, beside = backbone.logits(alone, one)[0], backbone.logits(together, prompts)[0, :_TARGET]
    scores = backbone.label_scores(together, prompts, [[goals[0]], [goals[1]]])[0]
    expected = plain.log_softmax(-1).gather(1, together.target_BD[:1].T).sum()
    return {
        "given a prompt's embeddings it answers otherwise than plain transformers": _apart(single, plain) / spread,
        "beside a longer row it answers otherwise than alone": _apart(beside, single) / spread,
        "with its cache it answers otherwise than without": _apart(scores[0], expected) / spread / _TARGET,
    }


def _as_prompt(backbone: TransformersCausal, ids: Tensor, rows: int) -> PromptBatch:
    """Word embeddings as the prompt of some rows: a text with its ids in front must give the same."""
    embedded_PH = backbone.embedding_table()[ids.to(backbone.device)]
    which_B = torch.zeros(rows, dtype=torch.int64, device=backbone.device)
    return PromptBatch(unique_UPH=embedded_PH[None], which_B=which_B, length_U=(len(ids),), key_U=(None,))


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
