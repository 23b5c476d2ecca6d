"""``softprompt tasks``: what can be trained on, and whether data is usable."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli import places
from softprompt.cli.app import command, group
from softprompt.cli.output import Answer, both, lines, table
from softprompt.errors import DataError

tasks = group("tasks", "What can be trained on.")

Name = Annotated[str, typer.Argument(help="Task: a name or a path to your own.", show_default=False)]
Names = Annotated[list[str], typer.Argument(help="Tasks: names, or paths to your own.", show_default=False)]


@command(tasks, "ls")
def ls(data: o.Data = None) -> Answer:
    """List built-in tasks, those of the papers and of a data folder."""
    from softprompt.tasks.catalog import names_in_folder
    from softprompt.tasks.show import list_mixtures, list_tasks

    o.check_folder(data)
    root = data or (Path(os.environ["SOFTPROMPT_DATA"]) if os.environ.get("SOFTPROMPT_DATA") else None)
    local = names_in_folder(root) if root is not None else []
    rows = [{**row, "source": "data folder" if row["task"] in local else row["source"]} for row in list_tasks()]
    known = {row["task"] for row in rows}
    rows += [{"task": name, "source": "data folder"} for name in local if name not in known]
    mixtures = list_mixtures()
    shown = table(
        ["task", "category", "metrics", "published rows", "source"],
        [[r["task"], r.get("category"), ", ".join(r.get("metrics", ())), r.get("train"), r["source"]] for r in rows],
    )
    end = lines(f"{len(rows)} tasks; mixtures: {', '.join(m['mixture'] for m in mixtures)}")
    after = [("tasks", "show", rows[0]["task"], *places.flags(data=data))] if rows else []
    return Answer(data={"tasks": rows, "mixtures": mixtures}, show=both(shown, end), next=after)


@command(tasks, "show")
def show(
    name: Name,
    data: o.Data = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "validation",
    text_column: o.TextColumns = None,
    label_column: o.LabelColumn = None,
    kind: o.Kind = None,
) -> Answer:
    """Show a task: one row as it lies in the file, and its texts."""
    from softprompt.tasks.show import describe

    (task,) = o.open_tasks([name], data, text_column=text_column, label_column=label_column, kind=kind)
    facts = describe(task, split)
    same = places.flags(data=data, text_column=text_column, label_column=label_column, kind=kind)
    return Answer(
        data=facts, show=lines(*_described(facts)), next=[("tasks", "check", name, *same), ("train", name, *same)]
    )


def _described(facts: Mapping[str, Any]) -> list[str]:
    rows = ", ".join(f"{name} {_count(count)}" for name, count in facts["rows"].items())
    labels = facts["labels"]
    shown = {
        "task": f"{facts['task']} ({facts['category']})",
        "source": ", ".join(f"{key} {value}" for key, value in facts["source"].items()),
        "rows": rows,
        "columns": f"inputs from {', '.join(facts['columns'])}; label from {facts['label_column']}",
        "labels": "free text" if labels is None else ", ".join(labels),
        "metrics": ", ".join(facts["metrics"]),
        "licence": facts["licence"],
        "note": facts["note"],
    }
    raw = [f"  {key}: {value}" for key, value in facts["raw"].items()]
    head = [f"{key:<8} {value}" for key, value in shown.items() if value]
    return [
        *head,
        "",
        f"a row of {facts['split']}:",
        *raw,
        "",
        f"inputs   {facts['inputs']}",
        f"targets  {facts['targets']}",
        *(["", "in natural language (for decoder-only backbones):"] if facts["natural"] else []),
        *(
            [f"inputs   {facts['natural']['inputs']!r}", f"targets  {facts['natural']['targets']}"]
            if facts["natural"]
            else []
        ),
        *([f"task     {facts['instruction']}"] if facts["instruction"] else []),
    ]


@command(tasks, "check")
def check(
    names: Names,
    data: o.Data = None,
    text_column: o.TextColumns = None,
    label_column: o.LabelColumn = None,
    kind: o.Kind = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Also check that this backbone's tokenizer can write the labels.")
    ] = None,
) -> Answer:
    """Read every row, count labels, and score the gold targets."""
    from softprompt.tasks.check import check_task

    tasks = o.open_tasks(names, data, text_column=text_column, label_column=label_column, kind=kind)
    model = o.open_backbone(backbone, "auto", "cpu") if backbone is not None else None
    reports = [check_task(task, backbone=model) for task in tasks]
    wrong = [f"{report['task']}: {problem}" for report in reports for problem in report["problems"]]
    if wrong:
        raise DataError("; ".join(wrong))
    rows = [_checked(report, split) for report in reports for split in report["splits"]]
    notes = [f"{report['task']}: {note}" for report in reports for note in report["notes"]]
    shown = table(["task", "split", "rows", "labels", "gold score", "fingerprint"], rows)
    same = places.flags(data=data, text_column=text_column, label_column=label_column, kind=kind, backbone=backbone)
    after = [("train", names[0], *same)]
    return Answer(data={"tasks": reports}, show=both(shown, lines(*notes, "every row is usable")), next=after)


def _checked(report: Mapping[str, Any], split: str) -> Sequence[Any]:
    found = report["splits"][split]
    labels = ", ".join(f"{label} {count}" for label, count in list(found["labels"].items())[:6]) or "free text"
    gold = found["gold_scores"]["score"] if found["gold_scores"] else None
    return [report["task"], split, found["rows"], labels, gold, found["fingerprint"][:12]]


def _count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


@command(tasks, "overlap")
def overlap(
    target: Annotated[str, typer.Argument(help="Target task; its validation rows are looked for.", show_default=False)],
    source: Annotated[
        list[str], typer.Argument(help="Source tasks; their training rows are compared.", show_default=False)
    ],
    data: o.Data = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Word overlap that counts as near.", min=0.0, max=1.0)
    ] = 0.8,
) -> Answer:
    """Find rows of a target among the training rows of sources."""
    from softprompt.tasks.contamination import contamination

    wanted, *others = o.open_tasks([target, *source], data)
    validation = wanted.split("validation")
    found = {
        other.name: contamination(validation, other.split("train"), threshold=threshold).to_dict() for other in others
    }
    shown = table(
        ["source", "its rows", "target rows", "exact", "near", "share %"],
        [[name, f["source_rows"], f["rows"], f["exact"], f["near"], f["share"]] for name, f in found.items()],
    )
    pairs = [
        f"{name}: {pair[0]} is like {pair[1]} ({pair[2]:.2f})" for name, f in found.items() for pair in f["pairs"][:3]
    ]
    return Answer(data={"target": wanted.name, "sources": found}, show=both(shown, lines(*pairs)))
