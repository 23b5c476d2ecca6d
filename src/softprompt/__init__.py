"""Soft prompts on one frozen language model: tune, keep, search, transfer, serve.

The names below are imported when they are first used, so that ``import softprompt`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> the module that owns it
_OWNERS = {
    "load_backbone": "softprompt.backbones.load",
    "Backbone": "softprompt.backbones.base",
    "load_task": "softprompt.tasks.catalog",
    "task_names": "softprompt.tasks.catalog",
    "Task": "softprompt.tasks.task",
    "PromptStack": "softprompt.prompts.stack",
    "PromptBatch": "softprompt.prompts.batch",
    "Prompter": "softprompt.prompts.batch",
    "SoftpromptError": "softprompt.errors",
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
    return sorted({*globals(), *_OWNERS})
