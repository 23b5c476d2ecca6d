"""Every table of a study's report, in one list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from softprompt.study.analysis import best_table, gain_table, positive_transfers, score_table, seed_table
from softprompt.study.bargain import bargain_table, race_table
from softprompt.study.embeddings import SIMILARITIES, correlations
from softprompt.study.generic import generic_table
from softprompt.study.guarded import Guarded, beaten_table, harm_table
from softprompt.study.headline import headline_table
from softprompt.study.judged import predictor_table
from softprompt.study.methods import against_scratch_table, cost_table
from softprompt.study.outcomes import Outcomes
from softprompt.study.panels import ablation_table, by_target_table, crossed_table
from softprompt.study.records import Results
from softprompt.study.retrieval import StrategyRow, strategy_table
from softprompt.study.schedules import schedule_table
from softprompt.study.settings import Study
from softprompt.study.statistics import compare_sources, comparison_table, excess_table, halves_table, stability_table
from softprompt.study.tables import Table


def all_tables(
    results: Results, rows: Sequence[StrategyRow], found: Outcomes | None = None, compared: Guarded | None = None,
    study: Study | None = None,
) -> list[Table]:  # fmt: skip
    """Every table of the report; those that have nothing to show are left out."""
    found = found or Outcomes.of(results)
    race = race_table(found, results)
    by_rows = [harm_table(compared), beaten_table(compared)] if compared is not None and compared.harms else []
    return [
        headline_table(found, results, compared),
        score_table(results),
        gain_table(results),
        positive_transfers(results),
        best_table(results),
        *([generic] if (generic := generic_table(results)) is not None else []),
        stability_table(results),
        strategy_table(rows, len(results.targets)),
        by_target_table(found, results),
        *([crossed] if (crossed := crossed_table(found, results, study)) is not None else []),
        *([ablated] if (ablated := ablation_table(found, results)) is not None else []),
        cost_table(found),
        bargain_table(found, results),
        *([race] if race is not None else []),
        *([rungs] if (rungs := schedule_table(found, results)) is not None else []),
        *by_rows,
        *(correlation_table(results, kind) for kind in (SIMILARITIES if results.embeddings else ())),
        *([embedding_ablation(results)] if results.other_embeddings else []),
        *([judged] if (judged := predictor_table(results)) is not None else []),
        halves_table(results),
        excess_table(results),
        against_scratch_table(found),
        comparison_table(compare_sources(results), "sources_tested", "Each source task against tuning from scratch"),
        seed_table(results),
    ]


def correlation_table(results: Results, kind: str) -> Table:
    """Pearson's r and p of similarity and gain, by target (Figure 8's titles)."""
    rows = [
        (
            c.target,
            *(("pending", "pending") if c.r is None or c.p is None else (f"{c.r:.3f}", f"{c.p:.2g}")),
            str(len(c.prompts)),
        )
        for c in correlations(results, kind)
    ]
    return Table(
        name=f"correlation_{kind}",
        title=f"Correlation of {SIMILARITIES[kind]} with relative error reduction",
        columns=("target", "r", "p", "source prompts"),
        rows=tuple(rows),
    )


def embedding_ablation(results: Results) -> Table:
    """How well embeddings at other steps predict gains: mean Pearson r over targets (footnote 13)."""
    sets = {"the study's step": results.embeddings, **results.other_embeddings}
    rows: list[tuple[str, ...]] = []
    for name, embeddings in sets.items():
        means = []
        for kind in SIMILARITIES:
            found = [c.r for c in correlations(results, kind, embeddings) if c.r is not None]
            means.append(f"{np.mean(found):.3f} ({len(found)} targets)" if found else "pending")
        rows.append((f"{name} steps" if name.isdigit() else name, *means))
    return Table(
        name="embedding_ablation",
        title="Task embeddings from other checkpoints: mean Pearson r of similarity and gain over targets",
        columns=("embedding", *SIMILARITIES.values()),
        rows=tuple(rows),
    )
