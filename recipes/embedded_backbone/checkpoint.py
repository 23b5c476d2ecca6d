"""A run's whole state in one folder: safetensors and JSON, written beside and renamed into place.

The folder ``state`` is either the old one or the new one, never half of one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.errors import CorruptArtifactError

_STATE = "state"


def save_state(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``facts`` as the run's newest state."""
    from safetensors.torch import save_file

    fresh, old, final = folder / f".{_STATE}.new", folder / f".{_STATE}.old", folder / _STATE
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / "tensors.safetensors"
    )
    (fresh / "facts.json").write_text(json.dumps(dict(facts), indent=1), encoding="utf-8")
    for path in (fresh / "tensors.safetensors", fresh / "facts.json", fresh):
        _fsync(path)
    if final.exists():
        final.rename(old)
    fresh.rename(final)
    _fsync(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest complete state of a run, or None where it has none."""
    from safetensors.torch import load_file

    for name in (_STATE, f".{_STATE}.old"):
        place = folder / name
        if (place / "facts.json").exists():
            try:
                return load_file(place / "tensors.safetensors"), json.loads(
                    (place / "facts.json").read_text(encoding="utf-8")
                )
            except Exception as error:
                raise CorruptArtifactError(
                    f"{place} is not the state that was written ({error}): delete it to start anew."
                ) from error
    return None


def optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors, ``prefix.index.name``."""
    state = optimiser.state_dict()["state"]
    return {
        f"{prefix}.{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for index, entry in state.items()
        for name, value in entry.items()
    }


def restore_optimiser(prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put flat tensors back into an optimiser built over the same parameters."""
    whole = optimiser.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            index, name = key[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[name] = value
    whole["state"] = state
    optimiser.load_state_dict(whole)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
