"""Soft prompts on one frozen language model: tune, keep, search, transfer, serve.

    import softprompt as sp

    backbone = sp.load_backbone("smollm2")
    task = sp.Task.from_rows(frame, text="review", label="sentiment")
    prompt = sp.tune(backbone, task)
    prompt.predict(["Never again."])

The names below are imported when they are first used, so that ``import softprompt`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from softprompt.backbones.engine.native import levels as _levels

if TYPE_CHECKING:
    from softprompt.api import adapt, search, transfer, tune
    from softprompt.backbones.load import load_backbone
    from softprompt.errors import SoftpromptError
    from softprompt.library.store import Library
    from softprompt.tasks.catalog import load_task
    from softprompt.tasks.task import Task
    from softprompt.tuned import evaluate, predict

_levels.hold()  # PyTorch reads its limits when it is loaded

__version__ = "0.1.0"
__all__ = [
    "Library",
    "SoftpromptError",
    "Task",
    "adapt",
    "evaluate",
    "load_backbone",
    "load_task",
    "predict",
    "search",
    "transfer",
    "tune",
]

# public name -> the module that owns it
_OWNERS = {
    "Library": "softprompt.library.store",
    "SoftpromptError": "softprompt.errors",
    "Task": "softprompt.tasks.task",
    "adapt": "softprompt.api",
    "evaluate": "softprompt.tuned",
    "load_backbone": "softprompt.backbones.load",
    "load_task": "softprompt.tasks.catalog",
    "predict": "softprompt.tuned",
    "search": "softprompt.api",
    "transfer": "softprompt.api",
    "tune": "softprompt.api",
}


def __getattr__(name: str) -> Any:
    try:
        owner = _OWNERS[name]
    except KeyError:
        raise AttributeError(f"module 'softprompt' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(owner), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
