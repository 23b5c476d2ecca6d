"""SPoT Table 1: the average over GLUE's and SuperGLUE's tasks, from scratch and from each source prompt (generic SPoT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from softprompt.analysis.records import Floats, Results
from softprompt.analysis.tables import Cell, Row, Table, summary
from softprompt.errors import UsageError
from softprompt.tasks.mixture import MIXTURES

BENCHMARKS = {"GLUE": "glue", "SuperGLUE": "superglue"}
LEAST = 3
"""Fewer targets than this do not stand for a benchmark."""


def benchmark_targets(targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The study's targets of each benchmark that has at least `LEAST` of them.

    RTE is in both benchmarks. Where a study has one form of it alone, that one stands for both, as in the paper's study.
    """
    groups = {}
    for name, mixture in BENCHMARKS.items():
        tasks = set(MIXTURES[mixture].tasks)
        if not {"rte", "glue_rte"} <= set(targets):
            tasks |= {"rte", "glue_rte"}
        found = tuple(target for target in targets if target in tasks)
        if len(found) >= LEAST:
            groups[name] = found
    return groups


def benchmark_table(results: Results) -> Table | None:
    """Averages over each benchmark's targets, a row from scratch and one a source; None where the targets are others.

    A run's average is over all of the benchmark's targets in the study. A seed that lacks one of them is not averaged
    over the rest: its cell says how many seeds are finished, or that none is.
    """
    return joint_table({"": results}) if benchmark_targets(results.targets) else None


def joint_table(studies: Mapping[str, Results]) -> Table:
    """The same over several studies with the same targets: the paper's "- longer tuning" is a study with fewer steps.

    Args:
        studies: results by what their rows are marked with; empty for none.

    Raises:
        UsageError: a study whose targets are not the benchmarks', or not the other studies'.
    """
    groups = _common_groups(studies)
    names, cells = [], []
    for mark, results in studies.items():
        columns = [[results.targets.index(target) for target in own] for own in groups.values()]
        starts = ["from scratch", *(f"from {source}" for source in results.sources)]
        names += [f"{start} ({mark})" if mark else start for start in starts]
        cells.append([_scratch(results, own) for own in groups.values()])
        cells += [[_average(scores_TR[own]) for own in columns] for scores_TR in results.transfers_STR()]
    best = [_best([row[c] for row in cells]) for c in range(len(groups))]
    rows: list[Row] = []
    for r, (name, row) in enumerate(zip(names, cells, strict=True)):
        rows.append((name, *(_marked(cell, r == best[c]) for c, cell in enumerate(row))))
    return Table(
        name="benchmarks",
        title="Generic SPoT: average score over the benchmarks' target tasks (percent)",
        columns=("start", *(f"{name} ({_share(name, own)})" for name, own in groups.items())),
        rows=tuple(rows),
        notes=tuple(f"{name}: {', '.join(own)}." for name, own in groups.items()),
    )


def _common_groups(studies: Mapping[str, Results]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for mark, results in studies.items():
        own = benchmark_targets(results.targets)
        if not own:
            raise UsageError(
                f"study {mark or 'at hand'} has fewer than {LEAST} targets of GLUE and of SuperGLUE "
                f"({', '.join(results.targets)}): name a study with more of them, e.g. generic-spot."
            )
        if groups and {name: set(tasks) for name, tasks in own.items()} != {n: set(t) for n, t in groups.items()}:
            raise UsageError(
                f"study {mark} has other benchmark targets ({', '.join(results.targets)}) than the first: averages over "
                "other tasks do not compare; name studies with the same targets."
            )
        groups = groups or own
    return groups


def _scratch(results: Results, own: Sequence[str]) -> Cell:
    """From scratch, over all seeds that any of the group's targets has, further ones included."""
    scores = {(run.target, run.seed): run.score for target in own for run in results.scratch(target)}
    seeds = sorted({seed for _, seed in scores} | set(results.seeds))
    return _average(np.array([[scores.get((target, seed), np.nan) for seed in seeds] for target in own]))


def _average(scores_GR: Floats) -> Cell:
    """Mean and spread over seeds of a group's mean; NaN in any target leaves the seed out."""
    return summary(scores_GR.mean(axis=0))


def _share(name: str, own: Sequence[str]) -> str:
    whole = len(MIXTURES[BENCHMARKS[name]].tasks)
    return f"{whole} tasks" if len(own) == whole else f"{len(own)} of {whole} tasks"


def _best(cells: Sequence[Cell]) -> int:
    """The row with the highest average; -1 while any row is not finished."""
    values = [cell.value for cell in cells if cell.value is not None and cell.complete]
    return int(np.argmax(values)) if len(values) == len(cells) else -1


def _marked(cell: Cell, best: bool) -> Cell:
    return Cell(value=cell.value, std=cell.std, done=cell.done, planned=cell.planned, mark="best") if best else cell


def ledger_table(folder: str | Path, names: Sequence[str] = ()) -> Table:
    """GLUE and SuperGLUE averages of studies in one ledger; rows of all but the first are marked with their study.

    Args:
        folder: of the ledger.
        names: of the studies, the main one first; may be left out where the ledger holds one.

    Raises:
        UsageError: the ledger lacks a study, or their targets are not the same benchmarks'.
    """
    from softprompt.analysis.read import collect
    from softprompt.study.reading import facts_of, open_study

    studies = {}
    for i, name in enumerate(names or (None,)):
        study, ledger, noted = open_study(folder, name)
        mark = study.name if i else ""
        if mark in studies:
            raise UsageError(f"study {study.name} is named twice: name each once.")
        studies[mark] = collect(study, ledger, facts_of(study, noted))
    return joint_table(studies)
