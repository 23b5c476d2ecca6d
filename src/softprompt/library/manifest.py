"""What a library knows of a prompt: the record given to `Library.add`, and the manifest stored beside the prompt.

Letters: P prompt tokens, H width.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import unicodedata
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
)

from softprompt.artifacts import check_name, json_bytes, parse_json, sha256_bytes
from softprompt.errors import CorruptArtifactError, UsageError, wrong_fields
from softprompt.library.record import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    DTYPES,
    FILES,
    TASK_EMBEDDING,
    TASK_VECTORS,
    PromptRecord,
)

if TYPE_CHECKING:
    pass

FORMAT = "softprompt-prompt/2"
LARGEST_BYTES = 4 * 2**20  # of a manifest


def _one_line(text: str) -> str:
    if any(unicodedata.category(letter) in _UNPRINTABLE or letter in _TURNING for letter in text):
        raise ValueError("it holds control characters")
    return text


def _name(text: str) -> str:
    try:
        return check_name(text, "prompt name")
    except UsageError as error:
        raise ValueError(str(error)) from error


_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # marks that turn the direction of a text
_INERT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

Line = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_one_line)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Inert = Mapping[str, JsonValue]


class Manifest(BaseModel):
    """What ``manifest.json`` says; every field is checked, and nothing in it is ever run. Fields as in `PromptRecord`; those
    with a default may be absent from the file. And:

    Attributes:
        prompt_length: P.
        width: H.
        dtype: of the stored prompt, e.g. ``float32``.
        facts: ``mean_row_norm`` and, where the start was given, ``distance_from_initial`` (mean over rows, L2).
        created: UTC time, ISO 8601.
        files: sha256 by file name, the manifest itself left out: of `FILES` and no others.
    """

    model_config = _INERT

    name: Annotated[str, AfterValidator(_name)]
    task: Line
    seed: int
    backbone_name: Line
    backbone_fingerprint: Digest | None
    backbone_kind: Line
    prompt_length: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    dtype: Annotated[str, StringConstraints(pattern=f"^({'|'.join(DTYPES)})$")]
    data_fingerprint: Digest | None
    steps: Count | None
    best_step: Count | None
    embedding_step: Count | None
    scores: Mapping[Line, float | None]
    recipe: Inert
    init: Inert
    facts: Mapping[Line, float | None]
    command: str
    origin: Line
    licence: Line
    tags: Annotated[tuple[Line, ...], Field(strict=False)]  # JSON has lists alone; the items stay strict
    versions: Mapping[Line, Line]
    created: Line
    files: Mapping[str, Digest]
    chat: Inert | None = None
    data_source: Inert = {}
    wording: Inert | None = None
    scoring: Literal["labels", "generate"] | None = None

    @field_validator("wording")
    @classmethod
    def _known_wording(cls, wording: Inert | None) -> Inert | None:
        if wording is not None:
            from softprompt.tasks.wording import Wording

            try:
                Wording.of_record(wording)
            except CorruptArtifactError as error:
                raise ValueError(str(error)) from error
        return wording

    @field_validator("files")
    @classmethod
    def _known_files(cls, files: Mapping[str, str]) -> Mapping[str, str]:
        odd = sorted(set(files) - set(FILES))
        if odd:
            raise ValueError(f"a prompt's folder holds {', '.join(FILES)} and no other files, not {', '.join(odd[:3])}")
        missing = sorted({ADAPTER_CONFIG, ADAPTER_MODEL, TASK_VECTORS} - set(files))
        if missing:
            raise ValueError(f"it does not list {', '.join(missing)}")
        return files

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

    def idle(self) -> str:
        """A sentence where the score on the prompt's own task is no better than what needs no tuning; else empty.

        The recipe's ``beside`` has the scores, percent, of the most frequent label and of the prompt's start; what it does not
        have was not measured.
        """
        beside = self.recipe.get("beside")
        known = beside if isinstance(beside, Mapping) else {}
        for name, what in (("majority", "the most frequent label"), ("zero_step", "its start")):
            without = known.get(name)
            if self.score is not None and isinstance(without, int | float) and self.score <= without:
                return f"{self.name}: {self.score:.1f} on {self.task} is no better than {what} ({without:.1f}): it learned nothing that shows."
        return ""

    def to_bytes(self) -> bytes:
        """The file's content, with a digest of its own over everything else in it."""
        content = {"format": FORMAT, **self.model_dump()}
        return json_bytes({**content, "manifest_sha256": sha256_bytes(json_bytes(content))})

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Manifest:
        """Read and check a manifest.

        Raises:
            CorruptArtifactError: it is not a manifest this version can read, or not what was written.
        """
        if len(data) > LARGEST_BYTES:
            raise CorruptArtifactError(f"{path} has {len(data):,} bytes; a manifest has at most {LARGEST_BYTES:,}.")
        content = parse_json(data, path)
        if not isinstance(content, dict) or not isinstance(content.get("format"), str):
            raise CorruptArtifactError(f"{path} is no prompt manifest; restore the prompt's folder or add it again.")
        written = content.pop("format")
        if written not in _NEWER_FIELDS:
            raise CorruptArtifactError(
                f"{path} has format {written!r} and this version reads {', '.join(_NEWER_FIELDS)}; update softprompt."
            )
        if content.pop("manifest_sha256", None) != sha256_bytes(_without_digest(data)):
            raise CorruptArtifactError(
                f"{path} is not what was written: its own digest differs; restore it from a copy."
            )
        try:
            early = sorted(_NEWER_FIELDS[written] & set(content))
            if early:
                raise CorruptArtifactError(
                    f"{path} is of format {written}, which has no field {early[0]!r}; add the prompt again."
                )
            return cls.model_validate(content)
        except ValidationError as error:
            raise CorruptArtifactError(f"{path}: {wrong_fields(error)}; add the prompt again.") from error


# By format: the fields that came only later. Manifests of all of these are read, the first is written.
_NEWER_FIELDS: dict[str, frozenset[str]] = {
    FORMAT: frozenset(),
    "softprompt-prompt/1": frozenset({"wording", "scoring"}),
}


def _without_digest(data: bytes) -> bytes:
    """The file as it was before its last entry, the digest, was added (see `Manifest.to_bytes`)."""
    return data[: data.rfind(b',\n  "manifest_sha256": ')] + b"\n}\n"


def _inert(value: Mapping[str, Any]) -> Any:
    """A mapping as it will be read back: JSON values alone."""
    return parse_json(json_bytes(value), "a record")


def make_manifest(record: PromptRecord, files: Mapping[str, str]) -> Manifest:
    """The manifest of a record whose files have these sha256 digests.

    Raises:
        UsageError: a field of the record cannot stand in a manifest.
    """
    prompt_PH = record.prompt.detach().to("cpu")
    rows = prompt_PH.double()
    facts: dict[str, float | None] = {"mean_row_norm": float(rows.norm(dim=1).mean())}
    if record.initial is not None and record.initial.shape == rows.shape:
        facts["distance_from_initial"] = float((rows - record.initial.detach().cpu().double()).norm(dim=1).mean())
    own = {field.name: getattr(record, field.name) for field in fields(record) if field.name in _SAME}
    try:
        return Manifest(
            **own,
            name=record.library_name,
            seed=int(record.seed),
            prompt_length=int(prompt_PH.shape[0]),
            width=int(prompt_PH.shape[1]),
            dtype=str(prompt_PH.dtype).removeprefix("torch."),
            scores=_inert({key: float(value) for key, value in record.scores.items()}),
            recipe=_inert(record.recipe),
            init=_inert(record.init),
            facts=facts,
            tags=tuple(record.tags),
            versions=dict(record.versions) if record.versions is not None else installed_versions(),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            files=dict(files),
            chat=None if record.chat is None else _inert(record.chat),
            data_source=_inert(record.data_source),
            wording=None if record.wording is None else _inert(record.wording),
        )
    except ValidationError as error:
        raise UsageError(f"the prompt of task {record.task!r} cannot be stored: {wrong_fields(error)}.") from error


# fields that a record and its manifest share as they are
_SAME = (
    "task", "backbone_name", "backbone_fingerprint", "backbone_kind", "data_fingerprint", "steps", "best_step",
    "embedding_step", "command", "origin", "licence", "scoring",
)  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Versions of this package and of those that decide a prompt's numbers."""
    return dict(_installed_versions())


@cache
def _installed_versions() -> dict[str, str]:
    """Read once: each package's file of facts takes milliseconds."""
    versions = {}
    for name in ("softprompt", "torch", "transformers", "tokenizers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
