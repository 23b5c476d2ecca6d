"""vLLM: soft prompts through ``prompt_embeds`` (decoder-only models, a server started with ``--enable-prompt-embeds``).

vLLM takes the embeddings of a whole prompt, so a request carries the soft prompt with the embedded text behind it.

    body = completions_body(backbone, prompt_PH, "is it good?", max_tokens=8)
    requests.post(f"{server}/v1/completions", json={"model": name, **body})
    llm.generate({"prompt_embeds": prompt_embeds(backbone, prompt_PH, "is it good?")})     # offline

Letters: P prompt tokens, T input tokens, L = P + T, H width.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.library.record import check_prompt

TENSOR = "prompt_embeds"


def prompt_embeds(backbone: Backbone, prompt_PH: Tensor, text: str, max_tokens: int | None = None) -> Tensor:
    """The embeddings [L, H] of a soft prompt and the text behind it, in the backbone's dtype on the CPU.

    Args:
        backbone: a decoder-only one, the same model as vLLM serves.
        prompt_PH: float [P, H].
        text: inputs.
        max_tokens: most tokens of the text; all where None.

    Raises:
        UsageError: not a decoder-only backbone: vLLM has no soft prompts for others.
        IncompatibleBackboneError: another width.
        DataError, NonFiniteError: not a prompt.
    """
    if backbone.kind != "causal":
        raise UsageError(
            f"vLLM's prompt_embeds are for decoder-only models and {backbone.name} is of kind {backbone.kind}; "
            "serve it with 'softprompt serve'."
        )
    check_prompt(prompt_PH, "the prompt")
    if prompt_PH.shape[1] != backbone.hidden_size:
        raise IncompatibleBackboneError(
            f"the prompt has width {prompt_PH.shape[1]}; backbone {backbone.name} has width {backbone.hidden_size}. "
            "Prompts do not move between backbones: load its own or retrain."
        )
    (ids,) = backbone.tokenize_inputs([text], max_tokens)
    with torch.no_grad():
        embedded_TH = backbone.hf_model.get_input_embeddings()(
            torch.tensor(ids, dtype=torch.int64, device=backbone.device)
        )
    return torch.cat([prompt_PH.detach().to("cpu", backbone.dtype), embedded_TH.to("cpu", backbone.dtype)])


def encode(embeds_LH: Tensor) -> str:
    """Embeddings as the text that the HTTP field ``prompt_embeds`` wants: base64 of torch's own file format."""
    stream = io.BytesIO()
    torch.save(embeds_LH.detach().to("cpu").contiguous().clone(), stream)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def completions_body(backbone: Backbone, prompt_PH: Tensor, text: str, **options: Any) -> dict[str, Any]:
    """The JSON body of a greedy ``/v1/completions`` request; add ``model`` and, in ``options``, ``max_tokens`` and others.

    It has no ``prompt``: vLLM takes an empty one beside the embeddings as a second request (since 0.33).
    """
    return {
        "prompt_embeds": encode(prompt_embeds(backbone, prompt_PH, text)),
        "temperature": 0.0,
        **options,
    }


def write_prompt_embeds(path: str | Path, prompt_PH: Tensor) -> None:
    """A soft prompt alone as a safetensors file with one tensor ``prompt_embeds`` [P, H]; dtype and bits are kept."""
    check_prompt(prompt_PH, "the prompt to export")
    artifacts.write_tensors(path, {TENSOR: prompt_PH})


def read_prompt_embeds(path: str | Path) -> Tensor:
    """A soft prompt [P, H] written by `write_prompt_embeds`. torch's own format is a pickle and is not opened.

    Raises:
        DataError: absent, or not a prompt.
        CorruptArtifactError: not safetensors, or without that tensor.
        NonFiniteError: NaN or infinity.
    """
    prompt_PH = artifacts.read_tensors(path, [TENSOR])[TENSOR]
    check_prompt(prompt_PH, str(path))
    return prompt_PH
