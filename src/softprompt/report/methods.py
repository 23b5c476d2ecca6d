"""Sections of a study's page: methods and their cost, and the bargain of transfer."""

from __future__ import annotations

from html import escape

from softprompt.report.charts import Spot, spots
from softprompt.report.parts import table_html
from softprompt.study.bargain import bargain_table, race_table
from softprompt.study.guarded import Guarded, beaten_table, harm_table
from softprompt.study.methods import by_target_table, cost_points, cost_table
from softprompt.study.outcomes import Outcomes
from softprompt.study.records import Results
from softprompt.study.schedules import schedule_table


def methods_section(results: Results, found: Outcomes) -> str:
    """Score beside cost, the two against each other, and scores by target."""
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
        + table_html(by_target_table(found, results), lead_rows=2)
    )


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
        why = "; ".join(
            f"{target}: {reason.rstrip('.')}" for target, reason in (compared or Guarded()).left_out.items()
        )
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
