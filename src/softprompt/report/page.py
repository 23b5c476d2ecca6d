"""Pages from one template: what stands in a section, and how a table's cells are read. Every text is escaped by the template.

A page is one file that needs no network. jinja2 is imported when a page is made.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from softprompt import artifacts
from softprompt.analysis.tables import NOT_MEASURED, PENDING, Cell, Table, show
from softprompt.analysis.verdict import Verdict
from softprompt.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; ``warn`` sets it apart, ``soft`` steps it back."""

    kind: ClassVar[str] = "text"
    text: str
    style: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Questions with their answers, and what so many targets can show."""

    kind: ClassVar[str] = "verdicts"
    found: Sequence[Verdict]
    strength: str


@dataclass(frozen=True, kw_only=True)
class TableBlock:
    """A table of results, with links that save it as CSV and LaTeX.

    Attributes:
        table: what to show.
        sortable: whether its header cells sort it.
        lead: first rows that stay on top when sorting (a baseline).
    """

    kind: ClassVar[str] = "table"
    table: Table
    sortable: bool = False
    lead: int = 0

    def head(self) -> list[tuple[str, str]]:
        """(name, class) of every column; words are read from the left."""
        columns = range(len(self.table.columns))
        return [
            (self.table.columns[i], "words" if _is_words([row[i] for row in self.table.rows]) else "") for i in columns
        ]

    def body(self) -> list[tuple[str, str, list[dict[str, str]]]]:
        """(class, label, cells) of every row."""
        words = [kind for _, kind in self.head()]
        out = []
        for i, row in enumerate(self.table.rows):
            kinds = " ".join(w for w, here in (("lead", i < self.lead), ("rule", i in self.table.rules)) if here)
            out.append((kinds, show(row[0]), [_cell(v, w) for v, w in zip(row[1:], words[1:], strict=True)]))
        return out

    def downloads(self) -> list[tuple[str, str, str]]:
        """(word, file name, data address) of the table as CSV and LaTeX."""
        name = self.table.name
        made = (("CSV", f"{name}.csv", "text/csv", self.table.to_csv()),
                ("LaTeX", f"{name}.tex", "application/x-tex", self.table.to_latex()))  # fmt: skip
        return [(w, f, f"data:{mime};base64,{base64.b64encode(t.encode()).decode()}") for w, f, mime, t in made]


@dataclass(frozen=True, kw_only=True)
class FigureBlock:
    """A figure.

    Attributes:
        name: its id.
        title: above it.
        svg: from `softprompt.report.figures.inline_svg`; empty where it could not be drawn.
        note: below it, or why it is not there.
    """

    kind: ClassVar[str] = "figure"
    name: str
    title: str
    svg: str
    note: str = ""

    def markup(self) -> Any:
        """The SVG, which our own figures made and escaped, marked as safe for the template."""
        from markupsafe import Markup

        return Markup(self.svg)


@dataclass(frozen=True, kw_only=True)
class Values:
    """Settings or provenance as a table of two columns; nested mappings are flattened with dots."""

    kind: ClassVar[str] = "values"
    title: str
    values: Mapping[str, Any]

    def rows(self) -> list[tuple[str, str]]:
        """(name, value)."""
        return _flat(self.values)


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Commands to copy."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[str]


Block = Text | Verdicts | TableBlock | FigureBlock | Values | Commands


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page.

    Attributes:
        name: its id.
        title: its heading; without one it is not in the contents.
        blocks: what stands in it.
        more: what is folded away at its end, by the words to open it.
        folded: whether all of it is folded away.
    """

    name: str
    title: str = ""
    blocks: Sequence[Block] = ()
    more: Mapping[str, Sequence[Block]] = field(default_factory=dict)
    folded: bool = False


def render(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """A whole page as HTML.

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise UsageError("a page needs jinja2, which is not installed: pip install 'softprompt[report]'.") from error
    loader = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters["minus"] = minus
    shown = [section for section in sections if section.blocks or section.more]
    return pages.get_template("page.html.j2").render(title=title, subtitle=subtitle, sections=shown, footer=footer)


def write_table(table: Table, out: str | Path) -> list[Path]:
    """A table as CSV and LaTeX."""
    files = [Path(out) / f"{table.name}.{suffix}" for suffix in ("csv", "tex")]
    for path, text in zip(files, (table.to_csv(), table.to_latex()), strict=True):
        artifacts.write_bytes(path, text.encode(), durable=False)
    return files


def minus(text: Any) -> str:
    """Numbers below zero with the sign that is as wide as a plus; words keep their hyphens."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", "\u2212", str(text))


def _is_words(values: Sequence[str | float | Cell | None]) -> bool:
    told = [v for v in values if isinstance(v, str) and v not in ("", NOT_MEASURED, PENDING)]
    return bool(told) and all(_as_number(v) is None and v[:1].isalpha() for v in told)


def _as_number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%").removeprefix("<"))
    except ValueError:
        return None


def _cell(value: str | float | Cell | None, words: str) -> dict[str, str]:
    """What the template shows of a cell: text, spread, part, class and the number it is sorted by."""
    if isinstance(value, Cell) and value.value is not None:
        return {
            "text": show(value.value),
            "spread": "" if value.std is None else f"±{value.std:.1f}",
            "part": "" if value.complete else f"{value.done} of {value.planned}",
            "kind": value.mark if value.mark in ("best", "second") else "",
            "number": repr(value.value),
        }
    text = value.text() if isinstance(value, Cell) else show(value)
    number = value if isinstance(value, (int, float)) else _as_number(text)
    kind = "pending" if text == PENDING else words or ("words" if number is None and text[:1].isalpha() else "")
    return {"text": text, "spread": "", "part": "", "kind": kind, "number": "" if number is None else repr(number)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            out += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            out.append((f"{prefix}{name}", ", ".join(str(item) for item in value) or NOT_MEASURED))
        else:
            words = str(value).lower() if isinstance(value, bool) else str(value)
            out.append((f"{prefix}{name}", NOT_MEASURED if value in (None, "") else words))
    return out
