"""Built-in generated tasks with known kinship, for the quickstart, the tests and the tutorials; docs/builtin-tasks.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from softprompt.tasks.generated.family import RECIPES, Recipe
from softprompt.tasks.generated.kinship import DECOYS, DEMO_SOURCES, DEMO_TARGETS, FAMILIES, KINSHIP
from softprompt.tasks.task import Task

__all__ = ["DECOYS", "DEMO_SOURCES", "DEMO_TARGETS", "FAMILIES", "GENERATED", "KINSHIP", "RECIPES_BY_NAME"]

RECIPES_BY_NAME: Mapping[str, Recipe] = {recipe.name: recipe for recipe in RECIPES}

#: Name -> a function that makes the task.
GENERATED: Mapping[str, Callable[[], Task]] = {name: recipe.task for name, recipe in RECIPES_BY_NAME.items()}
