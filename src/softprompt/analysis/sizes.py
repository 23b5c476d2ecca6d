"""Studies on several backbones side by side: score against the backbone's size (SPoT Figure 1 and Table 4; SharPT Figure 2).

Every backbone has a ledger of its own; a study is recognised by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softprompt.analysis.methods import Methods
from softprompt.analysis.records import Results
from softprompt.analysis.tables import Cell, Row, Table, summary
from softprompt.errors import UsageError

Point = tuple[float, float, float | None]
SCALED = ("sharpt", "model_tuning", "multitask_model_tuning", "lora", "prompt_design")
"""What stands beside prompt tuning: the methods of SharPT's Figure 2, and others that need no source prompts."""


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A study on one backbone.

    Attributes:
        backbone: name.
        parameters: stored in it.
        results: of the study.
    """

    backbone: str
    parameters: int
    results: Results


def sized_studies(folders: Sequence[str | Path], name: str | None = None) -> list[Sized]:
    """One study on several backbones, smallest first.

    Args:
        folders: ledgers, one a backbone.
        name: of the study; may be left out where each ledger holds one.

    Raises:
        UsageError: a ledger without the study, or a backbone whose size was not recorded.
    """
    from softprompt.analysis.read import collect
    from softprompt.study.reading import facts_of, open_study

    if not folders:
        raise UsageError("sizes are compared over ledgers: give at least one, one a backbone.")
    studies: list[Sized] = []
    for folder in folders:
        study, ledger, noted = open_study(folder, name)
        facts = facts_of(study, noted)
        if not facts.parameters:
            raise UsageError(f"{folder} does not say how large {facts.backbone} is: run its study again to record it.")
        studies.append(
            Sized(backbone=facts.backbone, parameters=facts.parameters, results=collect(study, ledger, facts))
        )
    return by_size(studies)


def by_size(studies: Sequence[Sized]) -> list[Sized]:
    """Smallest first.

    Raises:
        UsageError: their targets differ: an average over other tasks is another number.
    """
    tasks = {tuple(sorted(one.results.targets)): one.backbone for one in studies}
    if len(tasks) > 1:
        told = "; ".join(f"{backbone}: {', '.join(targets)}" for targets, backbone in tasks.items())
        raise UsageError(
            f"sizes are compared on the same target tasks, these studies have others ({told}): name ledgers of one."
        )
    return sorted(studies, key=lambda one: one.parameters)


def averages(results: Results) -> dict[str, Cell]:
    """Average score over targets of prompt tuning from scratch and of the methods in `SCALED` that were run."""
    found = Methods.of(results, (1,))
    others = {m.name: m.cell() for m in found.shown}
    return {"prompt tuning": found.baseline.cell(), **{name: others[name] for name in SCALED if name in others}}


def size_table(studies: Sequence[Sized]) -> Table:
    """Methods by backbone, smallest first (SPoT Table 4); ``studies`` as `by_size` gives them."""
    columns = [averages(one.results) for one in studies]
    methods = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(column.get(name) for column in columns)) for name in methods]
    return Table(
        name="model_sizes",
        title="Average score over the target tasks by backbone (percent)",
        columns=("method", *(f"{one.backbone} ({one.parameters / 1e6:.0f}M)" for one in studies)),
        rows=tuple(rows),
    )


def size_series(studies: Sequence[Sized]) -> Mapping[str, list[Point]]:
    """(parameters, score, standard deviation) by method; finished ones only."""
    series: dict[str, list[Point]] = {}
    for one in studies:
        for name, cell in averages(one.results).items():
            if cell.value is not None and cell.complete:
                series.setdefault(name, []).append((float(one.parameters), cell.value, cell.std))
    return series


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What is finished of one method on one size.

    Attributes:
        size: the column.
        arm: the row.
        parameters: of the backbone; 0 where its study has not begun.
        score: mean over the targets, over seeds; None where nothing has begun.
    """

    size: str
    arm: str
    parameters: int
    score: Cell | None


def rung(size: str, arm: str, folder: str | Path) -> Rung:
    """One part of a ladder from its ledger.

    What is averaged is what the part's study tunes: its only other method, else transfers, else runs from scratch.
    """
    from softprompt.analysis.read import collect
    from softprompt.study.ledger import Ledger
    from softprompt.study.reading import facts_of, open_study

    if not Path(folder).is_dir() or not Ledger(folder).studies():
        return Rung(size=size, arm=arm, parameters=0, score=None)
    study, ledger, noted = open_study(folder)
    facts = facts_of(study, noted)
    results = collect(study, ledger, facts)
    if study.methods:
        scores = {(one.target, one.seed): one.score for one in results.strategies if one.strategy == study.methods[0]}
    elif "transfer" in study.tuned:
        scores = {(run.target, run.seed): run.score for run in results.runs if run.source is not None}
    else:
        scores = {(run.target, run.seed): run.score for run in results.runs if run.source is None}
    table = np.array([[scores.get((target, seed), np.nan) for seed in study.seeds] for target in study.targets])
    return Rung(size=size, arm=arm, parameters=facts.parameters, score=summary(table.mean(axis=0)))


def ladder_table(rungs: Sequence[Rung], published: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Methods by size (SPoT Table 4); published rows are marked as such."""
    sizes = list(dict.fromkeys(one.size for one in rungs))
    held = {(one.arm, one.size): one.score for one in rungs}
    rows: list[Row] = [
        (f"{name}, as published", *(Cell(value=values[s]) if s in values else None for s in sizes))
        for name, values in published.items()
    ]
    rows += [(arm, *(held.get((arm, size)) for size in sizes)) for arm in dict.fromkeys(one.arm for one in rungs)]
    return Table(name="ladder", title=title, columns=("method", *sizes), rows=tuple(rows))


def ladder_series(rungs: Sequence[Rung], published: Mapping[str, Mapping[str, float]]) -> dict[str, list[Point]]:
    """(parameters, score, deviation) by method; published rows stand at the size of their column's backbone."""
    series: dict[str, list[Point]] = {}
    place: dict[str, float] = {}
    for one in sorted(rungs, key=lambda r: r.parameters):
        if one.parameters:
            place.setdefault(one.size, float(one.parameters))
        if one.score is not None and one.score.value is not None and one.score.complete:
            series.setdefault(one.arm, []).append((float(one.parameters), one.score.value, one.score.std))
    for name, values in published.items():
        points: list[Point] = [(place[size], value, None) for size, value in values.items() if size in place]
        if points:
            series[f"{name}, as published"] = points
    return series
