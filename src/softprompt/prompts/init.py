"""Where a soft prompt starts (Lester et al. 2021; SPoT section 2.1.4 and appendix).

Letters: P prompt tokens, H width, V vocabulary.

| kind                 | rows                                                                                     |
|----------------------|------------------------------------------------------------------------------------------|
| `sampled-vocabulary` | embeddings of ids drawn from 0..4999 without replacement (the whole vocabulary if smaller) |
| `class-labels`       | row i is the mean of label i's sub-words; the rest as `sampled-vocabulary`                |
| `text`               | row i is token i of a text; the rest as `sampled-vocabulary`                              |
| `uniform`            | [0, 0.5), as the official code has it (not plus or minus 0.5)                             |
| `prompt`             | a given prompt: transfer, or going on with an older one                                   |

By role: a prompt from scratch starts from class labels, a source prompt from sampled vocabulary, a transferred one from
the source prompt, as in the papers; for decoder-only backbones the first two start from the words of the task's
description (`default_init`).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.errors import IncompatibleBackboneError, NonFiniteError, UnknownNameError, UsageError

InitKind = Literal["class-labels", "sampled-vocabulary", "text", "uniform", "prompt"]
Role = Literal["scratch", "source", "transfer"]
SAMPLED_IDS = 5000
UNIFORM_SCALE = 0.5
DESCRIPTION = "the task's description"  # origin of a text that nobody typed: as many of its words are taken as fit


@dataclass(frozen=True, kw_only=True, eq=False)
class InitSettings:
    """How a prompt starts.

    Attributes:
        kind: one of the table above.
        labels: class labels, for ``class-labels``.
        text: a text, for ``text``.
        prompt: float [P, H], for ``prompt``.
        origin: where ``prompt`` or ``text`` came from (a library name, `DESCRIPTION`), to be shown beside results.
        sampled_ids: vocabulary rows are drawn from ids 0..sampled_ids-1 (special ones among them).
        uniform_scale: upper end of the uniform range.
    """

    kind: InitKind = "sampled-vocabulary"
    labels: Sequence[str] = ()
    text: str = ""
    prompt: Tensor | None = None
    origin: str = ""
    sampled_ids: int = SAMPLED_IDS
    uniform_scale: float = UNIFORM_SCALE

    def __post_init__(self) -> None:
        if self.kind not in get_args(InitKind):
            raise UnknownNameError("initialiser", self.kind, get_args(InitKind))
        if self.kind == "class-labels" and not self.labels:
            raise UsageError("initialising from class labels needs labels, none were given: use 'sampled-vocabulary'.")
        if self.kind == "text" and not self.text.strip():
            raise UsageError("initialising from a text needs a text, an empty one was given: use 'sampled-vocabulary'.")
        if self.kind == "prompt" and self.prompt is None:
            raise UsageError("initialising from a prompt needs one, none was given: name a prompt of the library.")

    def record(self) -> dict[str, Any]:
        """What a manifest says of it, without the tensor."""
        shown: dict[str, Any] = {"kind": self.kind}
        if self.kind == "class-labels":
            shown["labels"] = list(self.labels)
        if self.kind == "text":
            shown["text"] = self.text
        if self.origin:
            shown["origin"] = self.origin
        if self.kind != "prompt" and self.sampled_ids != SAMPLED_IDS:
            shown["sampled_ids"] = self.sampled_ids
        if self.kind == "uniform" and self.uniform_scale != UNIFORM_SCALE:
            shown["uniform_scale"] = self.uniform_scale
        return shown

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> InitSettings | None:
        """The settings a record was made from; None where it does not say enough (a start from another prompt)."""
        known = {f.name for f in fields(cls)} - {"prompt"}
        if record.get("kind") == "prompt" or not set(record) <= known or "kind" not in record:
            return None
        try:
            return cls(**record)
        except (UsageError, TypeError):
            return None


def default_init(
    role: Role,
    *,
    labels: Sequence[str] | None = None,
    prompt: Tensor | None = None,
    origin: str = "",
    kind: str = "",
    description: str | None = None,
) -> InitSettings:
    """The initialiser of a role: the papers', and for decoder-only backbones the words of the task's description.

    Args:
        role: ``scratch`` (prompt tuning of a target: class labels, or sampled vocabulary for a task without),
            ``source`` (sampled vocabulary) or ``transfer`` (the source prompt).
        labels: the task's class labels.
        prompt: the source prompt [P, H], for ``transfer``.
        origin: its name.
        kind: of the backbone (``Backbone.kind``).
        description: the task in one sentence (``Task.description``); None where there is none.
    """
    if role not in get_args(Role):
        raise UnknownNameError("role of a prompt", role, get_args(Role))
    if role == "transfer":
        return InitSettings(kind="prompt", prompt=prompt, origin=origin)
    if kind == "causal" and description:
        return InitSettings(kind="text", text=description, origin=DESCRIPTION)
    if role == "scratch" and labels:
        return InitSettings(kind="class-labels", labels=tuple(labels))
    return InitSettings(kind="sampled-vocabulary")


def initial_prompt(backbone: Backbone, settings: InitSettings, prompt_length: int, seed: int) -> Tensor:
    """A fresh prompt, float32 [P, H] on the CPU. The same seed and settings give the same bits.

    Args:
        backbone: gives the embedding table [V, H] and the tokenizer.
        settings: how to start.
        prompt_length: P, at least 1.
        seed: of the run; the stream of numbers used here is its own.

    Raises:
        UsageError: P is below 1, a label has no token, or a given prompt has another length.
        IncompatibleBackboneError: a given prompt has another width.
        NonFiniteError: a given prompt holds NaN or infinity.
    """
    if prompt_length < 1:
        raise UsageError(f"prompt_length {prompt_length} was asked for; a soft prompt has at least one token.")
    if settings.kind == "prompt":
        return _given(settings, backbone, prompt_length)
    generator = torch.Generator().manual_seed(_stream(seed))
    if settings.kind == "uniform":
        return torch.rand(prompt_length, backbone.hidden_size, generator=generator) * settings.uniform_scale
    table_VH = backbone.embedding_table()
    ids = _sampled_ids(prompt_length, min(settings.sampled_ids, int(table_VH.shape[0])), generator)
    prompt_PH = table_VH[ids.to(table_VH.device)].to("cpu", torch.float32, copy=True)
    for i, row in enumerate(_first_rows(backbone, settings, prompt_length)):
        prompt_PH[i] = table_VH[torch.tensor(row, device=table_VH.device)].to(torch.float32).mean(0).cpu()
    return prompt_PH


def initial_prompts(backbone: Backbone, settings: InitSettings, prompt_length: int, seeds: Sequence[int]) -> Tensor:
    """One fresh prompt a seed, float32 [N, P, H]; see `initial_prompt`."""
    return torch.stack([initial_prompt(backbone, settings, prompt_length, seed) for seed in seeds])


def _stream(seed: int) -> int:
    digest = hashlib.sha256(f"softprompt/prompt-init/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _sampled_ids(count: int, population: int, generator: torch.Generator) -> Tensor:
    """int64 [count], drawn without replacement; a prompt longer than the population draws it again."""
    rounds = -(-count // population)
    return torch.cat([torch.randperm(population, generator=generator) for _ in range(rounds)])[:count]


def _first_rows(backbone: Backbone, settings: InitSettings, prompt_length: int) -> list[list[int]]:
    """Token ids whose embeddings' mean makes each of the first rows."""
    if settings.kind == "class-labels":
        rows = [_token_ids(backbone, label) for label in settings.labels]
        for label, row in zip(settings.labels, rows, strict=True):
            if not row:
                raise UsageError(f"class label {label!r} has no token in {backbone.name}'s vocabulary; give it a text.")
        what = f"{len(rows)} class labels"
    elif settings.kind == "text":
        rows = [[token] for token in _token_ids(backbone, settings.text)]
        what = f"the text's {len(rows)} tokens"
    else:
        return []
    if len(rows) > prompt_length and settings.origin != DESCRIPTION:
        warnings.warn(
            f"{what} do not fit a prompt of {prompt_length}; the first {prompt_length} are used.", stacklevel=3
        )
    return rows[:prompt_length]


def _token_ids(backbone: Backbone, text: str) -> list[int]:
    ids: list[int] = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _given(settings: InitSettings, backbone: Backbone, prompt_length: int) -> Tensor:
    assert settings.prompt is not None
    prompt_PH = settings.prompt.detach().to("cpu", torch.float32, copy=True)
    named = f"prompt {settings.origin!r}" if settings.origin else "the given prompt"
    if prompt_PH.dim() != 2 or prompt_PH.shape[1] != backbone.hidden_size:
        raise IncompatibleBackboneError(
            f"{named} has shape {list(prompt_PH.shape)}; backbone {backbone.name} has width {backbone.hidden_size}. "
            "Prompts do not move between backbones: load the prompt's own or retrain."
        )
    if prompt_PH.shape[0] != prompt_length:
        raise UsageError(
            f"{named} has {prompt_PH.shape[0]} tokens and prompt_length is {prompt_length}; "
            f"set prompt_length to {prompt_PH.shape[0]} to start from it."
        )
    if not torch.isfinite(prompt_PH).all():
        raise NonFiniteError(f"{named} holds values that are not finite; it cannot be a start. Use another checkpoint.")
    return prompt_PH
