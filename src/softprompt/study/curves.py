"""Curves, scatters and the strategies table of a study as PNG or SVG (SPoT Figures 1, 5 and 8, Table 3; SharPT Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from softprompt.study.drawing import BLUE, MARKERS, ORANGE, SERIES, SOFT, STYLES, figure_class, needs, save
from softprompt.study.embeddings import SHORT_NAMES, SIMILARITIES, correlations
from softprompt.study.methods import cost_points
from softprompt.study.outcomes import Outcomes
from softprompt.study.records import Results
from softprompt.study.retrieval import StrategyRow
from softprompt.study.tables import show


def scatter_grid(results: Results, path: str | Path, kind: str = "average") -> Path:
    """Similarity against relative error reduction, one panel a target, one point a source prompt (Figures 5 and 8).

    Raises:
        UsageError: no target has a point.
    """
    found = correlations(results, kind)
    needs(any(c.prompts for c in found), "the correlation figure", "no source prompt has both similarity and gain")
    across = min(5, len(found))
    down = -(-len(found) // across)
    figure = figure_class()(figsize=(2.5 * across, 2.3 * down))
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
    return save(figure, path)


def cost_against_gain(rows: Sequence[StrategyRow], path: str | Path) -> Path:
    """Average score against target tunings, by ranking, between baseline and oracle.

    Raises:
        UsageError: no strategy is finished.
    """
    series = cost_series(rows)
    needs(bool(series), "the cost figure", "no strategy is finished on all targets")
    figure = figure_class()(figsize=(6.2, 3.8))
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        axes.plot(
            [x for x, _ in points], [y for _, y in points], label=name, color=SERIES[i % 7], marker=MARKERS[(i + i // 7) % 7],
            linestyle=STYLES[(i + i // 7) % 7], markersize=4, linewidth=1.4,
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
    return save(figure, path)


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
    needs(any(row.average.value is not None for row in rows), "the strategies table", "no strategy is finished")
    columns = ["method", "ranking", "points", "rel. (%)", "avg. score"]
    body = []
    for row in rows:
        name = row.strategy if not row.k or row.strategy == "oracle" else f"{row.strategy}, k = {row.k}"
        change = ["–", "–"] if row.strategy == "baseline" else [show(row.absolute), show(row.relative)]
        body.append([name, SIMILARITIES.get(row.ranking, row.ranking) or "–", *change, show(row.average)])
    figure = figure_class()(figsize=(8.4, 0.5 + 0.24 * len(body)))
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
    return save(figure, path)


def score_against_size(series: Mapping[str, Sequence[tuple[float, float, float | None]]], path: str | Path) -> Path:
    """Score against the backbone's parameters, one line a method (SPoT Figure 1, SharPT Figure 2).

    Args:
        series: method to (parameters, mean score in percent, standard deviation or None), in rising size.
        path: the file.

    Raises:
        UsageError: no method has a point.
    """
    needs(any(len(points) for points in series.values()), "score against size", "no backbone's study is finished")
    figure = figure_class()(figsize=(5.6, 4.0))
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
    return save(figure, path)


def score_against_cost(found: Outcomes, path: str | Path) -> Path:
    """Every method's points over prompt tuning, with interval, against its share of the oracle's cost (logarithmic).

    Raises:
        UsageError: no method is finished with its cost.
    """
    points = [point for point in cost_points(found) if point[1] > 0]
    needs(bool(points), "score against cost", "no method is finished on all targets with its cost")
    figure = figure_class()(figsize=(6.6, 4.2))
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
    return save(figure, path)
