"""Reading a prompt's folder: every byte compared with the manifest, every tensor looked at before it is used.

A folder may be replaced while it is read. Its manifest and its files then belong to two prompts, which is no damage: what
was read is read again with the new manifest (`steady`). Only a folder that stays as it is can be called damaged.

Letters: P prompt tokens, H width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError, SoftpromptError, some
from softprompt.library.folders import Folders
from softprompt.library.manifest import Manifest
from softprompt.library.metric import METRICS
from softprompt.library.record import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    EMBEDDING_TENSOR,
    MANIFEST,
    PROMPT_TENSOR,
    TASK_EMBEDDING,
    TASK_VECTORS,
    check_prompt,
)
from softprompt.library.similarity import task_vector

T = TypeVar("T")

_PATIENCE_S = 10.0  # with a folder that is replaced each time it is read
_GONE = 12  # times its manifest may be missing in a row: 1.6 seconds
_ROUNDING = 1e-5  # of vectors kept in float32


def read_manifest(folders: Folders, name: str) -> Manifest:
    """The manifest of a prompt.

    Raises:
        DataError: there is none.
        CorruptArtifactError: it is not what was written, or that of another prompt.
    """
    place = folders.show(name, MANIFEST)
    manifest = Manifest.from_bytes(folders.read(name, MANIFEST), place)
    if manifest.name != name:
        raise CorruptArtifactError(
            f"{place} is that of prompt {manifest.name!r}; the folder was renamed: name it so again, or import it anew."
        )
    return manifest


def steady(folders: Folders, manifest: Manifest, read: Callable[[Manifest], T]) -> tuple[Manifest, T]:
    """What ``read`` makes of a prompt, and the manifest it belongs to: the given one, or a newer one of the same name.

    Where ``read`` fails and the folder's manifest has changed, or is gone for a moment, the folder was being replaced: it
    is read again.

    Raises:
        CorruptArtifactError: it is not what its manifest says, and nobody is replacing it.
        DataError: it was removed, or is replaced without end.
    """
    end = time.monotonic() + _PATIENCE_S
    gone = 0
    while True:
        version = folders.version(manifest.name)
        try:
            return manifest, read(manifest)
        except SoftpromptError as error:
            try:
                now = read_manifest(folders, manifest.name)
            except DataError:  # removed, or about to be written anew where a store cannot do both at once
                gone += 1
                if gone > _GONE:
                    raise
                time.sleep(0.02 * gone)
                continue
            if now == manifest and folders.version(manifest.name) == version:
                raise
            if time.monotonic() > end:
                place = folders.show(manifest.name)
                raise DataError(
                    f"{place} was replaced each time it was read; try again when it is left alone."
                ) from error
            manifest, gone = now, 0


def read_steadily(folders: Folders, name: str, read: Callable[[Manifest], T]) -> T:
    """`steady` from a prompt's name."""
    return steady(folders, read_manifest(folders, name), read)[1]


def read_checked(folders: Folders, manifest: Manifest, file: str) -> bytes:
    """A file's bytes, compared with the manifest.

    Raises:
        CorruptArtifactError: the manifest does not list it, or its bytes are not those that were written.
    """
    place = folders.show(manifest.name, file)
    if file not in manifest.files:
        raise CorruptArtifactError(f"{place} is not listed in its manifest; it was not opened.")
    data = folders.read(manifest.name, file)
    artifacts.check_sha256(data, manifest.files[file], place)
    return data


def read_prompt(folders: Folders, manifest: Manifest) -> Tensor:
    """The soft prompt [P, H] in its stored dtype, finite, on the CPU.

    Raises:
        CorruptArtifactError: it is not what the manifest says.
        DataError, NonFiniteError: it is no prompt.
    """
    prompt_PH = _only_tensor(folders, manifest, ADAPTER_MODEL, PROMPT_TENSOR)
    found = (*prompt_PH.shape, str(prompt_PH.dtype).removeprefix("torch."))
    told = (manifest.prompt_length, manifest.width, manifest.dtype)
    if found != told:
        raise CorruptArtifactError(
            f"{folders.show(manifest.name, ADAPTER_MODEL)} holds a prompt of shape {list(found[:-1])} in {found[-1]}, its "
            f"manifest says {list(told[:-1])} in {told[-1]}; restore it from a copy."
        )
    return prompt_PH


def read_embedding(folders: Folders, manifest: Manifest) -> Tensor:
    """The task embedding [P, H], finite; its P may differ from the prompt's.

    Raises:
        CorruptArtifactError: it is not what was written, or of another width than the prompt.
        DataError, NonFiniteError: it is no prompt.
    """
    key_PH = _only_tensor(folders, manifest, TASK_EMBEDDING, EMBEDDING_TENSOR)
    if key_PH.shape[1] != manifest.width:
        raise CorruptArtifactError(
            f"{folders.show(manifest.name, TASK_EMBEDDING)} has width {key_PH.shape[1]}, its prompt {manifest.width}; "
            "restore it from a copy."
        )
    return key_PH


def _only_tensor(folders: Folders, manifest: Manifest, file: str, tensor: str) -> Tensor:
    place = folders.show(manifest.name, file)
    tensors = artifacts.parse_tensors(read_checked(folders, manifest, file), place)
    if set(tensors) != {tensor}:
        raise CorruptArtifactError(
            f"{place} holds the tensors {', '.join(sorted(tensors)[:5]) or 'none'}, {tensor!r} alone belongs there; add the "
            "prompt again."
        )
    check_prompt(tensors[tensor], f"{file} of prompt {manifest.name!r}")
    return tensors[tensor]


def read_task_vectors(folders: Folders, manifest: Manifest) -> dict[str, Tensor]:
    """The float32 [H] vector of a prompt under each metric (see `similarity.task_vector`), finite and at most of length 1.

    Raises:
        CorruptArtifactError: they are not; longer vectors would rank first everywhere.
    """
    place = folders.show(manifest.name, TASK_VECTORS)
    vectors = artifacts.parse_tensors(read_checked(folders, manifest, TASK_VECTORS), place)
    if set(vectors) != set(METRICS):
        raise CorruptArtifactError(f"{place} does not hold the vectors {', '.join(METRICS)}; add the prompt again.")
    for metric, vector_H in vectors.items():
        if vector_H.shape != (manifest.width,) or vector_H.dtype != torch.float32:
            raise CorruptArtifactError(
                f"{place} holds no {metric} vector of {manifest.width} float32 numbers; add the prompt again."
            )
        length = float(vector_H.double().norm())
        if not length <= 1 + _ROUNDING:  # NaN as well
            raise CorruptArtifactError(
                f"{place} holds a {metric} vector of length {length:.4g}; vectors of similarities are finite and at most 1 "
                "long: it was not ranked, add the prompt again."
            )
    return vectors


def check_vectors(folders: Folders, manifest: Manifest, vectors: dict[str, Tensor]) -> None:
    """Compares a prompt's vectors, each [H], with the embedding [P, H] that they are derived from.

    Raises:
        CorruptArtifactError: they are those of something else.
    """
    key_PH = (read_embedding if manifest.has_task_embedding else read_prompt)(folders, manifest)
    for metric in METRICS:
        derived_H = task_vector(key_PH, metric)
        if not torch.allclose(vectors[metric].double(), derived_H, rtol=0.0, atol=_ROUNDING):
            raise CorruptArtifactError(
                f"{folders.show(manifest.name, TASK_VECTORS)} holds a {metric} vector that its "
                f"{'task embedding' if manifest.has_task_embedding else 'prompt'} does not give; add the prompt again."
            )


def strange_files(folders: Folders, manifest: Manifest) -> list[str]:
    """The files of a prompt's folder that its manifest does not list; none belongs there."""
    return sorted(set(folders.files(manifest.name)) - {*manifest.files, MANIFEST})


def refuse_strange_files(folders: Folders, manifest: Manifest) -> None:
    """Raises CorruptArtifactError where a prompt's folder holds other files than its manifest lists."""
    strange = strange_files(folders, manifest)
    if strange:
        shown = some(strange)
        raise CorruptArtifactError(
            f"{folders.show(manifest.name)} holds {shown}, which a prompt's folder does not have: delete what is not listed "
            "in its manifest."
        )


def problems_of(folders: Folders, name: str) -> list[str]:
    """Everything that is wrong with a prompt's folder after reading all of it; empty where nothing is."""

    def checked(manifest: Manifest) -> None:
        found: list[str] = []
        for check in (*(_digest_check(file) for file in manifest.files), refuse_strange_files):
            _note(found, lambda check=check: check(folders, manifest))  # type: ignore[misc]
        if not found:  # what the bytes say is looked at only where they are those that were written
            for check in (_check_config, read_prompt, _check_key):
                _note(found, lambda check=check: check(folders, manifest))  # type: ignore[misc]
        if found:
            raise _Problems(found)

    try:
        read_steadily(folders, name, checked)
    except _Problems as error:
        return error.found
    except SoftpromptError as error:
        return [str(error)]
    return []


class _Problems(SoftpromptError):
    def __init__(self, found: list[str]) -> None:
        super().__init__("; ".join(found))
        self.found = found


def _note(found: list[str], check: Callable[[], object]) -> None:
    try:
        check()
    except SoftpromptError as error:
        found.append(str(error))


def _digest_check(file: str) -> Callable[[Folders, Manifest], object]:
    return lambda folders, manifest: read_checked(folders, manifest, file)


def _check_config(folders: Folders, manifest: Manifest) -> None:
    place = folders.show(manifest.name, ADAPTER_CONFIG)
    config = artifacts.parse_json(read_checked(folders, manifest, ADAPTER_CONFIG), place)
    told = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": manifest.prompt_length, "token_dim": manifest.width}
    wrong = [key for key, value in told.items() if not isinstance(config, dict) or config.get(key) != value]
    if wrong:
        raise CorruptArtifactError(
            f"{place} says something else than the manifest under {', '.join(wrong)}; add the prompt again."
        )


def _check_key(folders: Folders, manifest: Manifest) -> None:
    check_vectors(folders, manifest, read_task_vectors(folders, manifest))
