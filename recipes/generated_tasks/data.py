"""Word lists, sentence frames and stories of the generated tasks, from the files in ``data/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generated_tasks.draw import Frames

FOLDER = Path(__file__).parent / "data"


def data_of(name: str) -> dict[str, Any]:
    """What one module of the family draws from, by the constants' names."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def frames_of(told: Mapping[str, Sequence[str]]) -> Frames:
    """Sentence structures of both sides."""
    return Frames(train=tuple(told["train"]), held_out=tuple(told["held_out"]))


def frozen(value: Any) -> Any:
    """Plain data with tuples for its lists."""
    if isinstance(value, list):
        return tuple(frozen(part) for part in value)
    if isinstance(value, dict):
        return {name: frozen(part) for name, part in value.items()}
    return value
