"""Checkpoints of a training group: one folder a save, complete or absent, the last two kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, SoftpromptError

KEPT = 2


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("step-*") if path.is_dir())


def save(root: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Path:
    """Write tensors of any shape as ``root/step-########``, atomically, and drop all but the last two."""
    tensor_file = artifacts.tensor_bytes(tensors)
    state = {"sha256": artifacts.sha256_bytes(tensor_file), "state": dict(plain)}
    target = root / f"step-{int(plain['step']):09d}"
    files = {"state.safetensors": tensor_file, "state.json": artifacts.json_bytes(state, sealed=True)}
    with artifacts.storage(target, len(tensor_file)):
        root.mkdir(parents=True, exist_ok=True)
        artifacts.write_folder(target, files, replace=True)
        for old in _folders(root)[:-KEPT]:
            artifacts.remove_folder(old)
    return target


def load_last(root: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest complete checkpoint, tensors in the shapes they were saved in, or None where there is none.

    Raises:
        CorruptArtifactError: its bytes are not those that were written.
    """
    folders = _folders(root) if root.is_dir() else []
    if not folders:
        return None
    folder = folders[-1]
    try:
        record = artifacts.read_json(folder / "state.json")
        if not isinstance(record, dict) or record.keys() != {"sha256", "state"}:
            raise CorruptArtifactError(f"{folder / 'state.json'} does not hold what a checkpoint does.")
        return artifacts.read_tensors(folder / "state.safetensors", sha256=str(record["sha256"])), record["state"]
    except SoftpromptError as error:
        raise CorruptArtifactError(
            f"checkpoint {folder} does not hold what was written ({str(error).rstrip('.')}): delete that folder to resume "
            "from the one before."
        ) from error
