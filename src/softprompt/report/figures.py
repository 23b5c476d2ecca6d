"""Figures of a study, each drawn once: the same figure stands in the page as SVG and in a file for a paper.

matplotlib is imported when a figure is drawn. One colour scale serves all heatmaps, blue below zero, white at zero, orange
above. A figure whose cells do not exist yet is refused with the command that makes them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt.analysis.choice import Choices
from softprompt.analysis.comparison import cost_points
from softprompt.analysis.methods import RANDOM, TOP_K, Methods, MethodScores
from softprompt.analysis.records import Results
from softprompt.analysis.searches import paper_search
from softprompt.analysis.similarity import SHORT_NAMES, SIMILARITIES, correlations
from softprompt.errors import UsageError

INK, SOFT = "#1b1f24", "#8a929c"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#007a5a"
SERIES = (BLUE, ORANGE, GREEN, "#a8467c", "#8a6d00", "#2c7fb8", "#555555")
MARKERS = ("o", "s", "^", "D", "P", "v", "X")
STYLES = ("-", "--", ":", "-.", (0, (10, 4)), (0, (1, 3)), (0, (12, 3, 2, 3)))
ACROSS = 3
"""Panels in a row of small multiples."""


def new_figure(width: float, height: float) -> Any:
    """An empty figure, inches, set so that text stays text and the same figure gives the same file.

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

    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "softprompt"
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure as the path's ending says.

    Raises:
        UsageError: the ending is none of .png, .svg and .pdf.
    """
    target = Path(path)
    kind = target.suffix.lstrip(".").lower()
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(
            f"a figure is written as .png, .svg or .pdf, not {target.suffix or 'without a suffix'}: {target}."
        )
    artifacts.write_bytes(target, _rendered(figure, kind), durable=False)
    return target


def _rendered(figure: Any, kind: str) -> bytes:
    if figure.get_layout_engine() is not None:  # laid out once: every file of a figure is the same figure
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    stream = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": None, "Format": None, "Type": None}, "pdf": {"CreationDate": None}}
    figure.savefig(stream, format=kind, dpi=160, metadata=metadata.get(kind))
    return stream.getvalue()


def inline_svg(figure: Any, name: str, label: str) -> str:
    """A figure as an SVG element of a page: its ids begin with the name, so that several stand in one page.

    Args:
        figure: drawn.
        name: unique in the page.
        label: what a screen reader says.
    """
    from html import escape

    text = _rendered(figure, "svg").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    width = re.search(r'width="([\d.]+)pt" ', text)
    text = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
    wide = float(width[1]) * 96 / 72 if width else 800.0
    style = f'style="--w:{wide:.0f}px" role="img" aria-label="{escape(label, quote=True)}" stroke-linejoin="round" '
    return re.sub(r'width="[\d.]+pt" ', style, text, count=1).strip()


def needs(there: bool, figure: str, found: str) -> None:
    """Refuse a figure whose cells do not exist yet, with the command that makes them."""
    if not there:
        raise UsageError(f"{figure} cannot be drawn yet: {found}; run `softprompt study run` first.")


def _panels(count: int, height: float) -> tuple[Any, list[Any]]:
    across = min(ACROSS, count)
    down = -(-count // across)
    figure = new_figure(3.3 * across, height * down)
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.axis("off")
    return figure, panels[:count]


def target_panels(results: Results, found: Methods) -> Any:
    """A panel a target: every run's gain over scratch by source, and the methods' gains where they stand.

    Small dots are runs, bars their mean; the grey band holds the runs from scratch. Retrieval at SPoT's
    share of tries is a filled diamond, at its own gain.

    Raises:
        UsageError: no target has a finished run from scratch and a transfer.
    """
    choices = found.choices
    known = [t for t in range(len(results.targets)) if not np.isnan(choices.scratch(t))]
    moved = choices.report_TM.reshape(len(results.targets), len(results.sources), len(results.seeds))
    needs(
        bool(known) and not np.isnan(moved).all(), "the gains by target", "no transfer and no scratch run is finished"
    )
    shown = [
        m for m in found.shown if m is not found.baseline and (m.strategy != TOP_K or m is _chosen(found, results))
    ]
    names = [*(_short(m) for m in shown), *results.sources]
    figure, panels = _panels(len(results.targets), 0.9 + 0.21 * len(names))
    for t, panel in enumerate(panels):
        panel.set_title(results.targets[t], fontsize=9, color=INK)
        if t in known:
            _gains_of_target(panel, choices, t, moved[t], [(m, m is _chosen(found, results)) for m in shown])
        panel.set_yticks(range(len(names)), names if t % ACROSS == 0 else [""] * len(names), fontsize=7)
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.axhline(len(shown) - 0.5, color=SOFT, linewidth=0.5)
        panel.tick_params(axis="x", labelsize=7)
        panel.tick_params(axis="y", length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    figure.supxlabel("points over the mean run from scratch, reporting rows", fontsize=8)
    return figure


def _chosen(found: Methods, results: Results) -> MethodScores | None:
    return paper_search(found, len(results.prompts))


def _short(method: MethodScores) -> str:
    words = method.name.replace("multitask_model_tuning", "multi-task model tuning").replace("_", " ")
    return words.replace("best of top k (", "best of top k\n(") if len(words) > 26 else words


def _gains_of_target(
    panel: Any, choices: Choices, t: int, moved_SR: Any, shown: Sequence[tuple[MethodScores, bool]]
) -> None:  # fmt: skip
    base, scratch = choices.scratch(t), choices.scratch_runs(t)
    panel.axvspan(scratch.min() - base, scratch.max() - base, color="#e6e8eb", linewidth=0)
    panel.axvline(0, color=SOFT, linewidth=0.8)
    for row, (method, chosen) in enumerate(shown):
        value = float(method.score_T[t]) - base
        if not np.isnan(value):
            panel.plot(
                [value], [row], "D", markersize=6 if chosen else 4.5, color=ORANGE, markeredgecolor=ORANGE,
                markerfacecolor=ORANGE if chosen else "white",
            )  # fmt: skip
    for s, runs in enumerate(moved_SR):
        done = runs[~np.isnan(runs)] - base
        row = len(shown) + s
        panel.plot(done, [row] * len(done), "o", markersize=3, color=BLUE, alpha=0.55, markeredgewidth=0)
        if done.size:
            panel.plot([done.mean()], [row], "|", markersize=9, color=BLUE, markeredgewidth=1.6)


def score_against_cost(found: Methods) -> Any:
    """Every method's points over scratch, with interval, against its share of the oracle's cost (logarithmic).

    Raises:
        UsageError: no method is finished with its cost.
    """
    points = cost_points(found)
    needs(bool(points), "score against cost", "no method is finished on all targets with its cost")
    from matplotlib.ticker import LogLocator

    figure = new_figure(8.2, 4.0)
    axes = figure.subplots()
    for i, point in enumerate(points):
        ends = (point.gain.low, point.gain.high)
        spread = [[0.0], [0.0]] if np.isnan(ends).any() else [[point.gain.mean - ends[0]], [ends[1] - point.gain.mean]]
        axes.errorbar(
            [100 * point.share], [point.gain.mean], yerr=spread, label=point.name, color=SERIES[i % 7],
            marker=MARKERS[(i + i // 7) % 7], markersize=6, linewidth=0, elinewidth=0.8, capsize=2,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    _finish(axes, "share of the oracle's cost", "points over prompt tuning from scratch")
    axes.axhline(0, color=SOFT, linewidth=0.7, linestyle=":")
    return figure


def _finish(axes: Any, x_name: str, y_name: str) -> None:
    axes.set_xlabel(x_name, fontsize=9)
    axes.set_ylabel(y_name, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.spines[["top", "right"]].set_visible(False)


def score_against_tries(found: Methods) -> Any:
    """Average score against the source prompts tried, by ranking, random choice among them, between scratch and oracle.

    Raises:
        UsageError: no search is finished.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for m in found.searches:
        if m.finished:
            name = "random choice" if m.strategy == RANDOM else SHORT_NAMES.get(m.ranking, m.ranking)
            series.setdefault(name, []).append((m.k, float(m.score_T.mean())))
    needs(bool(series), "score against tries", "no search is finished on all targets")
    figure = new_figure(7.4, 3.6)
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        random = name == "random choice"
        axes.plot(
            *zip(*sorted(points), strict=True), label=name, color=SOFT if random else SERIES[i % 7],
            marker=MARKERS[(i + i // 7) % 7], linestyle=":" if random else STYLES[(i + i // 7) % 7], markersize=4, linewidth=1.4,
        )  # fmt: skip
    for method, name in ((found.baseline, "from scratch"), (found.oracle, "oracle")):
        if method.finished:
            level = float(method.score_T.mean())
            axes.axhline(level, color=SOFT, linewidth=0.8)
            axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), fontsize=7, va="bottom", ha="right")
    _finish(axes, "source prompts tried", "average score, reporting rows (%)")
    return figure


def scatter_panels(results: Results, kind: str = "average") -> Any:
    """Similarity against relative error reduction, a panel a target, one point a source prompt (Figures 5 and 8).

    Raises:
        UsageError: no target has a point.
    """
    found = correlations(results, kind)
    needs(any(c.prompts for c in found), "the correlation figure", "no source prompt has both similarity and gain")
    figure, panels = _panels(len(found), 2.3)
    for panel, one in zip(panels, found, strict=True):
        panel.axhline(0, color=SOFT, linewidth=0.7, linestyle=":")
        for i, source in enumerate(results.sources):
            here = [place for place, (task, _) in enumerate(one.prompts) if task == source]
            panel.plot(
                one.similarity_M[here], one.gain_M[here], MARKERS[i % 7], markersize=4, color=SERIES[i % 7],
                label=source, markeredgewidth=0,
            )  # fmt: skip
        told = "pending" if one.missing else "no correlation"
        if one.r is not None and one.p is not None:
            told = f"r = {one.r:.2f}, p = {one.p:.2g} over {one.sources} sources"
        panel.set_title(f"{one.target}\n{told}", fontsize=8)
        panel.tick_params(labelsize=6)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(6, len(names)), fontsize=7, frameon=False)
    figure.supxlabel(SIMILARITIES[kind], fontsize=8)
    figure.supylabel("relative error reduction (%)", fontsize=8)
    return figure


def score_against_size(series: Mapping[str, Sequence[tuple[float, float, float | None]]]) -> Any:
    """Score against the backbone's parameters, one line a method (SPoT Figure 1, SharPT Figure 2).

    Args:
        series: method to (parameters, mean score in percent, standard deviation or None), in rising size.

    Raises:
        UsageError: no method has a point.
    """
    needs(any(len(points) for points in series.values()), "score against size", "no backbone's study is finished")
    figure = new_figure(7.2, 3.8)
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        axes.errorbar(
            [p[0] for p in points], [p[1] for p in points], yerr=[p[2] or 0.0 for p in points], label=name, capsize=2,
            color=SERIES[i % 7], marker=MARKERS[i % 7], linestyle=STYLES[i % 7], markersize=5, linewidth=1.4,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M")
    _finish(axes, "parameters of the backbone", "average score (%)")
    return figure


def learning_curves(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Any:
    """Validation score against steps, one line a run.

    Args:
        curves: run to (step, score in percent), in rising step; runs without points are left out.

    Raises:
        UsageError: no run has a point.
    """
    drawn = {name: points for name, points in curves.items() if points}
    needs(bool(drawn), "learning curves", "no validation is finished")
    figure = new_figure(8.2, 3.6)
    axes = figure.subplots()
    for i, (name, points) in enumerate(drawn.items()):
        axes.plot(
            *zip(*points, strict=True), label=name, color=SERIES[i % 7], marker=MARKERS[(i + i // 7) % 7],
            linestyle=STYLES[(i + i // 7) % 7], markersize=3.5, linewidth=1.3,
        )  # fmt: skip
    _finish(axes, "steps", "validation score (%)")
    return figure
