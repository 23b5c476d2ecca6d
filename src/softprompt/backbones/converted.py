"""Backbones whose files are not safetensors, made into a plain folder once and kept in the cache.

A folder appears whole, by one rename; a lock lets one process make it while others wait. ``converted.json`` in it says
what it was made from and holds the digest of its tensors, so that a damaged folder is noticed and made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from softprompt.artifacts import cache_folder, new_folder, sha256_bytes, sweep
from softprompt.backbones.fingerprint import digest_stored
from softprompt.errors import CorruptArtifactError

RECORD = "converted.json"
FORMAT = 1  # of what is written; folders of another format are made again

Make = Callable[[Path], Mapping[str, Any]]


def digest_cache() -> Path:
    """Where digests of large files are remembered."""
    return cache_folder("weight-digests.json")


def converted_folder(key: str, make: Make, place: Path | None = None) -> Path:
    """The folder of a converted backbone, in the cache under ``backbones/KEY``; made where it is missing or damaged.

    Args:
        key: a safe file name that is another for other source files.
        make: writes config, safetensors and tokenizer into the folder it is given, and returns what
            ``converted.json`` shall say of the source.
        place: a folder that does not exist yet, to write to instead of the cache.

    Raises:
        UsageError: ``place`` exists.
        CorruptArtifactError: what was just made does not read back.
        StorageError: it cannot be written.
    """
    if place is not None:
        return _write(place, make, replace=False)
    root = cache_folder("backbones")
    target = root / key
    if is_whole(target):
        return target
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{key}.lock"):
        if is_whole(target):  # another process made it while this one waited
            return target
        sweep(root)
        return _write(target, make, replace=True)


def _write(target: Path, make: Make, *, replace: bool) -> Path:
    with new_folder(target, replace=replace) as folder:
        record = dict(make(folder))
        record |= {"format": FORMAT, "weights": _weights(folder), "files": _small_files(folder)}
        (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if not is_whole(target):
        raise CorruptArtifactError(f"{target} does not read back as it was written: is the disk sound?")
    return target


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a conversion of today's format whose files are those that were written."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        return bool(
            record["format"] == FORMAT
            and record["files"] == _small_files(folder)
            and record["weights"] == _weights(folder)
        )
    except (OSError, ValueError, KeyError, TypeError, CorruptArtifactError):
        return False


def _weights(folder: Path) -> str:
    """Digest of the stored tensors; remembered by size and time, so that a load does not read them all again."""
    return digest_stored(sorted(folder.glob("*.safetensors")), cache=digest_cache())


def _small_files(folder: Path) -> dict[str, str]:
    found = (p for p in folder.iterdir() if p.is_file() and p.suffix != ".safetensors" and p.name != RECORD)
    return {p.name: sha256_bytes(p.read_bytes()) for p in found}
