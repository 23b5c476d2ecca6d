"""Published means as results: what the analysis makes of a paper's own table."""

from __future__ import annotations

import csv
from pathlib import Path

from softprompt.analysis.records import Results, RunScore

TABLE_6 = Path(__file__).parents[2] / "docs" / "published" / "spot_table6.csv"


def read_table(path: Path = TABLE_6) -> Results:
    """Results from a table of means (columns source, target, mean; source ``baseline`` for no transfer), one run each with seed 0."""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    runs = [
        RunScore(
            target=row["target"], seed=0, score=float(row["mean"]),
            source=None if row["source"] == "baseline" else (row["source"], 0),
        )
        for row in rows
    ]  # fmt: skip
    sources = tuple(dict.fromkeys(run.source[0] for run in runs if run.source is not None))
    targets = tuple(dict.fromkeys(run.target for run in runs))
    return Results(sources=sources, targets=targets, seeds=(0,), runs=tuple(runs))
