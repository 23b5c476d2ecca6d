"""A prompt as one plain ``.npz`` file: arrays ``prompt`` and, where there is one, ``task_embedding``, and ``about``,
a JSON text with everything else the library knows. For people without this package: ``numpy.load(path)["prompt"]``.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError, SoftpromptError
from softprompt.library.formats.npy import array_to_prompt, parse_npy
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import StoredPrompt

_LARGEST = 2**30  # bytes an array may take unpacked; a small file can claim to hold more
_KEPT = (
    "task", "seed", "backbone_name", "backbone_fingerprint", "backbone_kind", "data_fingerprint", "steps", "best_step",
    "embedding_step", "scores", "recipe", "init", "command", "origin", "licence", "tags", "versions",
    "chat", "data_source",
)  # fmt: skip


def write_npz(path: str | Path, stored: StoredPrompt) -> None:
    """Export a prompt of a library, atomically. bfloat16 becomes float32 and is turned back on import."""
    manifest = stored.manifest
    about = {key: getattr(manifest, key) for key in _KEPT} | {"name": manifest.name}
    tensors = {"prompt": stored.prompt()}
    if manifest.has_task_embedding:
        tensors["task_embedding"] = stored.task_embedding()
    about["dtypes"] = {key: str(tensor.dtype).removeprefix("torch.") for key, tensor in tensors.items()}
    arrays: dict[str, Any] = {key: _array(tensor) for key, tensor in tensors.items()}
    arrays["about"] = np.array(artifacts.json_bytes(about).decode())
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    artifacts.write_bytes(path, stream.getvalue())


def _array(tensor: Tensor) -> Any:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def npz_record(path: str | Path, task: str | None = None, *, name: str | None = None, **more: Any) -> PromptRecord:
    """A ``.npz`` file as a record for `Library.add`.

    A file exported by this package brings its facts and its backbone's fingerprint along; any other needs only an array
    ``prompt`` and stays ``unverified``.

    Args:
        path: the file.
        task: what it was tuned on; from the file where not given.
        name: name in the library; the exported one where not given.
        more: further fields of `PromptRecord`, over those in the file.

    Raises:
        DataError: absent, no array ``prompt``, or arrays of wrong dtype or shape.
        CorruptArtifactError: not a ``.npz`` file.
        NonFiniteError: NaN or infinity.
    """
    place = Path(path)
    arrays = _members(place)
    if "prompt" not in arrays:
        raise DataError(f"{place} holds {', '.join(sorted(arrays)) or 'nothing'}; an array named 'prompt' is needed.")
    about = _about(arrays.pop("about", None), place)
    tensors = {}
    for key in ("prompt", "task_embedding"):
        if key in arrays:
            tensor = array_to_prompt(parse_npy(arrays[key], place), f"{place} ({key})")
            narrow = isinstance(about.get("dtypes"), dict) and about["dtypes"].get(key) == "bfloat16"
            tensors[key] = tensor.to(torch.bfloat16) if narrow else tensor
    values: dict[str, Any] = {
        "task": place.stem,
        "backbone_name": "unknown",
        "backbone_fingerprint": None,
        "backbone_kind": "t5",
        "origin": f"npz file {place.name}",
        "name": about.get("name"),
        **{key: about[key] for key in _KEPT if key in about},
        **more,
    }
    if task is not None:
        values |= {"task": task, "name": None}
    if name is not None:
        values["name"] = name
    try:
        return PromptRecord(prompt=tensors["prompt"], task_embedding=tensors.get("task_embedding"), **values)
    except (TypeError, AttributeError) as error:
        raise CorruptArtifactError(f"{place} has an unreadable 'about' ({error}); export it again.") from error


def _members(place: Path) -> dict[str, bytes]:
    """The bytes of the arrays this package knows, unpacked."""
    data = artifacts.read_bytes(place)
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                key = info.filename.removesuffix(".npy")
                if key not in ("prompt", "task_embedding", "about"):
                    found.setdefault(key, b"")
                    continue
                with archive.open(info) as member:
                    content = member.read(_LARGEST + 1)
                if len(content) > _LARGEST:
                    raise DataError(f"{place} unpacks to more than {_LARGEST:,} bytes; it is no prompt.")
                found[key] = content
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise CorruptArtifactError(f"{place} is not a readable .npz file ({error}).") from error
    except SoftpromptError:
        raise
    except Exception as error:  # zlib, lzma and bz2 have error classes of their own
        raise CorruptArtifactError(f"{place} is not a readable .npz file ({error}).") from error
    known = {key: content for key, content in found.items() if content}
    return known or found


def _about(data: bytes | None, place: Path) -> dict[str, Any]:
    if data is None:
        return {}
    array = parse_npy(data, place)
    if array.dtype.kind != "U" or array.ndim != 0:
        raise CorruptArtifactError(f"{place} holds an 'about' that is not a text; export it again.")
    try:
        about = json.loads(str(array))
    except ValueError as error:
        raise CorruptArtifactError(f"{place} holds an 'about' that is not JSON ({error}); export it again.") from error
    if not isinstance(about, dict):
        raise CorruptArtifactError(f"{place} holds an 'about' that is not an object; export it again.")
    return about
