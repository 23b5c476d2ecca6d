"""A ladder of model sizes as a table and a figure: score against parameters for every method (SPoT Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softprompt.analysis.tables import Table, summary
from softprompt.baselines.ladder import figure_series, seed_means
from softprompt.errors import UsageError
from softprompt.report.page import write_table

MIB = 2**20


def ladder_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """A row a method and backbone: score, parameters tuned and stored, seconds and memory.

    The score is the mean over the seeds of a seed's mean over all tasks; a seed that lacks a task is not finished.
    """
    tasks = list(dict.fromkeys(r["task"] for r in records))
    seeds = sorted({r["seed"] for r in records})
    sizes = {r["backbone"]: r["parameters"] for r in records}
    rows: list[tuple[Any, ...]] = []
    for method in dict.fromkeys(r["method"] for r in records):
        for backbone in sorted(sizes, key=lambda name: sizes[name]):
            own = [r for r in records if r["method"] == method and r["backbone"] == backbone]
            score = summary(seed_means(records, method, backbone), planned=len(seeds))
            rows.append((method, backbone, sizes[backbone], score, *_costs(own, sizes[backbone])))
    tasks_word = "task" if len(tasks) == 1 else "tasks"
    return Table(
        name="ladder",
        title=f"Score (percent) by method and backbone, mean over {len(tasks)} {tasks_word}: {', '.join(tasks)}",
        columns=(
            "method", "backbone", "parameters", "score", "tuned parameters", "times fewer", "stored bytes", "seconds",
            "peak MiB",
        ),
        rows=tuple(rows),
        notes=(
            f"Mean and sample standard deviation over seeds {', '.join(map(str, seeds))}. Tuned and stored: for each task. "
            "Seconds: mean of a run's training and validation. Peak: the most memory of a run, on the GPU where there is "
            "one, else of the whole process.",
        ),
    )  # fmt: skip


def _costs(own: Sequence[Mapping[str, Any]], parameters: int) -> tuple[Any, ...]:
    """Tuned parameters, how many times fewer than all, bytes stored, seconds and MiB at the peak; pending without a cell."""
    if not own:
        return (None,) * 5
    tuned = max(r["tuned_parameters"] for r in own)
    return (
        tuned,
        f"{parameters / tuned:,.0f}" if tuned else "none tuned",
        max(r["stored_bytes"] for r in own),
        float(np.mean([r["seconds"] for r in own])),
        max(r["peak_bytes"] for r in own) / MIB,
    )


def report_ladder(
    records: Sequence[Mapping[str, Any]], out: str | Path, *, figures: bool = True
) -> tuple[Table, list[Path]]:
    """Write the table (CSV, LaTeX) and, where a method has a finished point, the figure (PNG, SVG).

    Raises:
        UsageError: there is no record, or figures are asked for and matplotlib is not installed.
    """
    from softprompt.report.figures import save, score_against_size

    if not records:
        raise UsageError("a ladder without a finished cell has nothing to report: run it first.")
    table = ladder_table(records)
    files = write_table(table, out)
    series = {name: points for name, points in figure_series(records).items() if points}
    if figures and series:
        figure = score_against_size(series)
        files += [save(figure, Path(out) / f"ladder.{suffix}") for suffix in ("png", "svg")]
    return table, files
