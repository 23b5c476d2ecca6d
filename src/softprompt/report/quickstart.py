"""The page and the tables that a quickstart ends with, from the reports of its targets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from softprompt.analysis.similarity import SIMILARITIES
from softprompt.analysis.tables import Cell, Row, Table
from softprompt.methods.spot.outcomes import TargetReport
from softprompt.report import figures as draw
from softprompt.report.heatmaps import similarity_heatmap
from softprompt.report.page import Block, Commands, FigureBlock, Section, TableBlock, Text, Values, render


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
    named = ", ".join(better)
    targets = f"{len(reports)} target{'s' if len(reports) > 1 else ''}"
    return (
        "A prompt for each target task was tuned from scratch, and from the source prompts whose task embeddings are most "
        "similar to the target's. Checkpoints and runs were chosen on one half of the validation rows; the scores, and the gain "
        "of the chosen transfer over scratch, are of the other half. The transferred prompt is delivered where it beats scratch "
        f"there beyond noise: for {len(better)} of {targets}{f' ({named})' if named else ''}."
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


def quickstart_page(result: Mapping[str, Any]) -> str:
    """A page with scores, task similarities, learning curves, settings and provenance.

    Args:
        result: plain data; every part may be left out:
            ``title``; ``subtitle``; ``summary``: paragraphs; ``examples``: rows with ``text``, ``gold``, ``before`` and ``after``; ``table``: rows as mappings from column to value, the
            first column the row's name; ``similarity``: ``sources``, ``targets`` and the matrices ``average`` and ``per_token`` (by source, then
            target); ``curves``: name to (step, score) pairs or ``{"step", "score"}`` mappings; ``settings`` and
            ``provenance``: mappings; ``next``: commands; ``notes``: lines below the table.

    Returns:
        The HTML text. A value that is None or NaN is shown as pending.
    """
    told = result.get("summary") or ()
    paragraphs = [told] if isinstance(told, str) else list(told)
    sections = [
        Section(name="summary", blocks=[Text(text=text) for text in paragraphs]),
        Section(name="scores", title="Scores", blocks=_score_blocks(result)),
        Section(name="answers", title="Answers", blocks=_answer_blocks(result.get("examples") or [])),
        Section(name="similarity", title="Task similarity", blocks=_similarity(result.get("similarity") or {})),
        Section(name="curves", title="Learning curves", blocks=_curves(result.get("curves") or {})),
        Section(
            name="next", title="What to do next", blocks=[Commands(lines=result["next"])] if result.get("next") else []
        ),
    ]
    for key, heading in (("settings", "Settings"), ("provenance", "Provenance")):
        if result.get(key):
            values = Values(title=f"{heading} of this run", values=result[key])
            sections.append(Section(name=key, title=heading, blocks=[values], folded=True))
    title = str(result.get("title") or "softprompt")
    return render(title, str(result.get("subtitle") or ""), sections, "Made by softprompt; this file needs no network.")


def _score_blocks(result: Mapping[str, Any]) -> list[Block]:
    title = "Scores in percent on validation, tuned from scratch and from transferred prompts"
    rows = result.get("table")
    return (
        [TableBlock(table=_table("scores", title, rows, result.get("notes") or ()), sortable=len(rows) > 1)]
        if rows
        else []
    )


def _answer_blocks(examples: Sequence[Mapping[str, str]]) -> list[Block]:
    title = "The first held-out rows of the first target, answered by the bare backbone and with the delivered prompt"
    return [TableBlock(table=_table("answers", title, examples, ()))] if examples else []


def _table(name: str, title: str, given: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> Table:
    rows = [dict(row) for row in given]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    body: list[Row] = [tuple(_value(row.get(name), first=i == 0) for i, name in enumerate(columns)) for row in rows]
    return Table(name=name, title=title, columns=tuple(columns), rows=tuple(body), notes=tuple(notes))


def _value(value: Any, *, first: bool = False) -> str | float | Cell | None:
    if first:
        return str(value)
    if value is None or isinstance(value, (str, Cell)):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return Cell(value=float(value[0]), std=float(value[1]))
    return float(value)


def _similarity(similarity: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for kind, words in SIMILARITIES.items():
        if similarity.get(kind) is not None:
            matrix = np.array(similarity[kind], dtype=np.float64)
            figure = similarity_heatmap(similarity["sources"], similarity["targets"], matrix, words)
            name = f"similarity-{kind}"
            blocks.append(FigureBlock(name=name, title=words.capitalize(), svg=draw.inline_svg(figure, name, words)))
    told = Text(text="How near each source's task embedding is to the target's; 1 is the same direction.")
    return [told, *blocks] if blocks else []


def _curves(curves: Mapping[str, Any]) -> list[Block]:
    drawn: dict[str, list[tuple[float, float]]] = {}
    for name, points in curves.items():
        pairs = [(p["step"], p["score"]) if isinstance(p, Mapping) else (p[0], p[1]) for p in points]
        drawn[str(name)] = [(float(x), float(y)) for x, y in pairs if y is not None]
    if not any(drawn.values()):
        return []
    title = "Validation score while tuning"
    svg = draw.inline_svg(draw.learning_curves(drawn), "learning", title)
    return [FigureBlock(name="learning", title=title, svg=svg)]
