"""What the manifest of a latent space says: every field is checked, and nothing in it is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError, wrong_fields

FORMAT = "softprompt-sharpt"
VERSION = 2
"""2 since encodings leave the task's name out; a space of version 1, which has no names to leave out, is read as it was."""
READ = (1, 2)
LARGEST_BYTES = 16 * 2**20  # of a manifest; that of a prompt holds its answers to the validation rows

_INERT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
# Printable, on one line: names go into error messages and answers of a server.
Name = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]+$"
    ),
]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class BackboneTold(BaseModel):
    """The backbone a space belongs to."""

    model_config = _INERT

    name: Name
    fingerprint: Digest
    hidden_size: Size


class EncoderTold(BaseModel):
    """The instance encoder a space was trained with."""

    model_config = _INERT

    name: Name
    fingerprint: Digest
    width: Size


class SettingsTold(BaseModel):
    """`softprompt.prompts.latent.LatentSettings`, as they are stored."""

    model_config = _INERT

    latent_space: bool
    metric: Literal["euclidean"] = "euclidean"  # of spaces from when there was another
    top_n: Size
    temperature: Positive
    skill_gradient: bool
    codebook_weight: Annotated[float, Field(ge=0)]


class SpaceManifest(BaseModel):
    """``manifest.json`` of a latent space or a prompt adapted from one; fields as in `softprompt.methods.sharpt.space.Space`."""

    model_config = _INERT

    format: Literal["softprompt-sharpt"]
    version: int
    kind: Literal["space", "prompt"]
    name: Name
    backbone: BackboneTold
    encoder: EncoderTold
    prompt_length: Size
    skill_count: Annotated[int, Field(ge=0)]
    settings: SettingsTold
    spread: Positive
    scales: Mapping[Literal["skills", "position", "w1", "b1", "w2", "b2", "task_prompt"], Positive]
    task_names: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()
    wording: Mapping[str, JsonValue] | None = None
    training: Mapping[str, JsonValue]
    versions: Mapping[str, str]
    sha256: Annotated[Mapping[Literal["space.safetensors"], Digest], Field(min_length=1)]


def read_manifest(path: Path) -> SpaceManifest:
    """Reads and checks a manifest.

    Raises:
        DataError: it is of something else, or of a version that is not read here.
        CorruptArtifactError: a field is missing, unknown or wrong, by name.
    """
    if path.stat().st_size > LARGEST_BYTES:
        raise CorruptArtifactError(
            f"{path} has {path.stat().st_size:,} bytes; a manifest has at most {LARGEST_BYTES:,}: train the space again."
        )
    content: Any = artifacts.read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(
            f"{path.parent} does not hold a latent space: its manifest is of another kind; give a space's folder."
        )
    if content.get("version") not in READ:
        raise DataError(
            f"latent space {path.parent} is of version {content.get('version')}, this program reads version "
            f"{' and '.join(map(str, READ))}; install the version that wrote it."
        )
    try:
        return SpaceManifest.model_validate_json(artifacts.json_bytes(content))
    except ValidationError as error:
        raise CorruptArtifactError(
            f"latent space {path.parent}: {wrong_fields(error)}; restore it or train it again."
        ) from error
