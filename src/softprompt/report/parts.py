"""Parts of a page: shell, tables, heatmaps, key-value lists. Every text is escaped; every table has a caption and scopes."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from softprompt.report.style import CSS, SCRIPT
from softprompt.study.tables import PENDING, Cell, Table, fixed, show


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        subtitle: plain text below it.
        sections: (id, heading, HTML) of each section; an empty heading stands without one and is not in the contents.
        footer: plain text.
    """
    links = " ".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections if name)
    body = "\n".join(
        f'<section id="{key}"' + (f' aria-labelledby="{key}-h"><h2 id="{key}-h">{escape(name)}</h2>' if name else ">")
        + f"\n{content}\n</section>"
        for key, name, content in sections
    )  # fmt: skip
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
<a class="skip" href="#content">Skip to content</a>
<header class="top"><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>
<nav class="contents" aria-label="Contents">{links}</nav>
<main id="content" tabindex="-1">
{body}
</main>
<footer>{escape(footer)}</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def table_html(table: Table, *, sortable: bool = False, lead_rows: int = 0, save: bool = True) -> str:
    """A table of results with its notes and, as links inside the page, its CSV and LaTeX.

    Args:
        table: what to show.
        sortable: whether its header cells sort it.
        lead_rows: first rows that stay on top when sorting (a baseline).
        save: whether the CSV and LaTeX links are given.
    """
    worded = [_is_text([row[i] for row in table.rows]) for i in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{" class=text" if text else ""}>'
        f"{f'<button type=button>{escape(name)}</button>' if sortable else escape(name)}</th>"
        for name, text in zip(table.columns, worded, strict=True)
    )
    rows = []
    for i, row in enumerate(table.rows):
        cells = f'<th scope="row">{escape(show(row[0]))}</th>' + "".join(
            _cell(value, text) for value, text in zip(row[1:], worded[1:], strict=True)
        )
        kinds = " ".join(word for word, here in (("lead", i < lead_rows), ("rule", i in table.rules)) if here)
        rows.append(f'<tr class="{kinds}">{cells}</tr>' if kinds else f"<tr>{cells}</tr>")
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    kind = "plain sortable" if sortable else "plain"
    return (
        f'<div class="scroll"><table class="{kind}"><caption>{escape(table.title)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><div class=notes>{notes}</div>{downloads(table) if save else ''}"
    )


def _is_text(values: Sequence[str | float | Cell | None]) -> bool:
    """Whether a column is words, to be read from the left."""
    words = [v for v in values if isinstance(v, str) and v not in ("", "–", PENDING)]
    return bool(words) and all(_as_number(v) is None and v[:1].isalpha() for v in words)


def _as_number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%").removeprefix("<"))
    except ValueError:
        return None


def _cell(value: str | float | Cell | None, worded: bool = False) -> str:
    if isinstance(value, Cell):
        if value.value is None:
            return f'<td><span class="pending">{escape(value.text())}</span></td>'
        spread = f'<span class="std">±{value.std:.1f}</span>' if value.std is not None else ""
        part = "" if value.complete else f' <span class="pending">{value.done} of {value.planned}</span>'
        shown = f' class="{value.mark}"' if value.mark in ("best", "second") else ""
        mean = f'<span class="value">{minus(show(value.value))}</span>'
        return f'<td{shown} data-v="{value.value!r}">{mean}{spread}{part}</td>'
    text = show(value)
    if text == PENDING:
        return '<td><span class="pending">pending</span></td>'
    if isinstance(value, (int, float)):
        return f'<td data-v="{value!r}">{minus(text)}</td>'
    number = _as_number(text)
    sort = "" if number is None else f' data-v="{number!r}"'
    kind = " class=text" if worded else " class=words" if number is None and text[:1].isalpha() else ""
    return f"<td{sort}{kind}>{minus(escape(text))}</td>"


def minus(text: str) -> str:
    """Numbers below zero with the sign that is as wide as a plus; words keep their hyphens."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", "\u2212", text)


def downloads(table: Table) -> str:
    """Links that save the table as CSV and LaTeX; their content is in the page."""
    links = []
    for kind, text, mime in (("csv", table.to_csv(), "text/csv"), ("tex", table.to_latex(), "application/x-tex")):
        data = base64.b64encode(text.encode()).decode()
        links.append(
            f'<a class="save" download="{escape(table.name)}.{kind}" href="data:{mime};base64,{data}" '
            f'aria-label="Save {escape(table.title)} as {kind.upper()}">{"CSV" if kind == "csv" else "LaTeX"}</a>'
        )
    return f"<p>{' '.join(links)}</p>"


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One cell of a heatmap.

    Attributes:
        value: the number; None for one that is not there yet.
        label: what is said of it on hover, on focus and to a screen reader.
        mark: ``best``, ``part`` (unfinished runs) or empty.
    """

    value: float | None
    label: str
    mark: str = ""


def heatmap(
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[HeatCell]],
    *,
    caption: str,
    scale: float | None = None,
    middle: float = 0.0,
    digits: int = 1,
    size: str = "",
    sortable: bool = True,
    before: str = "",
    legend: tuple[str, str] = ("worse than from scratch", "better"),
    rising: bool = False,
) -> str:
    """A heatmap as a table: hover or focus a cell for its numbers, move with the arrow keys, sort by rows and columns.

    Args:
        name: id in the page.
        rows: row labels.
        columns: column labels.
        cells: cells by row.
        caption: heading of the table.
        scale: distance from ``middle`` with full colour; the largest in sight where None.
        middle: the value without colour.
        digits: after the point.
        size: ``""``, ``"small"`` or ``"tiny"`` (no numbers in the cells).
        sortable: whether labels sort.
        before: HTML at the left of the table (a dendrogram).
        legend: words at both ends of the colour bar.
        rising: ``middle`` is where the scale begins: nothing is below it, and the first word of the legend stands there.
    """
    known = [abs(cell.value - middle) for row in cells for cell in row if cell.value is not None]
    full = scale or max(known, default=1.0) or 1.0
    heads = "".join(
        f'<th scope="col" class="slant" data-c="{c}">{_label(label, sortable)}</th>' for c, label in enumerate(columns)
    )
    body = []
    for r, (label, row) in enumerate(zip(rows, cells, strict=True)):
        values = [cell.value for cell in row if cell.value is not None]
        mean = sum(values) / len(values) if values else -math.inf
        inner = "".join(_heat_cell(cell, r, c, full, middle, digits) for c, cell in enumerate(row))
        mean_text = "-1e9" if math.isinf(mean) else repr(mean)
        body.append(
            f'<tr data-i="{r}" data-mean="{mean_text}"><th scope="row">{_label(label, sortable)}</th>{inner}</tr>'
        )
    tools = (
        '<div class="tools" role="group" aria-label="Order of rows"><span class="soft">Order:</span>'
        '<button type="button" data-order="given" aria-pressed="true">as given</button>'
        '<button type="button" data-order="mean" aria-pressed="false">by mean</button>'
        '<span class="soft">or choose a row or column label</span></div>'
        if sortable
        else ""
    )
    idle = "Hover over a cell, or focus the table and use the arrow keys, to read its numbers here."
    bar = (
        "bar" if known and min(c.value - middle for row in cells for c in row if c.value is not None) < 0 else "bar one"
    )
    ends = (legend[0] if bar == "bar" or rising else f"{middle:g}", legend[1])
    return (
        f'<div class="heatbox" id="{name}"><h3 id="{name}-h">{escape(caption)}</h3>{tools}<div class="scroll">'
        f'<div class="map{" tied" if before else ""}">{before}<table class="heat {size}" aria-labelledby="{name}-h"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></div>"
        f'<div class="legend" aria-hidden="true"><span>{minus(escape(ends[0]))}</span><span class="{bar}"></span>'
        f"<span>{minus(escape(ends[1]))}</span></div>"
        f'<p class="detail" aria-live="polite">{idle}</p></div>'
    )


def _label(text: str, sortable: bool) -> str:
    return f'<button type="button">{escape(text)}</button>' if sortable else f"<span>{escape(text)}</span>"


def _heat_cell(cell: HeatCell, r: int, c: int, full: float, middle: float, digits: int) -> str:
    tab = 0 if r == c == 0 else -1
    label = escape(cell.label, quote=True)
    if cell.value is None:
        return f'<td class="wait" data-c="{c}" tabindex="{tab}" aria-label="{label}">…</td>'
    away = cell.value - middle
    strength = round(min(abs(away) / full, 1.0) * 100)
    sign = "pos" if away >= 0 else "neg"
    text = minus(fixed(cell.value, digits))
    if digits == 2:  # a similarity: the zero before the point says nothing
        text = text.replace("0.", ".", 1)
    return (
        f'<td class="{sign} {cell.mark}" style="--m:{strength}" data-c="{c}" data-v="{cell.value!r}" tabindex="{tab}" '
        f'aria-label="{label}">{text}</td>'
    )


def key_values(values: Mapping[str, Any], caption: str) -> str:
    """Settings or provenance as a two-column table; nested mappings are flattened with dots."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="text"><code>{escape(text)}</code></td></tr>'
        for name, text in _flat(values)
    )
    return (
        f'<div class="scroll"><table class="plain"><caption>{escape(caption)}</caption><thead><tr><th scope="col">name</th>'
        f'<th scope="col" class="text">value</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            out += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            out.append((f"{prefix}{name}", ", ".join(str(item) for item in value) or "–"))
        else:
            words = str(value).lower() if isinstance(value, bool) else str(value)
            out.append((f"{prefix}{name}", "–" if value in (None, "") else words))
    return out


def commands(lines: Sequence[str]) -> str:
    """Commands to copy."""
    return "".join(f"<pre><code>{escape(line)}</code></pre>" for line in lines)


def headline(numbers: Sequence[tuple[str, str]]) -> str:
    """Large numbers with a word each: (number, what it is)."""
    items = "".join(f"<li><strong>{escape(n)}</strong><span>{escape(what)}</span></li>" for n, what in numbers)
    return f'<ul class="numbers">{items}</ul>'
