"""``softprompt tasks``: what can be trained on, and whether data is usable."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.flags import among, flag, spelled
from softprompt.cli.output import AT_HAND, Answer, both, lines, table
from softprompt.errors import DataError

tasks = group("tasks", "List, show and check tasks and your own data.")

Name = Annotated[
    str,
    typer.Argument(help="Task: a name or a path to your own.", show_default=False, autocompletion=o.task_completion),
]
Names = Annotated[
    list[str],
    typer.Argument(help="Tasks: names, or paths to your own.", show_default=False, autocompletion=o.task_completion),
]


@command(tasks, "ls", "softprompt tasks ls", "softprompt tasks ls --data DIR")
def ls(data: o.Data = None) -> Answer:
    """List built-in tasks, those of the papers and of a data folder."""
    from softprompt.tasks.catalog import names_in_folder
    from softprompt.tasks.show import list_mixtures, list_tasks

    opening.check_folder(data)
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
    first = (local[0] if local else AT_HAND, *spelled({"data": data}))
    after = [("tasks", "show", *first), ("train", *first)]
    return Answer(data={"tasks": rows, "mixtures": mixtures}, show=both(shown, end), next=after)


@command(tasks, "show", "softprompt tasks show my.csv", "softprompt tasks show cb --data DIR --split train")
def show(name: Name, *, rows: o.DataFlags, split: o.Split = "validation") -> Answer:
    """Show a task: one row as it lies in the file, and its texts."""
    from softprompt.tasks.show import describe

    (task,) = rows.tasks([name])
    facts = describe(task, split)
    same = rows.words()
    after = [("tasks", "check", name, *same), ("train", name, *same)]
    return Answer(data=facts, show=lines(*_described(facts)), next=after)


def _answers(metrics: Sequence[str]) -> str:
    """What stands in the place of labels where there are none."""
    return "none, the answer is a number" if "pearson" in metrics else "none, the answer is a text"


def _described(facts: Mapping[str, Any]) -> list[str]:
    rows = ", ".join(f"{name} {_count(count)}" for name, count in facts["rows"].items())
    labels = facts["labels"]
    shown = {
        "task": f"{facts['task']} ({facts['category']})",
        "source": ", ".join(f"{key} {value}" for key, value in facts["source"].items()),
        "rows": rows,
        "columns": f"inputs from {', '.join(facts['columns'])}; label from {facts['label_column']}",
        "labels": _answers(facts["metrics"]) if labels is None else ", ".join(labels),
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


@command(tasks, "check", "softprompt tasks check my.csv", "softprompt tasks check cb rte --data DIR --backbone builtin")
def check(
    names: Names,
    *,
    rows: o.DataFlags,
    backbone: Annotated[
        str | None,
        flag(
            "--backbone", "Also check that this backbone's tokenizer can write the labels.", complete=among(o.BACKBONES)
        ),
    ] = None,
) -> Answer:
    """Read every row, count labels, and score the gold targets."""
    from softprompt.tasks.check import check_task

    tasks = rows.tasks(names)
    model = opening.open_backbone(backbone, "auto", "cpu") if backbone is not None else None
    reports = [check_task(task, backbone=model) for task in tasks]
    wrong = [f"{report['task']}: {problem}" for report in reports for problem in report["problems"]]
    if wrong:
        raise DataError("; ".join(wrong))
    told = [_checked(report, split) for report in reports for split in report["splits"]]
    notes = [f"{report['task']}: {note}" for report in reports for note in report["notes"]]
    left_out = any(split["skipped"] or split["unlabelled"] for report in reports for split in report["splits"].values())
    usable = "every other row is usable" if left_out else "every row is usable"
    shown = table(["task", "split", "rows", "labels", "gold score", "fingerprint"], told)
    after = [
        ("train", names[0], *rows.words(), *spelled({"backbone": backbone})),
        ("tasks", "show", names[0], *rows.words()),
    ]
    return Answer(data={"tasks": reports}, show=both(shown, lines(*notes, usable)), next=after)


def _checked(report: Mapping[str, Any], split: str) -> Sequence[Any]:
    found = report["splits"][split]
    labels = ", ".join(f"{label} {count}" for label, count in list(found["labels"].items())[:6]) or "free text"
    gold = found["gold_scores"]["score"] if found["gold_scores"] else None
    return [report["task"], split, found["rows"], labels, gold, found["fingerprint"][:12]]


def _count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


@command(
    tasks, "overlap", "softprompt tasks overlap cb mnli --data DIR",
    "softprompt tasks overlap cb mnli snli --data DIR --threshold 0.6",
)  # fmt: skip
def overlap(
    target: Annotated[str, typer.Argument(help="Target task; its validation rows are looked for.", show_default=False)],
    source: Annotated[
        list[str], typer.Argument(help="Source tasks; their training rows are compared.", show_default=False)
    ],
    data: o.Data = None,
    threshold: Annotated[float, flag("--threshold", "Word overlap that counts as near.", min=0.0, max=1.0)] = 0.8,
) -> Answer:
    """Find rows of a target among the training rows of sources."""
    from softprompt.tasks.contamination import contamination

    wanted, *others = opening.open_tasks([target, *source], data)
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
    same = spelled({"data": data})
    after = [("train", *source[:1], *same, "--library", "prompts"), ("transfer", target, *same, "--library", "prompts")]
    return Answer(data={"target": wanted.name, "sources": found}, show=both(shown, lines(*pairs)), next=after)
