"""Drawings of a latent space: task relations (SharPT Figure 3), and skill use in the course of training.

matplotlib is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.errors import SoftpromptError, UsageError
from softprompt.methods.sharpt.relations import Relations


def relations_heatmap(found: Relations, path: Path) -> Path:
    """Cosine of skill use, sources down and targets across, nested by category (SharPT Figure 3).

    Tasks of one category stand in one block (`Relations.nested`); each target's closest source is framed. Written as PNG
    or SVG by the path's ending.
    """
    nested = found.nested()
    matrix = nested.cosine_AB.numpy()
    figure = _figure(2.6 + 0.6 * len(nested.targets), 2.0 + 0.38 * len(nested.sources))
    axes = figure.subplots()
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(nested.targets)), nested.targets, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(nested.sources)), nested.sources, fontsize=8)
    axes.tick_params(length=0)
    closest = matrix.argmax(0)
    for (row, column), value in _cells(matrix):
        weight = "bold" if closest[column] == row else "normal"
        colour = "white" if value > 0.6 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour, weight=weight)
        if closest[column] == row:
            frame = {"fill": False, "edgecolor": "black", "linewidth": 1.6, "zorder": 4}
            axes.add_patch(_rectangle(column - 0.44, row - 0.44, 0.88, 0.88, **frame))
    _blocks(axes, nested)
    axes.set_xlabel("target task")
    axes.set_ylabel("source task")
    figure.colorbar(image, ax=axes, label="cosine of skill use", shrink=0.8)
    return _save(figure, path)


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
    figure = _figure(6.4, 3.4)
    axes = figure.subplots()
    for run in dict.fromkeys(r["run"] for r in history):
        own = [r for r in history if r["run"] == run]
        steps = [r["step"] for r in own]
        (line,) = axes.plot(steps, [r["perplexity"] for r in own], label=f"{run}: perplexity")
        axes.plot(steps, [r["used"] for r in own], linestyle="--", color=line.get_color(), label=f"{run}: used")
    axes.set_xlabel("step")
    axes.set_ylabel("skills")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    return _save(figure, path)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SoftpromptError(
            "drawing needs matplotlib, which is not installed: run pip install 'softprompt[report]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _rectangle(left: float, top: float, width: float, height: float, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), width, height, **style)


def _cells(matrix: Any) -> list[tuple[tuple[int, int], float]]:
    return [((i, j), float(matrix[i, j])) for i in range(matrix.shape[0]) for j in range(matrix.shape[1])]


def _save(figure: Any, path: Path) -> Path:
    import io

    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix.lstrip(".") or "png", dpi=150)
    artifacts.write_bytes(path, stream.getvalue())
    return path
