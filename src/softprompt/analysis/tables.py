"""Tables of results: cells with mean, spread and how much of them is finished; as CSV, LaTeX and plain text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.analysis.records import Floats

PENDING = "pending"
UNDEFINED = "undefined"
NOT_MEASURED = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One number of a table.

    Attributes:
        value: the mean over finished runs; None where none is finished.
        std: sample standard deviation (n - 1); None with fewer than two runs.
        done: finished runs.
        planned: runs the study asks for.
        mark: ``"best"``, ``"second"`` or ``"positive"`` for emphasis, else empty.
    """

    value: float | None
    std: float | None = None
    done: int = 1
    planned: int = 1
    mark: str = ""

    @property
    def complete(self) -> bool:
        """Whether every planned run is finished."""
        return self.done >= self.planned

    def text(self, digits: int = 1) -> str:
        """``"74.7 ±0.7"``; ``"pending"`` where nothing is finished; ``"74.7 (2 of 3)"`` where runs are missing.

        ``"undefined"`` where all is finished but has no value: the relative error reduction of a perfect baseline.
        """
        if self.value is None:
            return UNDEFINED if self.done and self.complete else PENDING
        spread = f" ±{self.std:.{digits}f}" if self.std is not None else ""
        missing = "" if self.complete else f" ({self.done} of {self.planned})"
        return f"{fixed(self.value, digits)}{spread}{missing}"


Row = tuple["str | float | Cell | None", ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a header row; the first column of each row is its label.

    Attributes:
        name: short name, used for files.
        title: one line above the table.
        columns: header, the label column included.
        rows: label cells are text; others are Cell, text, float or None.
        notes: lines below the table.
        rules: places of rows that a line stands above: where another panel begins.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()

    def to_csv(self) -> str:
        """CSV: a Cell column becomes value, its standard deviation and its count of finished runs."""
        wide = [any(isinstance(row[i], Cell) for row in self.rows) for i in range(len(self.columns))]
        header: list[str] = []
        for name, cells in zip(self.columns, wide, strict=True):
            header += [name, f"{name} std", f"{name} runs"] if cells else [name]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        for row in self.rows:
            line: list[str] = []
            for value, cells in zip(row, wide, strict=True):
                if isinstance(value, Cell):
                    line += [_number(value.value), _number(value.std), f"{value.done}/{value.planned}"]
                else:
                    line += [_number(value), "", ""] if cells else [_number(value)]
            writer.writerow(line)
        return out.getvalue()

    def to_latex(self) -> str:
        """A booktabs table; standard deviations as subscripts, as in the SPoT paper."""
        head = " & ".join(_escape(name) for name in self.columns)
        lines = (
            ("\\midrule\n" if i in self.rules else "") + " & ".join(_latex(value) for value in row) + r" \\"
            for i, row in enumerate(self.rows)
        )
        body = "\n".join(lines)
        notes = "".join(f"% {note}\n" for note in self.notes)
        spec = "l" + "r" * (len(self.columns) - 1)
        return (
            f"{notes}\\begin{{table}}\n\\centering\n\\caption{{{_escape(self.title)}}}\n\\begin{{tabular}}{{{spec}}}\n"
            f"\\toprule\n{head} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
        )

    def to_text(self) -> str:
        """Aligned plain text for a terminal."""
        lines = [list(self.columns)] + [[show(value) for value in row] for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        shown = [
            "  ".join(
                text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([self.title, *(line.rstrip() for line in shown), *self.notes])


def summary(values: Floats | Sequence[float], planned: int | None = None, mark: str = "") -> Cell:
    """Mean and sample standard deviation of the finished (not NaN) values."""
    array = np.asarray(values, dtype=np.float64).ravel()
    done = array[~np.isnan(array)]
    return Cell(
        value=float(done.mean()) if done.size else None,
        std=float(done.std(ddof=1)) if done.size > 1 else None,
        done=int(done.size),
        planned=array.size if planned is None else planned,
        mark=mark,
    )


def number(value: float) -> float | None:
    """A number of an array as a table takes it: NaN is pending."""
    return None if np.isnan(value) else float(value)


def show(value: str | float | Cell | None, digits: int = 1) -> str:
    """What a person reads in one cell."""
    if isinstance(value, Cell):
        return value.text(digits)
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return PENDING
    return fixed(value, digits) if isinstance(value, float) else str(value)


def fixed(value: float, digits: int = 1) -> str:
    """A number with so many digits after the point; what rounds to zero has no sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _number(value: str | float | Cell | None) -> str:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(round(value, 6)) if isinstance(value, float) else str(value)


def _latex(value: str | float | Cell | None) -> str:
    if not isinstance(value, Cell) or value.value is None:
        return _escape(show(value))
    number = fixed(value.value)
    frame = {"best": r"\textbf", "second": r"\underline"}.get(value.mark)
    number = f"{frame}{{{number}}}" if frame else number
    spread = f"$_{{{value.std:.1f}}}$" if value.std is not None else ""
    missing = "" if value.complete else f" ({value.done}/{value.planned})"
    return f"{number}{spread}{missing}"


def _escape(text: str) -> str:
    for old, new in (("\\", r"\textbackslash{}"), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"), ("$", r"\$")):
        text = text.replace(old, new)
    return text.replace("→", r"$\to$").replace("±", r"$\pm$")
