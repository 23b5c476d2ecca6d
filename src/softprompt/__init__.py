"""Soft prompts on one frozen language model: tune, keep, search, transfer, serve.

The names below are imported when they are first used, so that ``import softprompt`` costs nothing. ``transfer`` is the
subpackage; the function of that name is in ``softprompt.api``, beside ``tune`` and ``search``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from softprompt.backbones.engine.native import levels as _levels

if TYPE_CHECKING:
    from softprompt.api import search, tune
    from softprompt.backbones.base import Backbone
    from softprompt.backbones.load import load_backbone
    from softprompt.batch import PromptBatch
    from softprompt.errors import SoftpromptError
    from softprompt.library.manifest import PromptRecord
    from softprompt.library.store import Library
    from softprompt.prompts.init import InitSettings
    from softprompt.prompts.prompter import Prompter
    from softprompt.prompts.stack import PromptStack
    from softprompt.tasks.catalog import load_task, task_names
    from softprompt.tasks.task import Task
    from softprompt.training.loop import train_prompts
    from softprompt.training.recipes import recipe
    from softprompt.training.settings import TrainSettings

_levels.hold()  # PyTorch reads its limits when it is loaded

__version__ = "0.1.0"
__all__ = [
    "Backbone",
    "InitSettings",
    "Library",
    "PromptBatch",
    "PromptRecord",
    "PromptStack",
    "Prompter",
    "SoftpromptError",
    "Task",
    "TrainSettings",
    "load_backbone",
    "load_task",
    "recipe",
    "search",
    "task_names",
    "train_prompts",
    "tune",
]

# public name -> the module that owns it
_OWNERS = {
    "Backbone": "softprompt.backbones.base",
    "InitSettings": "softprompt.prompts.init",
    "Library": "softprompt.library.store",
    "PromptBatch": "softprompt.batch",
    "PromptRecord": "softprompt.library.manifest",
    "PromptStack": "softprompt.prompts.stack",
    "Prompter": "softprompt.prompts.prompter",
    "SoftpromptError": "softprompt.errors",
    "Task": "softprompt.tasks.task",
    "TrainSettings": "softprompt.training.settings",
    "load_backbone": "softprompt.backbones.load",
    "load_task": "softprompt.tasks.catalog",
    "recipe": "softprompt.training.recipes",
    "search": "softprompt.api",
    "task_names": "softprompt.tasks.catalog",
    "train_prompts": "softprompt.training.loop",
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
    return sorted({*globals(), *_OWNERS})
