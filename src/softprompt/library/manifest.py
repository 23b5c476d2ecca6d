"""What a library knows of a prompt: the record given to `Library.add`, and the manifest stored beside the prompt.

Letters: P prompt tokens, H width.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

from softprompt.artifacts import check_file_name, check_name, json_bytes, parse_json, sha256_bytes
from softprompt.errors import CorruptArtifactError, DataError, NonFiniteError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "softprompt-prompt/1"
MANIFEST = "manifest.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_MODEL = "adapter_model.safetensors"
TASK_EMBEDDING = "task_embedding.safetensors"
TASK_VECTORS = "task_vectors.safetensors"
CARD = "README.md"
PROMPT_TENSOR = "prompt_embeddings"
EMBEDDING_TENSOR = "task_embedding"
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
    """Raises when a tensor is no prompt: not floating point, not [P, H] with P, H >= 1, or not finite.

    Raises:
        DataError: wrong dtype or shape.
        NonFiniteError: NaN or infinity.
    """
    if not prompt.is_floating_point():
        raise DataError(f"{what} has dtype {str(prompt.dtype).removeprefix('torch.')}; a prompt is floating point.")
    if prompt.dim() != 2 or 0 in prompt.shape:
        raise DataError(f"{what} has shape {list(prompt.shape)}; a prompt is [prompt tokens, width], both at least 1.")
    if not bool(prompt.isfinite().all()):
        raise NonFiniteError(f"{what} holds NaN or infinity; use an earlier checkpoint.")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` says. Fields as in `PromptRecord`; those with a default may be absent from the file. And:

    Attributes:
        prompt_length: P.
        width: H.
        dtype: of the stored prompt, e.g. ``float32``.
        facts: ``mean_row_norm`` and, where the start was given, ``distance_from_initial`` (mean over rows, L2).
        created: UTC time, ISO 8601.
        files: sha256 by file name, the manifest itself left out.
    """

    name: str
    task: str
    seed: int
    backbone_name: str
    backbone_fingerprint: str | None
    backbone_kind: str
    prompt_length: int
    width: int
    dtype: str
    data_fingerprint: str | None
    steps: int | None
    best_step: int | None
    embedding_step: int | None
    scores: Mapping[str, float | None]
    recipe: Mapping[str, Any]
    init: Mapping[str, Any]
    facts: Mapping[str, float | None]
    command: str
    origin: str
    licence: str
    tags: tuple[str, ...]
    versions: Mapping[str, str]
    created: str
    files: Mapping[str, str]
    chat: Mapping[str, Any] | None = None
    data_source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verified(self) -> bool:
        """Whether the backbone it was made on is known by its fingerprint."""
        return self.backbone_fingerprint is not None

    @property
    def has_task_embedding(self) -> bool:
        return TASK_EMBEDDING in self.files

    @property
    def score(self) -> float | None:
        """The task's average score in percent, where known."""
        return self.scores.get("score")

    def to_bytes(self) -> bytes:
        """The file's content, with a digest of its own over everything else in it."""
        content = {"format": FORMAT, **asdict(self)}
        return json_bytes({**content, "manifest_sha256": sha256_bytes(json_bytes(content))})

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Manifest:
        """Read and check a manifest.

        Raises:
            CorruptArtifactError: it is not a manifest this version can read, or not what was written.
        """
        content = parse_json(data, path)
        if not isinstance(content, dict) or not isinstance(content.get("format"), str):
            raise CorruptArtifactError(f"{path} is no prompt manifest; restore the prompt's folder or add it again.")
        if content["format"] != FORMAT:
            raise CorruptArtifactError(
                f"{path} has format {content['format']!r} and this version reads {FORMAT!r}; update softprompt."
            )
        if content.pop("manifest_sha256", None) != sha256_bytes(_without_digest(data)):
            raise CorruptArtifactError(
                f"{path} is not what was written: its own digest differs; restore it from a copy."
            )
        del content["format"]
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        odd = sorted((set(content) - {f.name for f in fields(cls)}) | (needed - set(content)))
        if odd:
            raise CorruptArtifactError(f"{path} lacks or adds the fields {', '.join(odd)}; add the prompt again.")
        _check_types(content, path)
        return cls(**{**content, "tags": tuple(content["tags"])})


def _without_digest(data: bytes) -> bytes:
    """The file as it was before its last entry, the digest, was added (see `Manifest.to_bytes`)."""
    return data[: data.rfind(b',\n  "manifest_sha256": ')] + b"\n}\n"


def _check_types(content: dict[str, Any], path: str) -> None:
    kinds: dict[str, type] = {"name": str, "task": str, "backbone_name": str, "prompt_length": int, "width": int}
    kinds |= {
        "files": dict,
        "scores": dict,
        "recipe": dict,
        "init": dict,
        "facts": dict,
        "versions": dict,
        "tags": list,
    }
    if content.get("chat") is not None:  # absent from prompts of older versions
        kinds["chat"] = dict
    if "data_source" in content:
        kinds["data_source"] = dict
    for key, kind in kinds.items():
        if not isinstance(content[key], kind):
            raise CorruptArtifactError(f"{path} holds no {kind.__name__} under {key!r}; add the prompt again.")
    for name in content["files"]:
        check_file_name(name)


def make_manifest(record: PromptRecord, files: Mapping[str, str]) -> Manifest:
    """The manifest of a record whose files have these sha256 digests."""
    prompt_PH = record.prompt.detach().to("cpu")
    rows = prompt_PH.double()
    facts: dict[str, float | None] = {"mean_row_norm": float(rows.norm(dim=1).mean())}
    if record.initial is not None and record.initial.shape == rows.shape:
        facts["distance_from_initial"] = float((rows - record.initial.detach().cpu().double()).norm(dim=1).mean())
    return Manifest(
        name=record.library_name,
        task=record.task,
        seed=int(record.seed),
        backbone_name=record.backbone_name,
        backbone_fingerprint=record.backbone_fingerprint,
        backbone_kind=record.backbone_kind,
        prompt_length=int(prompt_PH.shape[0]),
        width=int(prompt_PH.shape[1]),
        dtype=str(prompt_PH.dtype).removeprefix("torch."),
        data_fingerprint=record.data_fingerprint,
        steps=record.steps,
        best_step=record.best_step,
        embedding_step=record.embedding_step,
        scores={key: float(value) for key, value in record.scores.items()},
        recipe=dict(record.recipe),
        init=dict(record.init),
        facts=facts,
        command=record.command,
        origin=record.origin,
        licence=record.licence,
        tags=tuple(record.tags),
        versions=dict(record.versions) if record.versions is not None else installed_versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        files=dict(files),
        chat=None if record.chat is None else dict(record.chat),
        data_source=dict(record.data_source),
    )


def installed_versions() -> dict[str, str]:
    """Versions of this package and of those that decide a prompt's numbers."""
    versions = {}
    for name in ("softprompt", "torch", "transformers", "tokenizers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
