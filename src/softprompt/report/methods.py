"""Sections of a study's page: methods and their cost, ways of choosing, the bargain of transfer, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from softprompt.report.charts import Line, Spot, lines, spots
from softprompt.report.parts import table_html
from softprompt.report.sizes import SCALED, Sized, size_series, size_table
from softprompt.study.bargain import bargain_table, race_table
from softprompt.study.curves import cost_series
from softprompt.study.guarded import Guarded, beaten_table, harm_table
from softprompt.study.judged import predictor_table
from softprompt.study.methods import against_scratch_table, cost_points, cost_table
from softprompt.study.outcomes import Outcomes
from softprompt.study.panels import ablation_table, by_target_table, crossed_table
from softprompt.study.records import Results
from softprompt.study.retrieval import StrategyRow, strategy_table
from softprompt.study.schedules import schedule_table
from softprompt.study.settings import Study
from softprompt.study.statistics import compare_sources, comparison_table, excess_table, halves_table


def methods_section(results: Results, found: Outcomes, study: Study | None = None, sizes: Sequence[Sized] = ()) -> str:
    """Score beside cost, the two against each other, and SharPT's Tables 1 to 3 and Figure 2 in this study's form.

    Args:
        results: of the study.
        found: its outcomes.
        study: its settings, for the tasks of its mixtures.
        sizes: this study and the same on other backbones, smallest first.
    """
    points = [
        Spot(name=name, x=share, y=score, low=interval.low, high=interval.high)
        for name, share, score, interval in cost_points(found)
    ]
    chart = spots(
        "score-cost", points, title="Score against cost", x_name="share of the oracle's cost",
        y_name="points over prompt tuning",
    )  # fmt: skip
    return (
        "<p>Prompt tuning, transfer and the other methods on the same rows, with the same seeds and the same way of "
        "choosing checkpoints.</p>"
        + table_html(cost_table(found), lead_rows=2)
        + chart
        + f"<h3>By target task</h3>{table_html(by_target_table(found, results))}"
        + _sharpt_parts(results, found, study)
        + _sizes_part(sizes)
    )


def _sharpt_parts(results: Results, found: Outcomes, study: Study | None) -> str:
    """SharPT's Tables 2 and 3; what the study did not run is said, where SharPT is among its methods."""
    crossed, ablated = crossed_table(found, results, study), ablation_table(found, results)
    parts = [] if crossed is None else [f"<h3>Across categories of tasks</h3>{table_html(crossed)}"]
    if ablated is not None:
        parts.append(f"<h3>What the parts of SharPT are worth</h3>{table_html(ablated)}")
    elif any(o.strategy == "sharpt" for o in found.methods):
        parts.append(
            '<p class="soft">SharPT\'s ablations (its Table 3) are no part of this study: name them as '
            "<code>ablations</code> under <code>[sharpt]</code> and run it again.</p>"
        )
    return "".join(parts)


def _sizes_part(sizes: Sequence[Sized]) -> str:
    """Score against the backbone's parameters (SharPT Figure 2); with one backbone its table alone."""
    if not sizes:
        return ""
    table = table_html(size_table(sizes, SCALED, "model_sizes"))
    if len(sizes) == 1:
        return (
            f'<h3>By size of the backbone</h3>{table}<p class="soft">One size was measured. The same study on other '
            "backbones makes this SharPT's Figure 2: <code>softprompt study report LEDGER --beside OTHER-LEDGER</code>.</p>"
        )
    series = [
        Line(name=name, points=[p[:2] for p in points], spread=[math.nan if p[2] is None else p[2] for p in points])
        for name, points in size_series(sizes, SCALED).items()
    ]
    chart = lines(
        "score-size", series, title="Score against size", x_name="parameters of the backbone",
        y_name="average score (percent)", sizes=True,
    )  # fmt: skip
    return f"<h3>By size of the backbone</h3>{chart}{table}"


def bargain_section(results: Results, found: Outcomes, compared: Guarded | None) -> str:
    """What of the search can be dropped, the races, and whether transfer harms."""
    race, rungs = race_table(found, results), schedule_table(found, results)
    parts = [
        table_html(bargain_table(found, results)),
        table_html(race)
        if race is not None
        else '<p class="soft">The curves of the transfer runs are not known: no race can be replayed.</p>',
        table_html(rungs) if rungs is not None else "",
    ]
    if compared is None or compared.blind(len(results.targets)):
        why = _reasons((compared or Guarded()).left_out)
        parts.append(
            f'<p class="soft">Whether transfer harms is compared row by row, which needs the targets\' rows: they were not at '
            f"hand{f' ({escape(why)})' if why else ''}.</p>"
        )
        return "".join(parts)
    if not compared.harms:
        return "".join(
            [*parts, '<p class="pending">No transferred prompt is finished yet to compare with scratch.</p>']
        )
    return "".join([*parts, table_html(harm_table(compared)), table_html(beaten_table(compared))])


def _reasons(left_out: Mapping[str, str]) -> str:
    """Why targets are left out, each reason once: ``rte, cb: its data is not on this machine``."""
    targets: dict[str, list[str]] = {}
    for target, reason in left_out.items():
        targets.setdefault(reason.rstrip("."), []).append(target)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in targets.items())


def strategies_section(results: Results, rows: Sequence[StrategyRow]) -> str:
    """Ways of choosing source prompts, their cost against their gain, and how well predictors rank."""
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


def statistics_section(results: Results, found: Outcomes) -> str:
    """Choice and report apart, as many seeds from scratch, and paired tests."""
    return (
        "<p>A search over many noisy runs finds a good one even where nothing transfers. These tables take that off.</p>"
        + table_html(halves_table(results))
        + table_html(excess_table(results))
        + table_html(against_scratch_table(found))
        + table_html(
            comparison_table(compare_sources(results), "sources_tested", "Each source task against tuning from scratch")
        )
    )
