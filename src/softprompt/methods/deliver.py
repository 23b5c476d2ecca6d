"""Several methods on one target, judged by one guard: what is delivered, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from softprompt.backbones.base import Backbone
from softprompt.methods.method import Method, Result, Target, Work, compare_runs, halved
from softprompt.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What several methods gave on one target.

    Attributes:
        target: its task.
        results: one a method, the one that is compared with first.
        delivered: name of the method whose prompt holds up.
        verdict: one sentence on why.
    """

    target: str
    results: tuple[Result, ...]
    delivered: str
    verdict: str

    @property
    def result(self) -> Result:
        """The delivered method's."""
        return next(result for result in self.results if result.strategy == self.delivered)


def deliver(
    backbone: Backbone,
    task: Task,
    methods: Sequence[Method],
    *,
    seeds: Sequence[int] = (1,),
    work: Work | None = None,
    level: float = 0.9,
    train_rows: int | None = None,
    validation_rows: int | None = None,
) -> Delivery:
    """Run methods on one target and deliver the one that beats the first of them beyond noise.

    Choices are made on one half of the validation rows, the same for all methods; the other half compares, row by row.

    Args:
        backbone: frozen.
        task: the target.
        methods: the one to beat first, usually prompt tuning from scratch.
        seeds: of every method's runs.
        work: where runs are made; in memory where None. Each method has a folder of its name in it.
        level: coverage of the guard's interval, in (0, 1).
        train_rows: at most this many training rows.
        validation_rows: likewise.
    """
    place = work or Work(backbone=backbone)
    results: list[Result] = []
    for method in methods:
        data = method.encode(backbone, task, train_rows=train_rows, validation_rows=validation_rows)
        select, report = halved(data)
        target = Target(data=data, select=select, report=report)
        own = replace(place, folder=None if place.folder is None else place.folder / method.name)
        found = method.run(own, target, seeds)
        if results:
            compared = compare_runs(target, found.chosen, results[0].chosen, backbone, level=level)
            found.versus_scratch = compared.plain()
        results.append(found)
    delivered, verdict = verdict_of(results)
    return Delivery(target=task.name, results=tuple(results), delivered=delivered, verdict=verdict)


def verdict_of(results: Sequence[Result]) -> tuple[str, str]:
    """Which strategy's prompt is delivered, and one sentence on why.

    The strategy is chosen by the selecting half; the reporting half then has to confirm that it beats scratch.
    """
    base = results[0]
    others = list(results[1:])
    if not others:
        return base.strategy, "no transfer was tried; the prompt from scratch is delivered."
    best = max(others, key=lambda o: o.select_score)
    found = best.versus_scratch
    if found is None:
        return base.strategy, f"{best.strategy} chose the same run as scratch; the prompt from scratch is delivered."
    what = (
        f"{best.strategy} scores {best.score:.1f} against {base.score:.1f} from scratch on {found['rows']} held-out "
        f"rows ({found['gain']:+.1f}, {100 * found['level']:.0f} % interval {found['low']:+.1f} to {found['high']:+.1f})"
    )
    if found["better"]:
        return best.strategy, f"{what}: better beyond noise, delivered."
    if found["worse"]:
        return base.strategy, f"{what}: transfer hurts here, the prompt from scratch is delivered."
    return base.strategy, f"{what}: not beyond noise, the prompt from scratch is delivered."
