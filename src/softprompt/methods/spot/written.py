"""A transfer's report on the disk: what was tried, cost, curve, gain, which checkpoint, and the command to repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.methods.method import Result
from softprompt.methods.spot.outcomes import TargetReport
from softprompt.training.run_dir import settings_plain
from softprompt.training.settings import TrainSettings


def write_report(folder: Path, report: TargetReport, train: TrainSettings, command: str) -> Path:
    """Write ``report-TARGET.json`` and the same for people, ``report-TARGET.md``, into a run directory.

    Args:
        folder: the run directory.
        report: of one target.
        train: settings of its runs.
        command: what to run to make it again.

    Returns:
        The Markdown file.
    """
    facts = {**report.plain(), "settings": settings_plain(train), "command": command}
    artifacts.write_json(folder / f"report-{report.target}.json", facts)
    page = folder / f"report-{report.target}.md"
    artifacts.write_bytes(page, page_text(report, train, command).encode())
    return page


def save_adapted(folder: Path, report: TargetReport) -> Path | None:
    """Save SharPT's generator where it is what a transfer delivers: a folder that `softprompt sharpt predict` takes.

    Args:
        folder: the run directory.
        report: of one target.

    Returns:
        The generator's folder; None where a prompt is delivered.
    """
    if report.adapted is None:
        return None
    place = folder / "sharpt" / report.adapted.space.name
    report.adapted.space.save(place, replace=True)
    return place


def page_text(report: TargetReport, train: TrainSettings, command: str) -> str:
    """The report in Markdown."""
    parts = [f"# Transfer onto {report.target}", "", report.verdict, "", *_tried(report)]
    parts += ["", *_curves(report.outcomes), "", *_ranking(report.ranking), "", *_made_with(report, train, command), ""]
    return "\n".join(parts)


def _tried(report: TargetReport) -> list[str]:
    columns = ("strategy", "started from", "runs", "chosen run", "best step", "score", "gain over scratch (interval)",
               "forward tokens")  # fmt: skip
    rows = [
        (o.strategy, _sources(o), o.runs, o.run, o.step, f"{o.score:.2f}", _gain(o), f"{o.cost:,}")
        for o in report.outcomes
    ]
    notes = [f"- {o.strategy}: {note}" for o in report.outcomes for note in o.notes]
    notes += [f"- {strategy} was not tried: {why}" for strategy, why in report.refused.items()]
    notes.append(
        "- Scores are percents on the reporting half of validation; checkpoints and runs were chosen on the other half. "
        "One forward token is a position through the frozen backbone; a training position counts 2. Task embeddings took "
        f"{report.facts.get('embedding_cost', 0):,} of them."
    )
    return ["## What was tried", "", *_table(columns, rows), "", *notes]


def _sources(outcome: Result) -> str:
    return ", ".join(f"{name} {w:.2f}" if w != 1.0 else name for name, w in outcome.sources) or "-"


def _gain(outcome: Result) -> str:
    found = outcome.versus_scratch
    if not found:
        return "-"
    return f"{found['gain']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f}, {100 * found['level']:.0f} %)"


def _curves(outcomes: Sequence[Result]) -> list[str]:
    """Score on the selecting half by step, a column each strategy's chosen run."""
    steps = sorted({int(point["step"]) for o in outcomes for point in o.curve})
    by_step = [{int(point["step"]): float(point["score"]) for point in o.curve} for o in outcomes]
    rows = [(step, *(f"{c[step]:.1f}" if step in c else "-" for c in by_step)) for step in steps]
    head = ["## Validation while training, selecting half, percent", ""]
    return [*head, *_table(("step", *(o.strategy for o in outcomes)), rows)]


def _ranking(ranking: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        (row["rank"], row["name"], row["task"], f"{row['per_token']:.4f}", f"{row['average']:.4f}") for row in ranking
    ]
    return ["## Ranking of the source prompts", "", *_table(("rank", "prompt", "task", "per token", "average"), rows)]


def _made_with(report: TargetReport, train: TrainSettings, command: str) -> list[str]:
    settings = ", ".join(f"{name} {value}" for name, value in settings_plain(train).items())
    facts = [f"- {name.replace('_', ' ')}: {value}" for name, value in report.facts.items()]
    return ["## Made with", "", *facts, f"- settings: {settings}", "", "Again:", "", "```", command, "```"]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(columns), "|" + "---|" * len(columns), *(line(row) for row in rows)]
