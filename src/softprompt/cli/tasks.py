"""``softprompt tasks``: what can be trained on, and whether data is usable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.output import Answer, both, lines, table
from softprompt.errors import DataError, SoftpromptError

if TYPE_CHECKING:
    from softprompt.tasks.task import Task

tasks = group("tasks", "What can be trained on.")

Name = Annotated[str, typer.Argument(help="Task: a name or a path to your own.", show_default=False)]


@command(tasks, "ls")
def ls(data: o.Data = None) -> Answer:
    """List tasks: built-in ones, those of the papers, those of a data folder."""
    from softprompt.tasks.catalog import declared, generated, names_in_folder, task_names

    o.check_folder(data)
    root = data or (Path(os.environ["SOFTPROMPT_DATA"]) if os.environ.get("SOFTPROMPT_DATA") else None)
    local = set(names_in_folder(root)) if root is not None else set()
    built_in = generated()
    rows: list[dict[str, Any]] = []
    for name in task_names():
        about: Any = built_in[name]() if name in built_in else declared(name)
        place = "built in" if name in built_in else "data folder" if (_folder(about) in local) else "hub"
        if place == "hub" and about.hub is None:
            place = "your own files"
        rows.append(
            {"task": name, "category": about.category, "labels": about.labels, "metrics": about.metrics, "data": place}
        )
    known = {row["task"] for row in rows} | {_folder(declared(n)) for n in task_names() if n not in built_in}
    rows += [
        {"task": name, "category": "-", "labels": None, "metrics": (), "data": "data folder"}
        for name in sorted(local - known)
    ]
    shown = table(
        ["task", "category", "labels", "metrics", "data"],
        [[r["task"], r["category"], _labels(r["labels"]), ", ".join(r["metrics"]), r["data"]] for r in rows],
    )
    return Answer(data={"tasks": rows}, show=shown)


def _folder(about: Any) -> str:
    return getattr(about, "folder", None) or str(about.name)


def _labels(labels: tuple[str, ...] | None) -> str:
    if labels is None:
        return "free text"
    return ", ".join(labels) if len(labels) <= 5 else f"{', '.join(labels[:4])}, ... ({len(labels)})"


@command(tasks, "show")
def show(
    name: Name,
    data: o.Data = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    rows: Annotated[int, typer.Option("--rows", help="Examples to print.", min=1)] = 3,
) -> Answer:
    """Show a task and some of its examples as the backbone sees them."""
    (task,) = o.open_tasks([name], data)
    found = task.split(split, max_rows=rows)
    examples = [{"key": e.key, "inputs": e.inputs, "targets": e.targets} for e in found.examples]
    head = [f"{task.name} ({task.category})", f"labels   {_labels(task.labels)}", f"metrics  {', '.join(task.metrics)}"]
    head += [f"licence  {task.licence}"] + ([f"note     {task.note}"] if task.note else [])
    texts = [
        line for e in examples for line in ("", e["key"], f"  inputs   {e['inputs']}", f"  targets  {e['targets']}")
    ]
    facts = {"task": task.name, "category": task.category, "labels": task.labels, "metrics": task.metrics}
    return Answer(
        data={**facts, "licence": task.licence, "note": task.note, "split": split, "examples": examples},
        show=lines(*head, *texts),
    )


@command(tasks, "check")
def check(
    names: Annotated[list[str], typer.Argument(help="Tasks.", show_default=False)], data: o.Data = None
) -> Answer:
    """Read every row of a task's data and say what is there."""
    rows = [_checked(task) for task in o.open_tasks(names, data)]
    wrong = [f"{row['task']}: {row['problem']}" for row in rows if row["problem"]]
    if wrong:
        raise DataError("; ".join(wrong))
    shown = table(
        ["task", "train", "validation", "test", "train fingerprint"],
        [
            [r["task"], r["train"], r["validation"], r["test"], (r["fingerprints"].get("train") or "")[:12]]
            for r in rows
        ],
    )
    return Answer(data={"tasks": rows}, show=both(shown, lines("every row is usable")))


def _checked(task: Task) -> dict[str, Any]:
    """Rows by split; ``test`` may be absent, ``train`` and ``validation`` may not."""
    row: dict[str, Any] = {"task": task.name, "fingerprints": {}, "problem": None}
    for name in ("train", "validation", "test"):
        try:
            split = task.split(name)
        except SoftpromptError as error:
            row[name] = None
            if name != "test":
                row["problem"] = row["problem"] or str(error)
            continue
        row[name] = len(split)
        row["fingerprints"][name] = split.fingerprint
    return row
