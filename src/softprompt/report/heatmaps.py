"""Heatmaps of gains, similarities and relations (SPoT Figures 3, 4 and 7; SharPT Figure 3): one scale, white at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from softprompt.analysis.gains import Gains, best_sources
from softprompt.analysis.records import Floats, Results
from softprompt.analysis.similarity import SimilarityMap
from softprompt.errors import UsageError
from softprompt.report.figures import INK, SOFT, needs, new_figure

COLOURS = ("#2166ac", "#92c1e2", "#ffffff", "#f6b877", "#c25700")


def gain_heatmap(results: Results) -> Any:
    """Relative error reduction by source and target (SPoT Figure 3); a target's best source is framed.

    Raises:
        UsageError: no pair is finished.
    """
    mean_ST = Gains.of(results).mean_ST
    needs(bool((~np.isnan(mean_ST)).any()), "the gain heatmap", f"0 of {mean_ST.size} pairs are finished")
    rows, columns = mean_ST.shape
    figure = new_figure(2.4 + 0.62 * columns, 1.4 + 0.3 * rows)
    axes = figure.subplots()
    image = paint(axes, mean_ST, gain_limit(mean_ST), 1, True)
    label_axes(axes, results.sources, results.targets)
    for t, name in enumerate(best_sources(results).source_T):
        if name is not None:
            frame(axes, t, results.sources.index(name))
    draw_bar(figure, image, axes, "relative error reduction (%)")
    return figure


def gain_limit(gains: Floats) -> float:
    """The gain, percent, at which the colour saturates: one enormous loss must not bleach everything else."""
    known = np.abs(gains[~np.isnan(gains)])
    return float(np.clip(np.quantile(known, 0.9), 5.0, 40.0)) if known.size else 40.0


def similarity_limit(similarity: Floats) -> float:
    """The similarity at which the colour saturates: the largest between different rows, at least 0.05."""
    others = similarity
    if similarity.ndim == 2 and similarity.shape[0] == similarity.shape[1] and len(similarity) > 1:
        others = similarity[~np.eye(len(similarity), dtype=bool)]
    known = np.abs(others[~np.isnan(others)])
    return max(0.05, float(known.max())) if known.size else 1.0


def similarity_heatmap(
    sources: Sequence[str], targets: Sequence[str], matrix: Floats | Sequence[Sequence[float]], title: str = "Task similarity"
) -> Any:  # fmt: skip
    """Similarity of source and target tasks, sources as rows.

    Args:
        sources: row labels.
        targets: column labels.
        matrix: float [sources, targets]; None or NaN is hatched.
        title: above the figure.
    """
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape != (len(sources), len(targets)):
        raise UsageError(f"a similarity map of {len(sources)} x {len(targets)} tasks got a matrix {array.shape}.")
    figure = new_figure(2.6 + 0.6 * len(targets), 1.5 + 0.34 * len(sources))
    axes = figure.subplots()
    image = paint(axes, array, similarity_limit(array), 2, True)
    label_axes(axes, sources, targets)
    axes.set_title(title, fontsize=9)
    draw_bar(figure, image, axes, "cosine")
    return figure


def clustered_heatmap(found: SimilarityMap, title: str = "Task embedding similarity") -> Any:
    """Similarities of tasks or runs in the order of their clusters, with the dendrogram (SPoT Figures 4 and 7).

    Raises:
        UsageError: there are no task embeddings.
    """
    needs(len(found.names) > 0, "the similarity heatmap", "no task embedding is finished")
    from scipy.cluster.hierarchy import dendrogram

    count = len(found.names)
    side = 2.0 + 0.3 * count if count <= 40 else 2.0 + 0.13 * count
    figure = new_figure(side + 2.0, side)
    tree, axes = figure.subplots(1, 2, width_ratios=[1, 5])
    if count > 1:
        dendrogram(
            found.linkage, orientation="left", ax=tree, no_labels=True, color_threshold=0, above_threshold_color=INK
        )
        tree.set_ylim(10 * count, 0)  # scipy spaces leaves by ten; the first row is on top
    tree.axis("off")
    order = list(found.order)
    names = [found.names[i] for i in order]
    matrix = found.matrix_NN[np.ix_(order, order)]
    image = paint(axes, matrix, similarity_limit(matrix), 2, count <= 12)
    label_axes(axes, names, names)
    if count > 40:
        axes.tick_params(labelsize=4)
    axes.set_title(title, fontsize=9)
    draw_bar(figure, image, axes, "cosine")
    return figure


def relation_pair(found: SimilarityMap, other_NN: Floats) -> Any:
    """Prompt similarities and SharPT's relation of the same tasks side by side, in the order of the former's clusters."""
    order = list(found.order)
    names = [found.names[i] for i in order]
    side = 1.8 + 0.3 * len(names)
    figure = new_figure(2 * side + 1, side)
    panels = figure.subplots(1, 2)
    for panel, matrix, title in zip(
        panels, (found.matrix_NN, other_NN), ("prompt similarity", "shared skills"), strict=True
    ):
        ordered = matrix[np.ix_(order, order)]
        image = paint(panel, ordered, similarity_limit(ordered), 2, len(names) <= 12)
        label_axes(panel, names, names)
        panel.set_title(title, fontsize=9)
        draw_bar(figure, image, panel, "")
    return figure


def label_axes(axes: Any, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names of rows and columns beside a heatmap, without ticks or frame."""
    axes.set_xticks(range(len(columns)), columns, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def paint(axes: Any, matrix: Floats, limit: float, digits: int, numbers: bool) -> Any:
    """A heatmap whose colours saturate at plus and minus the limit; cells that are not there yet are hatched."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("blue-white-orange", list(COLOURS))
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=scale, vmin=-limit, vmax=limit, aspect="auto")
    for (r, c), value in np.ndenumerate(matrix):
        if np.isnan(value):
            axes.add_patch(_rectangle(c, r, hatch="////", edgecolor=SOFT, linewidth=0))
        elif numbers:
            colour = "white" if abs(value) > 0.75 * limit else INK
            axes.text(
                c, r, f"{round(value, digits) + 0.0:.{digits}f}", ha="center", va="center", fontsize=7, color=colour
            )
    return image


def draw_bar(figure: Any, image: Any, axes: Any, words: str) -> None:
    """The colours of a heatmap and what they mean, beside it."""
    bar = figure.colorbar(image, ax=axes, shrink=0.8, extend="both")
    bar.ax.tick_params(labelsize=7)
    bar.set_label(words, fontsize=7)


def frame(axes: Any, column: int, row: int) -> None:
    """A line around one cell, inside its edges so that lines between blocks do not cover it."""
    axes.add_patch(_rectangle(column, row, inset=0.05, edgecolor=INK, linewidth=1.4, zorder=4))


def _rectangle(column: int, row: int, inset: float = 0.0, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    side = 1 - 2 * inset
    return Rectangle((column - 0.5 + inset, row - 0.5 + inset), side, side, fill=False, **style)
