"""The page of a quickstart or of a single transfer: one self-contained HTML file that opens without a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from softprompt.report.charts import Line, lines
from softprompt.report.parts import HeatCell, commands, heatmap, key_values, page, table_html
from softprompt.study.embeddings import SIMILARITIES
from softprompt.study.tables import Cell, Table


def quickstart_page(result: Mapping[str, Any]) -> str:
    """A page with the scores of transfers, task similarities, learning curves, settings and provenance.

    Args:
        result: plain data; every part may be left out:
            ``title``; ``subtitle``; ``summary``: paragraphs; ``table``: rows as mappings from column to value, the
            first column the row's name (target, scratch, one for each transfer, gain, seconds); ``similarity``: ``sources``, ``targets`` and the matrices ``average`` and ``per_token`` (by source, then target);
            ``curves``: name to (step, score) pairs or ``{"step", "score"}`` mappings; ``settings`` and
            ``provenance``: mappings; ``next``: commands; ``notes``: lines below the table.

    Returns:
        The HTML text. A value that is None or NaN is shown as pending.
    """
    sections: list[tuple[str, str, str]] = []
    if result.get("summary"):
        texts = result["summary"]
        paragraphs = [texts] if isinstance(texts, str) else list(texts)
        sections.append(("summary", "", key_paragraphs(paragraphs)))
    if result.get("table"):
        sections.append(("scores", "Scores", table_html(_result_table(result), sortable=len(result["table"]) > 1)))
    if result.get("similarity"):
        sections.append(("similarity", "Task similarity", _similarity(result["similarity"])))
    if result.get("curves"):
        sections.append(("curves", "Learning curves", _curves(result["curves"])))
    if result.get("next"):
        sections.append(("next", "What to do next", commands(list(result["next"]))))
    for key, heading in (("settings", "Settings"), ("provenance", "Provenance")):
        if result.get(key):
            sections.append((key, heading, key_values(result[key], f"{heading} of this run")))
    title = str(result.get("title") or "softprompt")
    return page(title, str(result.get("subtitle") or ""), sections, "Made by softprompt; this file needs no network.")


def key_paragraphs(texts: Sequence[str]) -> str:
    """Paragraphs of plain text."""
    from html import escape

    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _result_table(result: Mapping[str, Any]) -> Table:
    title = "Scores in percent on validation, tuned from scratch and from transferred prompts"
    return _table("scores", title, result["table"], result.get("notes") or ())


def _table(name: str, title: str, given: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> Table:
    rows = [dict(row) for row in given]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    body = tuple(tuple(_value(row.get(name), first=i == 0) for i, name in enumerate(columns)) for row in rows)
    return Table(name=name, title=title, columns=tuple(columns), rows=body, notes=tuple(notes))


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


def _similarity(similarity: Mapping[str, Any]) -> str:
    sources, targets = list(similarity["sources"]), list(similarity["targets"])
    parts = ["<p>How near each source's task embedding is to the target's; 1 is the same direction.</p>"]
    for kind, words in SIMILARITIES.items():
        if similarity.get(kind) is None:
            continue
        name = words.capitalize()
        cells = [
            [_similarity_cell(float(value), source, target, name) for target, value in zip(targets, row, strict=True)]
            for source, row in zip(sources, similarity[kind], strict=True)
        ]
        parts.append(
            heatmap(
                f"similarity-{kind}", sources, targets, cells, caption=name, digits=2, legend=("opposite", "alike"),
                sortable=len(sources) > 2,
            )
        )  # fmt: skip
    return f'{parts[0]}<div class="pairs">{"".join(parts[1:])}</div>'


def _similarity_cell(value: float, source: str, target: str, name: str) -> HeatCell:
    if math.isnan(value):
        return HeatCell(value=None, label=f"{source}, {target}: pending")
    return HeatCell(value=value, label=f"{source} and {target}: {name.lower()} {value:.3f}")


def _curves(curves: Mapping[str, Any]) -> str:
    series = []
    for name, points in curves.items():
        pairs = [(p["step"], p["score"]) if isinstance(p, Mapping) else (p[0], p[1]) for p in points]
        series.append(Line(name=str(name), points=[(float(x), float(y)) for x, y in pairs if y is not None]))
    return lines("learning", series, title="Validation score while tuning", x_name="steps", y_name="score (percent)")
