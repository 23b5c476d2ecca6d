"""The report of a transfer study: one self-contained page, and each figure and table as a file.

``report_study(folder, out)`` needs the ledger alone: neither data nor backbone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt.report.charts import Line, dendrogram, lines, scatter
from softprompt.report.methods import bargain_section, methods_section
from softprompt.report.parts import HeatCell, downloads, headline, heatmap, key_values, page, table_html
from softprompt.report.tables import all_tables, correlation_table, embedding_ablation
from softprompt.study.analysis import (
    Gains,
    best_sources,
    best_table,
    gain_table,
    positive_transfers,
    score_table,
    seed_table,
)
from softprompt.study.embeddings import (
    SIMILARITIES,
    SimilarityMap,
    cluster,
    correlations,
    run_similarities,
    task_similarities,
)
from softprompt.study.figures import colour_limit, colour_range, cost_series, relation_pair
from softprompt.study.generic import generic_table
from softprompt.study.gold import gold_of
from softprompt.study.guarded import Guarded, guarded
from softprompt.study.headline import headline_table
from softprompt.study.judged import predictor_table, with_combination
from softprompt.study.methods import against_scratch_table
from softprompt.study.outcomes import Outcomes
from softprompt.study.records import Floats, Results
from softprompt.study.retrieval import StrategyRow, strategy_rows, strategy_table
from softprompt.study.settings import Study
from softprompt.study.statistics import (
    compare_sources,
    comparison_table,
    excess_table,
    gain_interval,
    halves_table,
    stability_table,
)

LARGE = 40
"""More rows than this are drawn without numbers."""


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """What was written.

    Attributes:
        page: the HTML file.
        tables: CSV and LaTeX files.
        figures: PNG and SVG files.
        left_out: figures that cannot be drawn yet, and why.
    """

    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    left_out: tuple[str, ...]


def report_study(folder: str | Path, out: str | Path, name: str | None = None, *, figures: bool = True) -> StudyReport:
    """Write the report of a study that was run in a ledger, finished or not.

    Where the targets' rows are at hand and are those of the study, answers are compared with them row by row.

    Args:
        folder: of the ledger.
        out: where ``report.html``, ``tables/`` and ``figures/`` go.
        name: of the study; may be left out where the ledger holds one.
        figures: whether figures are drawn (needs matplotlib).

    Raises:
        UsageError: the ledger holds no such study.
    """
    from softprompt.study.run import collect, facts_of, open_study, skill_relations

    study, ledger, noted = open_study(folder, name)
    facts = facts_of(study, noted)
    results = with_combination(collect(study, ledger, facts))
    found = Outcomes.of(results)
    compared = guarded(results, found, *gold_of(study, ledger, facts))
    provenance = {**provenance_of(study, noted), "ledger": str(folder)}
    skills = skill_relations(study, ledger, facts)
    return write_report(
        results, out, study=study, provenance=provenance, noted=noted, skills=skills, found=found, compared=compared,
        figures=figures,
    )  # fmt: skip


def write_report(
    results: Results,
    out: str | Path,
    *,
    title: str = "",
    study: Study | None = None,
    provenance: Mapping[str, Any] | None = None,
    noted: Mapping[str, Any] | None = None,
    skills: tuple[Sequence[str], Floats] | None = None,
    found: Outcomes | None = None,
    compared: Guarded | None = None,
    figures: bool = True,
) -> StudyReport:
    """Write a report of plain records; see `report_study`."""
    from softprompt.study.figures import draw_all

    folder = Path(out)
    rows = strategy_rows(results, study.strategies.best_of_top_k if study is not None else (1, 3, 6, 9, 12, 15))
    found = found or Outcomes.of(results)
    html = study_page(
        results, rows, title=title, study=study, provenance=provenance, noted=noted, skills=skills, found=found,
        compared=compared,
    )  # fmt: skip
    artifacts.write_bytes(folder / "report.html", html.encode())
    tables = []
    for table in all_tables(results, rows, found, compared):
        for suffix, text in (("csv", table.to_csv()), ("tex", table.to_latex())):
            path = folder / "tables" / f"{table.name}.{suffix}"
            artifacts.write_bytes(path, text.encode(), durable=False)
            tables.append(path)
    drawn, left_out = draw_all(results, rows, folder / "figures", found) if figures else ([], [])
    pair = prompts_and_skills(results, skills) if figures else None
    if pair is not None:
        drawn += [relation_pair(*pair, folder / "figures" / f"task_relations.{kind}") for kind in ("png", "svg")]
    return StudyReport(
        page=folder / "report.html", tables=tuple(tables), figures=tuple(drawn), left_out=tuple(left_out)
    )


def study_page(
    results: Results,
    rows: Sequence[StrategyRow],
    *,
    title: str = "",
    study: Study | None = None,
    provenance: Mapping[str, Any] | None = None,
    noted: Mapping[str, Any] | None = None,
    skills: tuple[Sequence[str], Floats] | None = None,
    found: Outcomes | None = None,
    compared: Guarded | None = None,
) -> str:
    """The page of a study.

    Args:
        results: its records, finished or not.
        rows: from `strategy_rows`.
        title: where there is no study file.
        study: its settings.
        provenance: shown as a table.
        noted: the facts of the ledger (contamination).
        skills: tasks and their relations by SharPT's shared skills, float [N, N].
        found: scores and costs by method; read off the records where None.
        compared: comparisons with scratch by rows, where the targets' rows were at hand.

    Returns:
        HTML that needs nothing else.
    """
    found = found or Outcomes.of(results)
    sections = [
        ("summary", "", _summary(results, noted)),
        ("figures", "Figures", table_html(headline_table(found, results, compared))),
        ("gains", "Who helps whom", _gains(results)),
        ("scores", "Scores", _scores(results)),
        ("embeddings", "Task space", _space(results, skills)),
        ("correlation", "Similarity against gain", _correlation(results)),
        ("methods", "Methods and their cost", methods_section(results, found)),
        ("strategies", "Choosing source prompts", _strategies(results, rows)),
        ("bargain", "The bargain", bargain_section(results, found, compared)),
        ("statistics", "How sure is this", _statistics(results, found)),
    ]
    if study is not None:
        sections.append(("settings", "Settings", key_values(study.plain(), "The study file, every value resolved")))
    if provenance:
        sections.append(("provenance", "Provenance", key_values(provenance, "Where the numbers are from")))
    heading = title or (study.title or f"Transfer study {study.name}" if study is not None else "Transfer study")
    counts = ((results.sources, "source task"), (results.targets, "target task"), (results.seeds, "seed"))
    words = ", ".join(f"{len(items)} {word}{'' if len(items) == 1 else 's'}" for items, word in counts)
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    backbone = f" on {study.backbone}" if study is not None else ""
    return page(heading, words + backbone, sections, f"Made by softprompt, {when} UTC; this file needs no network.")


def _number(value: float, unit: str = "") -> str:
    return "pending" if np.isnan(value) else f"{value:.1f}{unit}"


def _summary(results: Results, noted: Mapping[str, Any] | None) -> str:
    best = best_sources(results)
    base, score, oracle = best.average
    gains = Gains.of(results)
    done, planned = int(gains.done_ST.sum()), gains.scores_STR.size
    numbers = [
        (_number(base), "from scratch, average"),
        (_number(score), "best source task per target"),
        (_number(oracle), "best source prompt (oracle)"),
        (_number(best.mean_gain, " %"), "mean relative error reduction"),
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
            f"<p>The best source of each target changes the error by {-interval.mean:+.1f} % on average, with a 95 % "
            f"bootstrap interval over targets and seeds of {-interval.high:+.1f} to {-interval.low:+.1f} %. The best is "
            'chosen on the data it is reported on here, as in the papers; <a href="#statistics">below</a> it is not.</p>'
        )
    for target, source, rows in (noted or {}).get("contamination", ()):
        parts.append(
            f'<p class="warn">Contamination: {rows} validation inputs of {escape(target)} stand among the training '
            f"inputs of {escape(source)}; its gain on {escape(target)} may be memory.</p>"
        )
    return "".join(parts)


def _gains(results: Results) -> str:
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


def _scores(results: Results) -> str:
    everything = table_html(seed_table(results), sortable=True)
    return (
        table_html(score_table(results), sortable=True, lead_rows=1)
        + table_html(best_table(results))
        + (table_html(generic, lead_rows=1) if (generic := generic_table(results)) is not None else "")
        + table_html(stability_table(results), sortable=True, lead_rows=1)
        + f"<details><summary>Every run</summary>{everything}</details>"
    )


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


def _space(results: Results, skills: tuple[Sequence[str], Floats] | None = None) -> str:
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
        legend=(f"{low:.2f}, least alike", f"{high:.2f} and above, most alike"),
    )  # fmt: skip


def _correlation(results: Results) -> str:
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


def _strategies(results: Results, rows: Sequence[StrategyRow]) -> str:
    series = [Line(name=name, points=points) for name, points in cost_series(rows).items()]
    for row in rows:
        if row.strategy in ("baseline", "oracle") and row.average.complete and row.average.value is not None:
            name = "from scratch" if row.strategy == "baseline" else "oracle"
            series.append(Line(name=name, points=[(0.0, row.average.value)], flat=True))
    chart = lines(
        "cost", series, title="Cost against gain", x_name="prompt tunings on the target",
        y_name="average score (percent)",
    )  # fmt: skip
    judged = predictor_table(results)
    return (
        table_html(strategy_table(rows, len(results.targets)), lead_rows=2)
        + chart
        + (table_html(judged) if judged is not None else "")
    )


def _statistics(results: Results, found: Outcomes) -> str:
    return (
        "<p>A search over many noisy runs finds a good one even where nothing transfers. These tables take that off.</p>"
        + table_html(halves_table(results))
        + table_html(excess_table(results))
        + table_html(against_scratch_table(found))
        + table_html(
            comparison_table(compare_sources(results), "sources_tested", "Each source task against tuning from scratch")
        )
    )


def provenance_of(study: Study, noted: Mapping[str, Any]) -> dict[str, Any]:
    """Backbone and data fingerprints of a study, from its ledger."""
    from softprompt import __version__

    return {
        "softprompt": __version__,
        "study": study.name,
        "backbone": noted["backbone"],
        "backbone fingerprint": noted["fingerprint"],
        "dtype": noted["dtype"],
        "data (train / validation)": {
            task: f"{row['train'][:16]} ({row['train_rows']:,} rows) / {row['validation'][:16]} ({row['validation_rows']:,} rows)"
            for task, row in noted["data"].items()
        },
    }


def text_summary(results: Results) -> str:
    """The main tables for a terminal."""
    rows = strategy_rows(results)
    tables = [gain_table(results), best_table(results), strategy_table(rows, len(results.targets))]
    return "\n\n".join(table.to_text() for table in tables)
