"""Rows of the tables that a quickstart ends with, from the reports of its targets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from softprompt.methods.spot.settings import TargetReport


def table_row(report: TargetReport) -> dict[str, Any]:
    """One line of the final table: scores in percent on the reporting rows, gain in points over the chosen scratch."""
    row: dict[str, Any] = {"target": report.target}
    for outcome in report.outcomes:
        row[outcome.strategy] = outcome.score
    best = max(report.outcomes[1:], key=lambda o: o.select_score, default=None)
    found = best.versus_scratch if best is not None else None
    row["chosen"] = best.strategy if best is not None else "scratch"
    row["from"] = ", ".join(name for name, _ in best.sources) if best is not None else ""
    row["gain"] = found["gain"] if found else 0.0
    row["interval"] = f"{found['low']:+.1f} to {found['high']:+.1f}" if found else ""
    row["delivered"] = report.delivered
    row["seconds"] = sum(outcome.seconds for outcome in report.outcomes)
    return row


def score_rows(reports: Sequence[TargetReport]) -> list[dict[str, Any]]:
    """The final table as it is shown: of the gain its interval, and of each target what is delivered."""
    found = [o.versus_scratch for report in reports for o in report.outcomes if o.versus_scratch]
    gain = f"gain ({100 * found[0]['level']:.0f} %)" if found else "gain"
    rows = []
    for report, row in ((report, table_row(report)) for report in reports):
        scores = {o.strategy.replace("_", " "): o.score for o in report.outcomes}
        words = f"{row['gain']:+.1f} ({row['interval']})" if row["interval"] else "-"
        rows.append({"target": report.target, **scores, gain: words, "delivered": report.delivered})
    return rows


def summary(reports: Sequence[TargetReport]) -> str:
    """What was done and what came of it, for a reader who sees it for the first time."""
    better = [report.target for report in reports if report.delivered != "scratch"]
    targets = f"{len(reports)} target{'s' if len(reports) > 1 else ''}"
    return (
        "A prompt for each target task was tuned from scratch, and from the source prompts whose task embeddings are most "
        "similar to the target's. Checkpoints and runs were chosen on one half of the validation rows; the scores, and the gain "
        "of the chosen transfer over scratch, are of the other half. It is delivered where it beats scratch there beyond "
        "noise: "
        f"{', '.join(better) or 'nowhere'} ({len(better)} of {targets})."
    )


def similarity_matrices(reports: Sequence[TargetReport]) -> dict[str, Any]:
    """Both similarities as sources x targets matrices; None where a source has no task embedding."""
    names = sorted({str(row["name"]) for report in reports for row in report.ranking})
    found = {(str(row["name"]), report.target): row for report in reports for row in report.ranking}
    matrices: dict[str, Any] = {"sources": names, "targets": [report.target for report in reports]}
    for metric in ("average", "per_token"):
        matrices[metric] = [[found.get((n, r.target), {}).get(metric) for r in reports] for n in names]
    return matrices


def table_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """The table as CSV; columns in the order of first appearance."""
    columns = list(dict.fromkeys(key for row in table for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()
