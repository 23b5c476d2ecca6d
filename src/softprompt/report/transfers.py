"""Sections of a study's page: its numbers in short, who helps whom, and the scores behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from softprompt.report.parts import HeatCell, downloads, headline, heatmap, minus, table_html
from softprompt.study.analysis import (
    Gains,
    best_sources,
    best_table,
    gain_table,
    positive_transfers,
    score_table,
    seed_table,
)
from softprompt.study.generic import generic_table
from softprompt.study.heatmaps import colour_limit
from softprompt.study.records import Results
from softprompt.study.statistics import gain_interval, stability_table


def summary_section(results: Results, noted: Mapping[str, Any] | None) -> str:
    """The large numbers, and what a reader has to know before reading on: pending, diverged, contaminated."""
    best = best_sources(results)
    base, score, oracle = best.average
    gains = Gains.of(results)
    done, planned = int(gains.done_ST.sum()), gains.scores_STR.size
    numbers = [
        (_number(base), "from scratch, average"),
        (_number(score), "best source task per target"),
        (_number(oracle), "best source prompt (oracle)"),
        (minus(_number(best.mean_gain, " %")), "mean relative error reduction"),
        (f"{done} / {planned}", "transfer runs finished"),
    ]
    parts = [headline(numbers)]
    if done < planned:
        parts.append(
            f'<p class="warn">{planned - done} of {planned} transfer runs are not finished. They are shown as pending, and '
            "an average over them is given only where all of its parts are there.</p>"
        )
    diverged = [run for run in results.runs if run.diverged]
    if diverged:
        names = ", ".join(
            f"{run.source[0] if run.source else 'scratch'} to {run.target}, seed {run.seed}" for run in diverged[:6]
        )
        more = ", ..." if len(diverged) > 6 else ""
        parts.append(
            f'<p class="warn">{len(diverged)} runs met a loss that is not finite ({escape(names)}{more}); '
            "their last good checkpoints count.</p>"
        )
    interval = gain_interval(results)
    if not np.isnan(interval.mean) and results.runs and len(results.targets) * len(results.seeds) > 1:
        parts.append(
            f"<p>The best source of each target changes the error by {minus(f'{-interval.mean:+.1f}')} % on average, with a "
            f"95 % bootstrap interval over targets and seeds of {minus(f'{-interval.high:+.1f} to {-interval.low:+.1f}')} %. The best is "
            'chosen on the data it is reported on here, as in the papers; <a href="#statistics">below</a> it is not.</p>'
        )
    for target, source, rows in (noted or {}).get("contamination", ()):
        parts.append(
            f'<p class="warn">Contamination: {rows} validation {"input" if rows == 1 else "inputs"} of {escape(target)} '
            f"{'stands' if rows == 1 else 'stand'} among the training inputs of {escape(source)}; its gain on "
            f"{escape(target)} may be memory.</p>"
        )
    return "".join(parts)


def _number(value: float, unit: str = "") -> str:
    return "pending" if np.isnan(value) else f"{value:.1f}{unit}"


def gains_section(results: Results) -> str:
    """The heatmap of relative error reduction (SPoT Figure 3) and the positive transfers (Table 7)."""
    gains = Gains.of(results)
    mean, planned = gains.mean_ST, len(results.seeds)
    base = gains.base_TR
    best = best_sources(results)
    cells = []
    for s, source in enumerate(results.sources):
        row = []
        for t, target in enumerate(results.targets):
            done = int(gains.done_ST[s, t])
            if np.isnan(mean[s, t]):
                why = (
                    "from scratch scores 100, nothing is left to reduce"
                    if done and (base[t] == 100).all()
                    else "pending"
                )
                row.append(HeatCell(value=None, label=f"{source} to {target}: {why} ({done} of {planned} runs)"))
                continue
            scores = gains.scores_STR[s, t]
            spread = ", ".join(f"{v:.1f}" for v in scores[~np.isnan(scores)])
            scratch = base[t][~np.isnan(base[t])]
            label = (
                f"{source} to {target}: {mean[s, t]:+.1f} % relative error reduction; score {np.nanmean(scores):.1f} "
                f"(runs {spread}) against {scratch.mean():.1f} from scratch; {done} of {planned} runs"
            )
            mark = "part" if done < planned else "best" if best.source_T[t] == source else ""
            row.append(HeatCell(value=float(mean[s, t]), label=label, mark=mark))
        cells.append(row)
    heat = heatmap(
        "gain-map", results.sources, results.targets, cells, caption="Relative error reduction on each target (percent)",
        scale=colour_limit(mean),
    )  # fmt: skip
    notes = "The best source of each target is bold; dotted underlines mark cells with unfinished runs."
    return f'{heat}<p class="soft">{notes}</p>{downloads(gain_table(results))}{_positive(results)}'


def _positive(results: Results, shown: int = 12) -> str:
    table = positive_transfers(results)
    if not table.rows:
        return f'<p class="soft">No finished pair has more than 10 % relative error reduction. {escape(" ".join(table.notes))}</p>'
    if len(table.rows) <= shown:
        return table_html(table)
    more = f"<details><summary>All {len(table.rows)} of them</summary>{table_html(table)}</details>"
    return table_html(replace(table, rows=table.rows[:shown]), save=False) + more


def scores_section(results: Results) -> str:
    """Every score, sources by targets (SPoT Table 6), the best of them, benchmarks, stability, and every run."""
    everything = table_html(seed_table(results), sortable=True)
    return (
        table_html(score_table(results), sortable=True, lead_rows=1)
        + table_html(best_table(results))
        + (table_html(generic, lead_rows=1) if (generic := generic_table(results)) is not None else "")
        + table_html(stability_table(results), sortable=True, lead_rows=1)
        + f"<details><summary>Every run</summary>{everything}</details>"
    )
