"""Every figure of a study, as files.

A figure whose cells do not exist yet is refused with the command that makes them; a figure with some of its cells shows
the missing ones hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softprompt.errors import UsageError
from softprompt.study.curves import cost_against_gain, scatter_grid, score_against_cost, strategies_figure
from softprompt.study.embeddings import SIMILARITIES, run_similarities, task_similarities
from softprompt.study.heatmaps import clustered_heatmap, gain_heatmap
from softprompt.study.outcomes import Outcomes
from softprompt.study.records import Results
from softprompt.study.retrieval import StrategyRow


def draw_all(
    results: Results, rows: Sequence[StrategyRow], folder: str | Path, found: Outcomes | None = None
) -> tuple[list[Path], list[str]]:
    """Every figure of a study as PNG and SVG.

    Returns:
        the files, and why figures were left out.
    """
    folder = Path(folder)
    drawings: list[tuple[str, Any]] = [
        ("gain_heatmap", lambda p: gain_heatmap(results, p)),
        ("strategies", lambda p: strategies_figure(rows, p)),
        ("cost_against_gain", lambda p: cost_against_gain(rows, p)),
        ("score_against_cost", lambda p: score_against_cost(found or Outcomes.of(results), p)),
    ]
    for kind, words in SIMILARITIES.items():
        by_task, by_run = task_similarities(results.embeddings, kind), run_similarities(results.embeddings, kind)
        drawings += [
            (f"similarity_tasks_{kind}", lambda p, m=by_task, t=words: clustered_heatmap(m, p, t.capitalize())),
            (f"similarity_runs_{kind}", lambda p, m=by_run, t=words: clustered_heatmap(m, p, t.capitalize())),
            (f"correlation_{kind}", lambda p, k=kind: scatter_grid(results, p, k)),
        ]
    files, left_out = [], []
    for name, draw in drawings:
        try:
            files += [draw(folder / f"{name}.{suffix}") for suffix in ("png", "svg")]
        except UsageError as error:
            left_out.append(f"{name}: {error}")
    return files, left_out
