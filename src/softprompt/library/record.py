"""What a library is given of a prompt, and the names of the files that hold it.

Letters: P prompt tokens, H width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from softprompt.artifacts import check_name
from softprompt.errors import DataError, NonFiniteError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_MODEL = "adapter_model.safetensors"
TASK_EMBEDDING = "task_embedding.safetensors"
TASK_VECTORS = "task_vectors.safetensors"
CARD = "README.md"
FILES = (ADAPTER_CONFIG, ADAPTER_MODEL, TASK_EMBEDDING, TASK_VECTORS, CARD)  # and the manifest: nothing else
PROMPT_TENSOR = "prompt_embeddings"
EMBEDDING_TENSOR = "task_embedding"
DTYPES = ("float32", "bfloat16", "float16", "float64")
UNSTATED_LICENCE = "unstated"


class BackboneIdentity(Protocol):
    """The part of a backbone a library looks at."""

    name: str
    hidden_size: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptRecord:
    """A prompt to be added to a library, with everything that made it.

    Attributes:
        task: the task (or mixture) it was tuned on.
        prompt: float [P, H], the best checkpoint: the value of the library. Kept in its own dtype.
        task_embedding: float [P, H], the prompt at the fixed early step: the key. None where there is none.
        backbone_name: hub id, folder or ``builtin``.
        backbone_fingerprint: the backbone's digest; None for imports that carry none: they stay ``unverified``.
        backbone_kind: ``t5``, ``encoder-decoder`` or ``causal``.
        seed: of the run.
        data_fingerprint: sha256 of the training split's content.
        steps: optimiser steps taken in all.
        best_step: the step the prompt was saved at.
        embedding_step: the step the task embedding was saved at.
        scores: percents by metric, with ``score`` the task's average.
        recipe: the resolved training settings.
        init: how the prompt started (`softprompt.prompts.init.InitSettings.record`).
        initial: float [P, H], what it started from; only its distance is stored.
        command: what to run to make it again.
        origin: where an imported prompt came from.
        licence: SPDX name of the prompt's licence.
        tags: free words to find it by.
        versions: package versions; those of this process where not given.
        chat: the conversation its inputs were put into (`softprompt.tasks.chat.Chat.record`); None for plain inputs.
        data_source: where the rows came from on the Hub: ``repo``, ``config``, ``branch`` and the commit that was read,
            ``revision``; empty for other data.
        wording: how a row becomes what the backbone reads (`softprompt.tasks.wording.Wording.record`); None where unknown.
        scoring: how answers are chosen: by the probability of each ``labels`` word, or what the backbone would ``generate``;
            None where it was not recorded.
        name: name in the library; ``<task>@<seed>`` where not given.
    """

    task: str
    prompt: Tensor
    backbone_name: str
    backbone_fingerprint: str | None
    backbone_kind: str
    task_embedding: Tensor | None = None
    seed: int = 0
    data_fingerprint: str | None = None
    steps: int | None = None
    best_step: int | None = None
    embedding_step: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    init: Mapping[str, Any] = field(default_factory=dict)
    initial: Tensor | None = None
    command: str = ""
    origin: str = ""
    licence: str = UNSTATED_LICENCE
    tags: Sequence[str] = ()
    versions: Mapping[str, str] | None = None
    chat: Mapping[str, Any] | None = None
    data_source: Mapping[str, Any] = field(default_factory=dict)
    wording: Mapping[str, Any] | None = None
    scoring: Literal["labels", "generate"] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        check_prompt(self.prompt, f"the prompt of task {self.task!r}")
        width = int(self.prompt.shape[1])
        for what, tensor in (("task embedding", self.task_embedding), ("initial prompt", self.initial)):
            if tensor is not None:
                check_prompt(tensor, f"the {what} of task {self.task!r}")
                if tensor.shape[1] != width:
                    raise UsageError(
                        f"the {what} of task {self.task!r} has width {tensor.shape[1]} and its prompt {width}; "
                        "both come from one run on one backbone."
                    )

    @property
    def library_name(self) -> str:
        """The name it gets: the given one, or ``<task>@<seed>`` with unusual characters as ``-``."""
        if self.name is not None:
            return check_name(self.name, "prompt name")
        return default_name(self.task, self.seed)


def default_name(task: str, seed: int) -> str:
    """``<task>@<seed>``, safe as a folder and as a PEFT adapter name (which cannot hold a dot)."""
    slug = re.sub(r"[^A-Za-z0-9_+=,~-]+", "-", task).strip("-") or "prompt"
    return check_name(f"{slug[:160]}@{seed}", "prompt name")


def check_prompt(prompt: Tensor, what: str) -> None:
    """Raises when a tensor is no prompt: not of `DTYPES`, not [P, H] with P, H >= 1, or not finite.

    Raises:
        DataError: wrong dtype or shape.
        NonFiniteError: NaN or infinity.
    """
    dtype = str(prompt.dtype).removeprefix("torch.")
    if dtype not in DTYPES:  # float8 and float4 are floating point too, but have no arithmetic of their own
        raise DataError(f"{what} has dtype {dtype}; a prompt is one of {', '.join(DTYPES)}.")
    if prompt.dim() != 2 or 0 in prompt.shape:
        raise DataError(f"{what} has shape {list(prompt.shape)}; a prompt is [prompt tokens, width], both at least 1.")
    if not bool(prompt.isfinite().all()):
        raise NonFiniteError(f"{what} holds NaN or infinity; use an earlier checkpoint.")
