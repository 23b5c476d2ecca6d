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
    """Cosine of skill use, sources down and targets across; written as PNG or SVG by the path's ending."""
    figure = _figure(1.6 + 0.55 * len(found.targets), 1.4 + 0.35 * len(found.sources))
    axes = figure.subplots()
    matrix = found.cosine_AB.numpy()
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(found.targets)), found.targets, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(found.sources)), found.sources, fontsize=8)
    for (row, column), value in _cells(matrix):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value < 0.6 else "k")
    axes.set_xlabel("target task")
    axes.set_ylabel("source task")
    figure.colorbar(image, ax=axes, label="cosine of skill use")
    return _save(figure, path)


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


def _cells(matrix: Any) -> list[tuple[tuple[int, int], float]]:
    return [((i, j), float(matrix[i, j])) for i in range(matrix.shape[0]) for j in range(matrix.shape[1])]


def _save(figure: Any, path: Path) -> Path:
    import io

    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix.lstrip(".") or "png", dpi=150)
    artifacts.write_bytes(path, stream.getvalue())
    return path
