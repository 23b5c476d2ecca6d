"""Figures of the papers as PNG or SVG files (matplotlib, imported when a figure is drawn).

A figure whose cells do not exist yet is refused with the command that makes them; a figure with some of its cells shows
the missing ones hatched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt.errors import UsageError
from softprompt.study.analysis import Gains
from softprompt.study.embeddings import (
    SHORT_NAMES,
    SIMILARITIES,
    SimilarityMap,
    correlations,
    run_similarities,
    task_similarities,
)
from softprompt.study.methods import cost_points
from softprompt.study.outcomes import Outcomes
from softprompt.study.records import Floats, Results
from softprompt.study.retrieval import StrategyRow
from softprompt.study.tables import show

INK, SOFT = "#1b1f24", "#8a929c"
BLUE, ORANGE = "#0072b2", "#d55e00"
SERIES = ("#0072b2", "#d55e00", "#007a5a", "#a8467c", "#8a6d00", "#2c7fb8", "#555555")
MARKERS = ("o", "s", "^", "D", "P", "v", "X")
STYLES = ("-", "--", ":", "-.", (0, (10, 4)), (0, (1, 3)), (0, (12, 3, 2, 3)))


def _pyplot() -> Any:
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


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blue-orange", ["#2166ac", "#92c1e2", "#f7f7f7", "#f6b877", "#c25700"])


def _save(figure: Any, path: str | Path) -> Path:
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


def _grid(axes: Any, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _rising() -> Any:
    """From nothing to orange, for similarities: a range has no natural middle."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("to-orange", ["#f7f7f7", "#f6b877", "#c25700"])


def _paint(axes: Any, matrix: Floats, ends: tuple[float, float], digits: int, numbers: bool) -> Any:
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


def _hatched(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor=SOFT, linewidth=0)


def gain_heatmap(results: Results, path: str | Path) -> Path:
    """Relative error reduction by source and target (SPoT Figure 3).

    Raises:
        UsageError: no pair is finished.
    """
    mean_ST = Gains.of(results).mean_ST
    _needs(bool((~np.isnan(mean_ST)).any()), "the gain heatmap", f"0 of {mean_ST.size} pairs are finished")
    rows, columns = mean_ST.shape
    figure = _pyplot()(figsize=(1.6 + 0.62 * columns, 1.2 + 0.32 * rows))
    axes = figure.subplots()
    limit = colour_limit(mean_ST)
    image = _paint(axes, mean_ST, (-limit, limit), 1, True)
    _grid(axes, results.sources, results.targets)
    axes.set_title("Relative error reduction (%)", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, extend="both").ax.tick_params(labelsize=7)
    return _save(figure, path)


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
    figure = _pyplot()(figsize=(2.2 + 0.6 * len(targets), 1.3 + 0.36 * len(sources)))
    axes = figure.subplots()
    image = _paint(axes, array, colour_range(array), 2, True)
    _grid(axes, sources, targets)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    return _save(figure, path)


def clustered_heatmap(found: SimilarityMap, path: str | Path, title: str = "Task embedding similarity") -> Path:
    """Similarities of tasks or runs in the order of their clusters, with the dendrogram (SPoT Figures 4 and 7).

    Raises:
        UsageError: there are no task embeddings.
    """
    _needs(len(found.names) > 0, "the similarity heatmap", "no task embedding is finished")
    from scipy.cluster.hierarchy import dendrogram

    count = len(found.names)
    side = 1.6 + 0.26 * count if count <= 40 else 1.6 + 0.13 * count
    figure = _pyplot()(figsize=(side + 1.6, side))
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
    image = _paint(axes, matrix, colour_range(matrix), 2, count <= 12)
    _grid(axes, names, names)
    if count > 40:
        axes.tick_params(labelsize=4)
    axes.yaxis.tick_right()
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.16).ax.tick_params(labelsize=7)
    figure.subplots_adjust(wspace=0.02)
    return _save(figure, path)


def relation_pair(found: SimilarityMap, other_NN: Floats, path: str | Path) -> Path:
    """Prompt similarities and another relation of the same tasks side by side, in the order of the former's clusters."""
    order = list(found.order)
    names = [found.names[i] for i in order]
    side = 1.8 + 0.3 * len(names)
    figure = _pyplot()(figsize=(2 * side + 1, side))
    panels = figure.subplots(1, 2)
    for panel, matrix, title in zip(
        panels, (found.matrix_NN, other_NN), ("prompt similarity", "shared skills"), strict=True
    ):
        image = _paint(panel, matrix[np.ix_(order, order)], colour_range(matrix), 2, len(names) <= 12)
        _grid(panel, names, names)
        panel.set_title(title, fontsize=10)
        figure.colorbar(image, ax=panel, shrink=0.7).ax.tick_params(labelsize=7)
    return _save(figure, path)


def scatter_grid(results: Results, path: str | Path, kind: str = "average") -> Path:
    """Similarity against relative error reduction, one panel a target, one point a source prompt (Figures 5 and 8).

    Raises:
        UsageError: no target has a point.
    """
    found = correlations(results, kind)
    _needs(any(c.prompts for c in found), "the correlation figure", "no source prompt has both similarity and gain")
    across = min(5, len(found))
    down = -(-len(found) // across)
    figure = _pyplot()(figsize=(2.5 * across, 2.3 * down))
    panels = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    for panel in panels[len(found) :]:
        panel.axis("off")
    for panel, one in zip(panels, found, strict=False):
        panel.axhline(0, color=SOFT, linewidth=0.7, linestyle=":")
        panel.scatter(one.similarity_M, one.gain_M, s=12, color=BLUE, edgecolor="white", linewidth=0.3)
        if one.r is not None and one.p is not None:
            slope, cut = np.polyfit(one.similarity_M, one.gain_M, 1)
            ends = np.array([one.similarity_M.min(), one.similarity_M.max()])
            panel.plot(ends, slope * ends + cut, color=ORANGE, linewidth=1.2, linestyle="--")
            title = f"{one.target}\n(r = {one.r:.3f}, p = {one.p:.2g})"
        else:
            title = f"{one.target}\n({'pending' if one.missing else 'no correlation'})"
        panel.set_title(title, fontsize=8)
        panel.tick_params(labelsize=6)
    figure.supxlabel(SIMILARITIES[kind], fontsize=8)
    figure.supylabel("relative error reduction (%)", fontsize=8)
    figure.tight_layout()
    return _save(figure, path)


def cost_against_gain(rows: Sequence[StrategyRow], path: str | Path) -> Path:
    """Average score against target tunings, by ranking, between baseline and oracle.

    Raises:
        UsageError: no strategy is finished.
    """
    series = cost_series(rows)
    _needs(bool(series), "the cost figure", "no strategy is finished on all targets")
    figure = _pyplot()(figsize=(6.2, 3.8))
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        axes.plot(
            [x for x, _ in points], [y for _, y in points], label=name, color=SERIES[i % 7], marker=MARKERS[i % 7],
            linestyle=STYLES[i % 7], markersize=4, linewidth=1.4,
        )  # fmt: skip
    for name, style in (("baseline", ":"), ("oracle", "--")):
        level = next((row.average.value for row in rows if row.strategy == name and row.average.complete), None)
        if level is not None:
            axes.axhline(level, color=SOFT, linewidth=1, linestyle=style)
            axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), fontsize=7, va="bottom", ha="right")
    axes.set_xlabel("prompt tunings on the target")
    axes.set_ylabel("average score (%)")
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def cost_series(rows: Sequence[StrategyRow]) -> dict[str, list[tuple[float, float]]]:
    """(tunings, average score) by name of strategy and ranking; finished ones only, in rising cost."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.strategy in ("baseline", "oracle") or row.average.value is None or not row.average.complete:
            continue
        ranking = SHORT_NAMES.get(row.ranking, row.ranking)
        # Strategies with one tuning differ in k, not in cost: they are told apart by name.
        label = row.strategy if row.tunings == row.k or not row.k else f"{row.strategy}, k = {row.k}"
        name = f"{label}, {ranking}" if ranking else label
        series.setdefault(name, []).append((float(row.tunings), row.average.value))
    return {name: sorted(points) for name, points in series.items()}


def strategies_figure(rows: Sequence[StrategyRow], path: str | Path) -> Path:
    """The strategies table as a figure (SPoT Table 3).

    Raises:
        UsageError: nothing of it is finished.
    """
    _needs(any(row.average.value is not None for row in rows), "the strategies table", "no strategy is finished")
    columns = ["method", "ranking", "abs.", "rel.", "avg. score"]
    body = []
    for row in rows:
        name = row.strategy if not row.k or row.strategy == "oracle" else f"{row.strategy}, k = {row.k}"
        change = ["–", "–"] if row.strategy == "baseline" else [show(row.absolute), show(row.relative)]
        body.append([name, SIMILARITIES.get(row.ranking, row.ranking) or "–", *change, show(row.average)])
    figure = _pyplot()(figsize=(8.4, 0.5 + 0.24 * len(body)))
    axes = figure.subplots()
    axes.axis("off")
    table = axes.table(
        cellText=body, colLabels=columns, loc="center", colWidths=[0.27, 0.38, 0.12, 0.12, 0.14], edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (_, column), cell in table.get_celld().items():
        cell.set_text_props(ha="left" if column < 2 else "right")
        cell.set_edgecolor("#d5d9df")
    return _save(figure, path)


def score_against_size(series: Mapping[str, Sequence[tuple[float, float, float | None]]], path: str | Path) -> Path:
    """Score against the backbone's parameters, one line a method (SPoT Figure 1, SharPT Figure 2).

    Args:
        series: method to (parameters, mean score in percent, standard deviation or None), in rising size.
        path: the file.

    Raises:
        UsageError: no method has a point.
    """
    _needs(any(len(points) for points in series.values()), "score against size", "no backbone's study is finished")
    figure = _pyplot()(figsize=(5.6, 4.0))
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        axes.errorbar(
            [p[0] for p in points], [p[1] for p in points], yerr=[p[2] or 0.0 for p in points], label=name, capsize=2,
            color=SERIES[i % 7], marker=MARKERS[i % 7], linestyle=STYLES[i % 7], markersize=5, linewidth=1.4,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("backbone parameters")
    axes.set_ylabel("score (%)")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def score_against_cost(found: Outcomes, path: str | Path) -> Path:
    """Every method's points over prompt tuning, with interval, against its share of the oracle's cost (logarithmic).

    Raises:
        UsageError: no method is finished with its cost.
    """
    points = [point for point in cost_points(found) if point[1] > 0]
    _needs(bool(points), "score against cost", "no method is finished on all targets with its cost")
    figure = _pyplot()(figsize=(6.6, 4.2))
    from matplotlib.ticker import LogLocator

    axes = figure.subplots()
    for i, (name, share, score, interval) in enumerate(points):
        axes.errorbar(
            [100 * share], [score], yerr=[[max(0.0, score - interval.low)], [max(0.0, interval.high - score)]], label=name,
            color=SERIES[i % 7], marker=MARKERS[(i + i // 7) % 7], markersize=6, linewidth=0, elinewidth=0.8, capsize=2,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel("share of the oracle's cost")
    axes.axhline(0, color=SOFT, linewidth=0.7, linestyle=":")
    axes.set_ylabel("average score, points over prompt tuning")
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


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


def _needs(there: bool, figure: str, found: str) -> None:
    if not there:
        raise UsageError(f"{figure} cannot be drawn yet: {found}; run `softprompt study run` first.")
