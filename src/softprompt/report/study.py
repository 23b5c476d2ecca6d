"""The report of a transfer study: one self-contained page, and each figure and table as a file.

``report_study(folder, out)`` needs the ledger alone: neither data nor backbone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.report.methods import bargain_section, methods_section, statistics_section, strategies_section
from softprompt.report.parts import key_values, page, table_html
from softprompt.report.sizes import SCALED, Sized, by_size, size_series, size_table, sized_studies
from softprompt.report.space import correlation_section, prompts_and_skills, space_section
from softprompt.report.tables import all_tables
from softprompt.report.transfers import gains_section, scores_section, summary_section
from softprompt.study.analysis import (
    best_table,
    gain_table,
)
from softprompt.study.curves import score_against_size
from softprompt.study.gold import gold_of
from softprompt.study.guarded import Guarded, guarded
from softprompt.study.headline import headline_table
from softprompt.study.heatmaps import relation_pair
from softprompt.study.judged import with_combination
from softprompt.study.outcomes import Outcomes
from softprompt.study.records import Floats, Results
from softprompt.study.retrieval import StrategyRow, strategy_rows, strategy_table
from softprompt.study.settings import Study


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


def report_study(
    folder: str | Path, out: str | Path, name: str | None = None, *, figures: bool = True,
    beside: Sequence[str | Path] = (),
) -> StudyReport:  # fmt: skip
    """Write the report of a study that was run in a ledger, finished or not.

    Where the targets' rows are at hand and are those of the study, answers are compared with them row by row.

    Args:
        folder: of the ledger.
        out: where ``report.html``, ``tables/`` and ``figures/`` go.
        name: of the study; may be left out where the ledger holds one.
        figures: whether figures are drawn (needs matplotlib).
        beside: ledgers of the same study on other backbones, for score against size (SharPT Figure 2).

    Raises:
        UsageError: the ledger holds no such study, or one beside it does not or has other targets.
    """
    from softprompt.study.run import collect, facts_of, open_study, skill_relations

    study, ledger, noted = open_study(folder, name)
    facts = facts_of(study, noted)
    results = with_combination(collect(study, ledger, facts))
    found = Outcomes.of(results)
    compared = guarded(results, found, *gold_of(study, ledger, facts))
    provenance = {**provenance_of(study, noted), "ledger": str(folder)}
    skills = skill_relations(study, ledger, facts)
    own = Sized(backbone=facts.backbone, parameters=facts.parameters, results=results)
    others = sized_studies(beside, study.name) if beside else []
    sizes = by_size([own, *others]) if facts.parameters else others
    return write_report(
        results, out, study=study, provenance=provenance, noted=noted, skills=skills, found=found, compared=compared,
        sizes=sizes, figures=figures,
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
    sizes: Sequence[Sized] = (),
    figures: bool = True,
) -> StudyReport:
    """Write a report of plain records; see `report_study`."""
    from softprompt.study.figures import draw_all

    folder = Path(out)
    rows = strategy_rows(results, study.strategies.best_of_top_k if study is not None else (1, 3, 6, 9, 12, 15))
    found = found or Outcomes.of(results)
    html = study_page(
        results, rows, title=title, study=study, provenance=provenance, noted=noted, skills=skills, found=found,
        compared=compared, sizes=sizes,
    )  # fmt: skip
    artifacts.write_bytes(folder / "report.html", html.encode())
    tables = []
    by_sizes = [size_table(sizes, SCALED, "model_sizes")] if sizes else []
    for table in (*all_tables(results, rows, found, compared, study), *by_sizes):
        for suffix, text in (("csv", table.to_csv()), ("tex", table.to_latex())):
            path = folder / "tables" / f"{table.name}.{suffix}"
            artifacts.write_bytes(path, text.encode(), durable=False)
            tables.append(path)
    drawn, left_out = draw_all(results, rows, folder / "figures", found) if figures else ([], [])
    pair = prompts_and_skills(results, skills) if figures else None
    if pair is not None:
        drawn += [relation_pair(*pair, folder / "figures" / f"task_relations.{kind}") for kind in ("png", "svg")]
    series = {name: points for name, points in size_series(sizes, SCALED).items() if points}
    if figures and series and len(sizes) > 1:
        drawn += [score_against_size(series, folder / "figures" / f"model_sizes.{kind}") for kind in ("png", "svg")]
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
    sizes: Sequence[Sized] = (),
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
        sizes: this study and the same on other backbones, smallest first.

    Returns:
        HTML that needs nothing else.
    """
    found = found or Outcomes.of(results)
    sections = [
        ("summary", "", summary_section(results, noted)),
        ("figures", "Key figures", table_html(headline_table(found, results, compared))),
        ("gains", "Who helps whom", gains_section(results)),
        ("scores", "Scores", scores_section(results)),
        ("embeddings", "Task space", space_section(results, skills)),
        ("correlation", "Similarity against gain", correlation_section(results)),
        ("methods", "Methods and their cost", methods_section(results, found, study, sizes)),
        ("strategies", "Choosing source prompts", strategies_section(results, rows)),
        ("bargain", "The bargain", bargain_section(results, found, compared)),
        ("statistics", "How sure is this", statistics_section(results, found)),
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
