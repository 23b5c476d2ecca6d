"""Sections of a study's page: how alike tasks are, and whether that tells who helps."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from softprompt.report.charts import dendrogram, scatter
from softprompt.report.parts import HeatCell, heatmap, table_html
from softprompt.report.tables import correlation_table, embedding_ablation
from softprompt.study.embeddings import (
    SIMILARITIES,
    SimilarityMap,
    cluster,
    correlations,
    run_similarities,
    task_similarities,
)
from softprompt.study.heatmaps import colour_range
from softprompt.study.records import Floats, Results

LARGE = 40
"""More rows than this are drawn without numbers."""


def prompts_and_skills(
    results: Results, skills: tuple[Sequence[str], Floats] | None
) -> tuple[SimilarityMap, Floats] | None:
    """SPoT's task similarities and SharPT's relations of the same tasks in the same order; None where one is missing."""
    if skills is None or not results.embeddings:
        return None
    names, matrix = skills
    own = task_similarities(results.embeddings)
    shared = [name for name in own.names if name in names]
    if len(shared) < 2:
        return None
    mine, theirs = [own.names.index(name) for name in shared], [list(names).index(name) for name in shared]
    return cluster(shared, own.matrix_NN[np.ix_(mine, mine)]), matrix[np.ix_(theirs, theirs)]


def space_section(results: Results, skills: tuple[Sequence[str], Floats] | None = None) -> str:
    """Clustered similarities of tasks (SPoT Figures 4 and 7), and SharPT's relations beside them (its Figure 3)."""
    if not results.embeddings:
        return '<p class="pending">No task embedding is finished yet.</p>'
    parts = ["<p>Tasks that stand together have prompts that point the same way early in tuning.</p>"]
    for kind, words in SIMILARITIES.items():
        found = task_similarities(results.embeddings, kind)
        parts.append(_clustered(f"space-{kind}", found, f"{words.capitalize()}, averaged over pairs of runs"))
    pair = prompts_and_skills(results, skills)
    if pair is not None:
        spot, sharpt = pair
        beside = SimilarityMap(names=spot.names, matrix_NN=sharpt, order=spot.order, linkage=np.zeros((0, 4)))
        parts.append(
            _clustered("space-skills", beside, "The same tasks by SharPT's shared skills, in the order of prompts")
        )
    runs = run_similarities(results.embeddings, "average")
    inner = _clustered("space-runs", runs, "Every run: cosine similarity of average tokens")
    parts.append(f"<details><summary>Every run on its own ({len(runs.names)} rows)</summary>{inner}</details>")
    return "".join(parts)


def _clustered(name: str, found: SimilarityMap, caption: str) -> str:
    order = list(found.order)
    names = [found.names[i] for i in order]
    matrix = found.matrix_NN[np.ix_(order, order)]
    cells = [
        [HeatCell(value=float(v), label=f"{a} and {b}: {v:.3f}") for b, v in zip(names, row, strict=True)]
        for a, row in zip(names, matrix, strict=True)
    ]
    low, high = colour_range(matrix)
    tiny = len(names) > LARGE
    tree = (
        dendrogram(found.linkage.tolist(), len(names), order, "11px" if tiny else "1.75rem")
        if len(found.linkage)
        else ""
    )
    return heatmap(
        name, names, names, cells, caption=caption, digits=2, size="tiny" if tiny else "small", sortable=False,
        before=tree, middle=low, scale=high - low, rising=True,
        legend=(f"{low:.2f}, least alike", f"{high:.2f}{' and above' if matrix.max() - high > 0.005 else ''}, most alike"),
    )  # fmt: skip


def correlation_section(results: Results) -> str:
    """Similarity against relative error reduction, a chart a target (SPoT Figures 5 and 8)."""
    parts = []
    for kind, words in SIMILARITIES.items():
        found = correlations(results, kind)
        charts: list[str] = []
        for c in found:
            note = f"r = {c.r:.3f}, p = {c.p:.2g}" if c.r is not None and c.p is not None else "no correlation yet"
            points = [
                (float(x), float(y), f"{task}, seed {seed}: similarity {x:.3f}, gain {y:+.1f} %")
                for (task, seed), x, y in zip(c.prompts, c.similarity_M, c.gain_M, strict=True)
            ]
            charts.append(
                scatter(
                    f"scatter-{kind}-{len(charts)}", points, title=c.target, note=note, x_name="similarity",
                    y_name="error reduction (%)",
                )
            )  # fmt: skip
        grid = f'<div class="grid">{"".join(charts)}</div>{table_html(correlation_table(results, kind))}'
        if kind == "average":
            parts.append(f"<h3>{escape(words.capitalize())}</h3><p>One point is one source prompt.</p>{grid}")
        else:
            parts.append(f"<details data-print><summary>{escape(words.capitalize())}</summary>{grid}</details>")
    if results.other_embeddings:
        parts.append(table_html(embedding_ablation(results)))
    return "".join(parts)
