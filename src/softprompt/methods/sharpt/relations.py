"""Task relations by skill use (SharPT section 4, Figure 3).

Each row's choice of a skill is a one-hot vector; a task's representation is their average over its rows, and two
tasks are related by the cosine of their representations. Letters: K skills, S rows of a task, A and B tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from softprompt.errors import DataError
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.space import Space
from softprompt.methods.sharpt.union import names_of
from softprompt.methods.sharpt.use import skill_use
from softprompt.prompts.latent import LatentPrompts
from softprompt.tasks.example import Example
from softprompt.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Relations:
    """Relations between source tasks (rows) and target tasks (columns), and what they were computed from.

    Attributes:
        sources: names of the A source tasks.
        targets: names of the B target tasks.
        cosine_AB: float64 [A, B], in 0..1.
        use: task representation (K shares that sum to 1) by task.
        rows: rows counted by task.
        categories: family of each task, e.g. ``nli``; empty where not known.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    cosine_AB: Tensor
    use: Mapping[str, tuple[float, ...]]
    rows: Mapping[str, int]
    categories: Mapping[str, str] = field(default_factory=dict)

    def nested(self) -> Relations:
        """The same with tasks of one category side by side, categories and tasks with the strongest relations first.

        A figure of it shows in blocks whether relations follow the categories, which were not used to compute them.
        """
        rows = _nested(self.sources, self.cosine_AB.mean(1).tolist(), self.categories)
        columns = _nested(self.targets, self.cosine_AB.mean(0).tolist(), self.categories)
        return replace(
            self,
            sources=tuple(self.sources[i] for i in rows),
            targets=tuple(self.targets[j] for j in columns),
            cosine_AB=self.cosine_AB[rows][:, columns],
        )

    def nearest(self, target: str, count: int = 3) -> list[tuple[str, float]]:
        """The ``count`` sources closest to a target, closest first."""
        column = self.cosine_AB[:, self.targets.index(target)]
        order = torch.argsort(column, descending=True, stable=True)[:count]
        return [(self.sources[int(i)], float(column[int(i)])) for i in order]

    def plain(self) -> dict[str, Any]:
        """For JSON, and for a heatmap: rows are sources, columns are targets."""
        return {
            "sources": list(self.sources),
            "targets": list(self.targets),
            "cosine": self.cosine_AB.tolist(),
            "use": {name: list(values) for name, values in self.use.items()},
            "rows": dict(self.rows),
            "categories": dict(self.categories),
        }


def task_encodings(encoder: CachedEncoder, space: Space, task: Task, examples: Sequence[Example]) -> Tensor:
    """Raw instance encodings [S, m] of a task's rows as the space reads them: without its name, where it leaves names out."""
    return encoder.precompute(examples, (*space.task_names, *names_of([task])) if space.task_names else ())


def task_representation(prompts: LatentPrompts, encoding_Sm: Tensor, run: int = 0) -> Tensor:
    """The average one-hot skill use of a task's rows, float64 [K], sums to 1.

    Args:
        prompts: with a latent space.
        encoding_Sm: raw instance encodings of the task's rows, [S, m].
        run: whose skills.

    Raises:
        DataError: the task has no rows.
    """
    if not len(encoding_Sm):
        raise DataError("a task without rows has no representation; give it at least one row.")
    counts = skill_use(prompts, encoding_Sm, run).counts
    return torch.tensor(counts, dtype=torch.float64) / sum(counts)


def relations(
    prompts: LatentPrompts,
    sources: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    run: int = 0,
    *,
    categories: Mapping[str, str] | None = None,
) -> Relations:
    """Relations of all pairs of a source and a target task.

    Args:
        prompts: with a latent space.
        sources: raw instance encodings [S, m] by source task.
        targets: the same by target task; a task may be on both sides.
        run: whose skills.
        categories: family of each task, for the figure.

    Raises:
        DataError: a task without rows.
    """
    encodings = {**sources, **targets}
    use = {name: task_representation(prompts, encoding_Sm, run) for name, encoding_Sm in encodings.items()}
    return Relations(
        sources=tuple(sources),
        targets=tuple(targets),
        cosine_AB=_cosine([use[name] for name in sources], [use[name] for name in targets]),
        use={name: tuple(values.tolist()) for name, values in use.items()},
        rows={name: len(encoding_Sm) for name, encoding_Sm in encodings.items()},
        categories=dict(categories or {}),
    )


def _nested(names: Sequence[str], strength: Sequence[float], categories: Mapping[str, str]) -> list[int]:
    """Places of the names, categories kept together, the strongest first on both levels."""
    own = [categories.get(name, "") for name in names]
    best: dict[str, float] = {}
    for category, value in zip(own, strength, strict=True):
        best[category] = max(best.get(category, value), value)
    return sorted(range(len(names)), key=lambda i: (-best[own[i]], own[i], -strength[i], i))


def _cosine(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    left, right = torch.stack(list(rows)), torch.stack(list(columns))
    return torch.nn.functional.normalize(left, dim=1) @ torch.nn.functional.normalize(right, dim=1).T
