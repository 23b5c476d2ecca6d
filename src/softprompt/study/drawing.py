"""What the figures of a study share: colours and marks, the file that is written, cells that are not there yet.

matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt.errors import UsageError
from softprompt.study.records import Floats

INK, SOFT = "#1b1f24", "#8a929c"
BLUE, ORANGE = "#0072b2", "#d55e00"
SERIES = ("#0072b2", "#d55e00", "#007a5a", "#a8467c", "#8a6d00", "#2c7fb8", "#555555")
MARKERS = ("o", "s", "^", "D", "P", "v", "X")
STYLES = ("-", "--", ":", "-.", (0, (10, 4)), (0, (1, 3)), (0, (12, 3, 2, 3)))


def figure_class() -> Any:
    """matplotlib's Figure, set so that text stays text and the same figure gives the same file.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError(
            "figures need matplotlib, which is not installed: pip install 'softprompt[report]'."
        ) from error
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "softprompt"  # the same figure gives the same file
    return Figure


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure as the path's ending says.

    Raises:
        UsageError: the ending is none of .png, .svg and .pdf.
    """
    import io

    target = Path(path)
    kind = target.suffix.lstrip(".").lower()
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(
            f"a figure is written as .png, .svg or .pdf, not {target.suffix or 'without a suffix'}: {target}."
        )
    stream = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    figure.savefig(stream, format=kind, dpi=160, bbox_inches="tight", metadata=metadata)
    artifacts.write_bytes(target, stream.getvalue(), durable=False)
    return target


def needs(there: bool, figure: str, found: str) -> None:
    """Refuse a figure whose cells do not exist yet, with the command that makes them."""
    if not there:
        raise UsageError(f"{figure} cannot be drawn yet: {found}; run `softprompt study run` first.")


def label_axes(axes: Any, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names of rows and columns beside a heatmap, without ticks or frame."""
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def paint(axes: Any, matrix: Floats, ends: tuple[float, float], digits: int, numbers: bool) -> Any:
    """A heatmap: with colours on both sides of zero where the ends are opposite, else rising from the lower end."""
    low, high = ends
    around_zero = low == -high
    image = axes.imshow(
        np.ma.masked_invalid(matrix),
        cmap=_diverging() if around_zero else _rising(),
        vmin=low,
        vmax=high,
        aspect="auto",
    )
    for (r, c), value in np.ndenumerate(matrix):
        if np.isnan(value):
            axes.add_patch(_hatched(c, r))
        elif numbers:
            dark = abs(value) > 0.6 * high if around_zero else value - low > 0.75 * (high - low)
            axes.text(c, r, f"{value:.{digits}f}", ha="center", va="center", fontsize=7, color="white" if dark else INK)
    return image


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blue-orange", ["#2166ac", "#92c1e2", "#f7f7f7", "#f6b877", "#c25700"])


def _rising() -> Any:
    """From nothing to orange, for similarities: a range has no natural middle."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("to-orange", ["#f7f7f7", "#f6b877", "#c25700"])


def _hatched(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor=SOFT, linewidth=0)
