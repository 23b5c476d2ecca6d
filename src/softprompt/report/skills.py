"""Drawings of a latent space: task relations (SharPT Figure 3), and skill use in the course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt.errors import UsageError
from softprompt.methods.sharpt.relations import Relations
from softprompt.report.figures import SERIES, new_figure, save
from softprompt.report.heatmaps import draw_bar, frame, label_axes, paint, similarity_limit


def relations_heatmap(found: Relations, path: Path) -> Path:
    """Cosine of skill use, sources down and targets across, nested by category (SharPT Figure 3).

    Tasks of one category stand in one block (`Relations.nested`); each target's closest source is framed. Written as PNG
    or SVG by the path's ending.
    """
    nested = found.nested()
    matrix = nested.cosine_AB.numpy()
    figure = new_figure(2.6 + 0.6 * len(nested.targets), 2.0 + 0.38 * len(nested.sources))
    axes = figure.subplots()
    image = paint(axes, matrix, similarity_limit(matrix), 2, True)
    label_axes(axes, nested.sources, nested.targets)
    for column, row in enumerate(matrix.argmax(0)):
        frame(axes, column, int(row))
    _blocks(axes, nested)
    axes.set_xlabel("target task")
    axes.set_ylabel("source task")
    draw_bar(figure, image, axes, "cosine of skill use")
    return save(figure, path)


def _blocks(axes: Any, nested: Relations) -> None:
    """White lines between categories, and their names: of targets above, of sources on the right."""
    for names, across in ((nested.targets, True), (nested.sources, False)):
        for category, start, end in blocks_of([nested.categories.get(name, "") for name in names]):
            line = axes.axvline if across else axes.axhline
            if start:
                line(start - 0.5, color="white", linewidth=4)
            middle, edge = (start + end - 1) / 2, 1.01
            if across:
                axes.text(middle, edge, category, transform=axes.get_xaxis_transform(), ha="left", va="bottom",
                          rotation=30, fontsize=8, style="italic")  # fmt: skip
            else:
                axes.text(edge, middle, category, transform=axes.get_yaxis_transform(), ha="left", va="center",
                          fontsize=8, style="italic")  # fmt: skip


def blocks_of(categories: Sequence[str]) -> list[tuple[str, int, int]]:
    """(category, first place, place after the last) of each run of equal categories."""
    found: list[tuple[str, int, int]] = []
    for place, category in enumerate(categories):
        if found and found[-1][0] == category:
            found[-1] = (category, found[-1][1], place + 1)
        else:
            found.append((category, place, place + 1))
    return found


def skill_use_curve(history: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Skills used and their perplexity against the training step, one line each a run.

    Args:
        history: records of ``softprompt.methods.sharpt.train.skill_history``.
        path: the file.

    Raises:
        UsageError: there is no record.
    """
    if not history:
        raise UsageError("no measurement of skill use was given; train a space with a latent space first.")
    figure = new_figure(6.4, 3.4)
    axes = figure.subplots()
    for i, run in enumerate(dict.fromkeys(r["run"] for r in history)):
        own = [r for r in history if r["run"] == run]
        steps = [r["step"] for r in own]
        colour = SERIES[i % 7]
        axes.plot(steps, [r["perplexity"] for r in own], color=colour, label=f"{run}: perplexity")
        axes.plot(steps, [r["used"] for r in own], linestyle="--", color=colour, label=f"{run}: used")
    axes.set_xlabel("step")
    axes.set_ylabel("skills")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    return save(figure, path)
