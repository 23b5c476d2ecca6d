"""Studies on several backbones side by side: score against the backbone's size (SPoT Figure 1 and Table 4; SharPT Figure 2).

Every backbone has a ledger of its own; a study is recognised by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from softprompt.errors import UsageError
from softprompt.report.benchmarks import write_table
from softprompt.study.records import Floats, Results
from softprompt.study.retrieval import strategy_rows
from softprompt.study.tables import Cell, Table, summary

Point = tuple[float, float, float | None]
SCALED = {
    "from scratch": "prompt tuning",
    "sharpt": "sharpt",
    "model_tuning": "model_tuning",
    "multitask_model_tuning": "multitask_model_tuning",
}
"""Methods of SharPT's Figure 2, and multi-task model tuning: their names among `averages`, and on a study's page."""


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


def report_sizes(folders: Sequence[str | Path], out: str | Path, name: str | None = None) -> list[Path]:
    """Write the table (CSV, LaTeX) and the figure (PNG, SVG) of one study on several backbones.

    Args:
        folders: ledgers, one a backbone.
        out: folder for the files.
        name: of the study; may be left out where each ledger holds one.

    Raises:
        UsageError: a ledger without the study, or a backbone whose size was not recorded.
    """
    return write_sizes(sized_studies(folders, name), out)


def sized_studies(folders: Sequence[str | Path], name: str | None = None) -> list[Sized]:
    """One study on several backbones, smallest first; arguments and errors as those of `report_sizes`."""
    from softprompt.study.run import collect, facts_of, open_study

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


def write_sizes(studies: Sequence[Sized], out: str | Path, *, figures: bool = True) -> list[Path]:
    """The files of `report_sizes`; without the figure where it is not asked for.

    Raises:
        UsageError: a figure is asked for, and no backbone has a finished score.
    """
    from softprompt.study.curves import score_against_size

    table, series = size_table(studies), size_series(studies)
    files = write_table(table, out)
    if not figures:
        return files
    return files + [score_against_size(series, Path(out) / f"sizes.{suffix}") for suffix in ("png", "svg")]


def averages(results: Results) -> dict[str, Cell]:
    """Average score over targets by method: from scratch, each source task, the best source prompt, other methods."""
    found = {"from scratch": summary(results.baselines_TR().mean(axis=0))}
    scores: Floats = results.transfers_STR()
    found |= {f"from {source}": summary(scores[s].mean(axis=0)) for s, source in enumerate(results.sources)}
    for row in strategy_rows(results, (1,)):
        if row.strategy not in ("baseline", "random", "best_of_top_k"):
            found[f"{row.strategy}, k = {row.k}" if row.k and row.strategy != "oracle" else row.strategy] = row.average
    return found


def size_table(studies: Sequence[Sized], names: Mapping[str, str] | None = None, file: str = "sizes") -> Table:
    """Methods by backbone, smallest first (SPoT Table 4).

    Args:
        studies: from `by_size`.
        names: methods of `averages` to show, and what they are called; all where None.
        file: name of the table.
    """
    columns = [_named(averages(one.results), names) for one in studies]
    methods = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(column.get(name) for column in columns)) for name in methods]
    return Table(
        name=file,
        title="Average score over the target tasks by backbone (percent)",
        columns=("method", *(f"{one.backbone} ({one.parameters / 1e6:.0f}M)" for one in studies)),
        rows=tuple(rows),
    )


def _named(found: Mapping[str, Cell], names: Mapping[str, str] | None) -> dict[str, Cell]:
    return dict(found) if names is None else {names[name]: found[name] for name in names if name in found}


def size_series(studies: Sequence[Sized], names: Mapping[str, str] | None = None) -> Mapping[str, list[Point]]:
    """(parameters, score, standard deviation) by method; finished ones only; arguments as those of `size_table`."""
    series: dict[str, list[Point]] = {}
    for one in studies:
        for name, cell in _named(averages(one.results), names).items():
            if cell.value is not None and cell.complete:
                series.setdefault(name, []).append((float(one.parameters), cell.value, cell.std))
    return series
