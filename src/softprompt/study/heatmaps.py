"""Heatmaps of a study as PNG or SVG: gains, similarities, relations (SPoT Figures 3, 4 and 7; SharPT Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from softprompt.errors import UsageError
from softprompt.study.analysis import Gains
from softprompt.study.drawing import INK, figure_class, label_axes, needs, paint, save
from softprompt.study.embeddings import SimilarityMap
from softprompt.study.records import Floats, Results


def gain_heatmap(results: Results, path: str | Path) -> Path:
    """Relative error reduction by source and target (SPoT Figure 3).

    Raises:
        UsageError: no pair is finished.
    """
    mean_ST = Gains.of(results).mean_ST
    needs(bool((~np.isnan(mean_ST)).any()), "the gain heatmap", f"0 of {mean_ST.size} pairs are finished")
    rows, columns = mean_ST.shape
    figure = figure_class()(figsize=(1.6 + 0.62 * columns, 1.2 + 0.32 * rows))
    axes = figure.subplots()
    limit = colour_limit(mean_ST)
    image = paint(axes, mean_ST, (-limit, limit), 1, True)
    label_axes(axes, results.sources, results.targets)
    axes.set_title("Relative error reduction (%)", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, extend="both").ax.tick_params(labelsize=7)
    return save(figure, path)


def colour_limit(gains: Floats) -> float:
    """The gain, percent, at which the colour saturates: one enormous loss must not bleach everything else."""
    known = np.abs(gains[~np.isnan(gains)])
    return float(np.clip(np.quantile(known, 0.9), 5.0, 40.0)) if known.size else 40.0


def colour_range(similarity: Floats) -> tuple[float, float]:
    """The similarities at which the colour begins and saturates: the least, and the largest between different rows.

    Similarities of prompts on one backbone are often all alike; on a scale from -1 to 1 nothing would be seen. What a
    square matrix says of a row and itself does not count, it would stretch the scale.
    """
    known = similarity[~np.isnan(similarity)]
    if not known.size:
        return 0.0, 1.0
    others = similarity
    if similarity.ndim == 2 and similarity.shape[0] == similarity.shape[1] and len(similarity) > 1:
        others = similarity[~np.eye(len(similarity), dtype=bool)]
    low, high = float(known.min()), float(np.nanmax(others)) if not np.isnan(others).all() else float(known.max())
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)


def similarity_heatmap(
    sources: Sequence[str], targets: Sequence[str], matrix: Floats | Sequence[Sequence[float]], path: str | Path,
    title: str = "Task similarity",
) -> Path:  # fmt: skip
    """Similarity of source and target tasks, sources as rows.

    Args:
        sources: row labels.
        targets: column labels.
        matrix: float [sources, targets].
        path: the file, .png, .svg or .pdf.
        title: above the figure.
    """
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape != (len(sources), len(targets)):
        raise UsageError(f"a similarity map of {len(sources)} x {len(targets)} tasks got a matrix {array.shape}.")
    figure = figure_class()(figsize=(2.2 + 0.6 * len(targets), 1.3 + 0.36 * len(sources)))
    axes = figure.subplots()
    image = paint(axes, array, colour_range(array), 2, True)
    label_axes(axes, sources, targets)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    return save(figure, path)


def clustered_heatmap(found: SimilarityMap, path: str | Path, title: str = "Task embedding similarity") -> Path:
    """Similarities of tasks or runs in the order of their clusters, with the dendrogram (SPoT Figures 4 and 7).

    Raises:
        UsageError: there are no task embeddings.
    """
    needs(len(found.names) > 0, "the similarity heatmap", "no task embedding is finished")
    from scipy.cluster.hierarchy import dendrogram

    count = len(found.names)
    side = 1.6 + 0.26 * count if count <= 40 else 1.6 + 0.13 * count
    figure = figure_class()(figsize=(side + 1.6, side))
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
    image = paint(axes, matrix, colour_range(matrix), 2, count <= 12)
    label_axes(axes, names, names)
    if count > 40:
        axes.tick_params(labelsize=4)
    axes.yaxis.tick_right()
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.16).ax.tick_params(labelsize=7)
    figure.subplots_adjust(wspace=0.02)
    return save(figure, path)


def relation_pair(found: SimilarityMap, other_NN: Floats, path: str | Path) -> Path:
    """Prompt similarities and another relation of the same tasks side by side, in the order of the former's clusters."""
    order = list(found.order)
    names = [found.names[i] for i in order]
    side = 1.8 + 0.3 * len(names)
    figure = figure_class()(figsize=(2 * side + 1, side))
    panels = figure.subplots(1, 2)
    for panel, matrix, title in zip(
        panels, (found.matrix_NN, other_NN), ("prompt similarity", "shared skills"), strict=True
    ):
        image = paint(panel, matrix[np.ix_(order, order)], colour_range(matrix), 2, len(names) <= 12)
        label_axes(panel, names, names)
        panel.set_title(title, fontsize=10)
        figure.colorbar(image, ax=panel, shrink=0.7).ax.tick_params(labelsize=7)
    return save(figure, path)
