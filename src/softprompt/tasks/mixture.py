"""Mixtures: which tasks are mixed, and how often each is drawn (Raffel et al. 2020 section 3.5.2; SPoT section 2.1.3).

Rates are examples-proportional with an artificial size limit K, optionally flattened by a temperature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from softprompt.errors import UnknownNameError, UsageError
from softprompt.tasks.declaration import FILE

K = 2**19
"""The papers' artificial limit on a task's size."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A mixture of tasks.

    Attributes:
        name: of the mixture.
        tasks: names, each once.
        limit: K, the most examples a task counts for; None for no limit (a plain union: SharPT's sources).
        temperature: rates are raised to 1/temperature; 1 is examples-proportional, more is flatter.
        weights: fixed weights by task instead of sizes; empty for none.
    """

    name: str
    tasks: tuple[str, ...]
    limit: int | None = K
    temperature: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UsageError(f"mixture {self.name!r} has no task; name at least one.")
        twice = sorted({t for t in self.tasks if self.tasks.count(t) > 1})
        if twice:
            raise UsageError(f"mixture {self.name!r} names {', '.join(twice)} twice; name a task once.")
        if self.temperature <= 0:
            raise UsageError(f"mixture {self.name!r} has temperature {self.temperature}; it must be above 0.")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"mixture {self.name!r} has limit {self.limit}; it must be at least 1.")
        if self.weights:
            unknown = sorted(set(self.weights) ^ set(self.tasks))
            if unknown or min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0:
                raise UsageError(
                    f"mixture {self.name!r} needs one weight of at least 0 for each task"
                    + (f"; {', '.join(unknown)} differ." if unknown else ", not all 0.")
                )

    def rates(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The probability of drawing each task; they sum to 1.

        Args:
            sizes: training examples of each task, at least 1.

        Raises:
            UsageError: where a size is missing or below 1.
        """
        if self.weights:
            raw = {task: float(self.weights[task]) for task in self.tasks}
        else:
            missing = [t for t in self.tasks if sizes.get(t, 0) < 1]
            if missing:
                raise UsageError(f"mixture {self.name!r} needs the training sizes of {', '.join(missing)}.")
            raw = {t: float(sizes[t] if self.limit is None else min(sizes[t], self.limit)) for t in self.tasks}
        flat = {task: weight ** (1.0 / self.temperature) if weight else 0.0 for task, weight in raw.items()}
        total = sum(flat.values())
        return {task: weight / total for task, weight in flat.items()}


def proportional_rates(sizes: Sequence[int], *, limit: int | None = K, temperature: float = 1.0) -> tuple[float, ...]:
    """Examples-proportional rates of tasks given by size alone; see `Mixture`."""
    names = [str(i) for i in range(len(sizes))]
    mixture = Mixture(name="tasks", tasks=tuple(names), limit=limit, temperature=temperature)
    return tuple(mixture.rates(dict(zip(names, sizes, strict=True))).values())


MIXTURES: Mapping[str, Mixture] = {
    **{name: Mixture(name=name, tasks=tasks) for name, tasks in FILE["mixtures"].items()},
    **{name: Mixture(name=name, tasks=tasks, limit=None) for name, tasks in FILE["unions"].items()},
}
"""The papers' mixtures by name."""


def load_mixture(name: str) -> Mixture:
    """A mixture of the papers by name, or the user's from ``task+task`` or ``task=rate+task=rate``; a comma joins, too.

    Raises:
        UnknownNameError: with the nearest names.
        UsageError: where a rate is no number.
    """
    if name in MIXTURES:
        return MIXTURES[name]
    if "=" in name:
        weights: dict[str, float] = {}
        for part in re.split(r"[,+]", name):
            task, _, rate = part.partition("=")
            try:
                weights[task.strip()] = float(rate)
            except ValueError:
                raise UsageError(f"mixture {name!r}: the rate of {task.strip()!r} is {rate!r}, not a number.") from None
        return Mixture(name=name, tasks=tuple(weights), weights=weights)
    for separator in ("+", ","):
        if separator in name:
            return Mixture(name=name, tasks=tuple(part.strip() for part in name.split(separator)))
    raise UnknownNameError("mixture", name, MIXTURES, "Or join tasks: mnli+qqp, or mnli=7+qqp=3.")
