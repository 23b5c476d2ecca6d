"""``softprompt submission``: test predictions as the GLUE and SuperGLUE benchmarks want them, checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import counting
from softprompt.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.library.store import Library
    from softprompt.tasks.task import Task

submission = group("submission", "Files for the GLUE and SuperGLUE leaderboards.")

Benchmark = Annotated[str, typer.Option("--benchmark", help="glue or superglue.")]
# The diagnostics are answered with the prompt of the entailment task.
STANDS_IN = {"axb": "rte", "axg": "rte", "mnli_mismatched": "mnli", "glue_rte": "rte"}


def _benchmark(name: str) -> Literal["glue", "superglue"]:
    if name not in ("glue", "superglue"):
        raise UnknownNameError("benchmark", name, ("glue", "superglue"))
    return cast('Literal["glue", "superglue"]', name)


@command(submission, "write")
def write(
    library: Annotated[
        str,
        typer.Option("--library", help="Where the prompts are, or a study's ledger; the best of each task is used."),
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder; the zip stands beside it.")],
    benchmark: Benchmark = "superglue",
    task: Annotated[
        str | None, typer.Option("--task", help="Only these tasks, commas between; all with a prompt if not given.")
    ] = None,
    data: o.Data = None,
    split: Annotated[str, typer.Option("--split", help="test, or validation for a rehearsal.")] = "test",
    partial: Annotated[bool, typer.Option("--partial", help="Allow other row counts than the official ones.")] = False,
    max_new_tokens: o.MaxNewTokens = None,
    which: Annotated[str | None, typer.Option("--study", help="Of a ledger with several studies.")] = None,
    backbone: o.BackboneOf = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Answer the test rows of every task and write a checked submission."""
    with _prompts(library, which) as store:
        model = o.open_backbone(o.backbone_of(backbone, store.location), dtype, device, revision)
        wanted = o.words(task, "--task") if task is not None else None
        return _written(store, model, _benchmark(benchmark), wanted, data, split, out, not partial, max_new_tokens)


@contextmanager
def _prompts(place: str, which: str | None) -> Iterator[Library]:
    """The library at a place; of a study's ledger one that is made of its prompts and vanishes again."""
    from softprompt.study.prompts import is_ledger, named_apart, study_records

    if not is_ledger(place):
        yield o.open_library(place)
        return
    with tempfile.TemporaryDirectory(prefix="softprompt-") as folder:
        store = o.open_library(folder, must_exist=False)
        for record in named_apart(study_records(place, which, ("sources", "targets"))):
            store.add(record)
        yield store


def _written(
    store: Library, model: Backbone, chosen: Literal["glue", "superglue"], wanted: tuple[str, ...] | None,
    data: Path | None, split: str, out: Path, complete: bool, max_new_tokens: int | None,
) -> Answer:  # fmt: skip
    from softprompt.inference.evaluate import EvalJob, answers, canonical_text
    from softprompt.prompts.stack import PromptStack
    from softprompt.tasks.encoded import answer_room, encode_split, input_room
    from softprompt.tasks.submission import GLUE, SUPERGLUE, TaskPredictions, write_submission
    from softprompt.tasks.tuned import as_tuned

    known = GLUE if chosen == "glue" else SUPERGLUE
    prompts = _best(store, model, wanted or tuple(known), asked=wanted is not None)
    for name in prompts:
        if name not in known:
            raise UnknownNameError(f"{chosen} task", name, known)
    tasks, skipped = _open(prompts, data, asked=wanted is not None)
    prompts = {t.name: prompts[t.name] for t in tasks}
    tasks = [as_tuned(t, store.get(prompts[t.name]).manifest, model.tokenizer) for t in tasks]
    stack = PromptStack.of([store.load(p, model).float().to(model.device) for p in prompts.values()])
    most = answer_room(model, max_new_tokens)
    room = {t.name: input_room(model, stack, t.labels, most) for t in tasks}
    splits = [encode_split(t.split(split), model, max_input_tokens=room[t.name], max_target_tokens=None) for t in tasks]
    jobs = [EvalJob(run=i, task=t, split=s) for i, (t, s) in enumerate(zip(tasks, splits, strict=True))]
    with counting("answering") as progress:
        found = answers(model, stack, jobs, max_target_tokens=most, progress=progress)
    canonical = canonical_text(model)
    given = [
        TaskPredictions(
            task=t.name, labels=t.labels, examples=s.examples, predictions=[text for text, _ in e], canonical=canonical
        )
        for t, s, e in zip(tasks, splits, found, strict=True)
    ]
    written = write_submission(out, chosen, given, complete=complete)
    rows = [[name, facts["rows"], facts["invalid"]] for name, facts in written.items()]
    where = lines(*skipped, f"folder: {out}", f"zip: {out.with_name(out.name + '.zip')}")
    shown = both(table(["file", "rows", "invalid answers"], rows), where)
    return Answer(
        data={"files": written, "prompts": prompts, "folder": out}, show=shown, next=[("submission", "check", out)]
    )


def _best(library: Library, backbone: Backbone, tasks: tuple[str, ...], *, asked: bool) -> dict[str, str]:
    """The best prompt of each task; the diagnostics use the entailment task's, a task without one that of a mixture."""
    entries = library.list(backbone=backbone)
    best: dict[str, str] = {}
    for task in tasks:
        names = (task, STANDS_IN.get(task, task))
        fitting = [e for e in entries if e.task in names] or [e for e in entries if set(names) & set(parts_of(e.task))]
        if fitting:
            best[task] = max(fitting, key=lambda e: (e.score if e.score is not None else -1.0, e.name)).name
        elif asked:
            raise UsageError(
                f"library {library.location} has no prompt of task '{task}' for backbone '{backbone.name}'."
            )
    if not best:
        raise UsageError(f"library {library.location} has no prompt of any task of this benchmark: train them first.")
    return best


def parts_of(name: str) -> tuple[str, ...]:
    """The tasks of a mixture that a prompt is named after; none for a task, or a mixture that is not known here."""
    from softprompt.tasks.catalog import is_mixture
    from softprompt.tasks.mixture import load_mixture

    return load_mixture(name).tasks if is_mixture(name) else ()


def _open(prompts: dict[str, str], data: Path | None, *, asked: bool) -> tuple[list[Task], list[str]]:
    """The tasks that have data; without --task the others are left out and named."""
    tasks: list[Task] = []
    skipped: list[str] = []
    for name in prompts:
        try:
            tasks.extend(o.open_tasks([name], data))
        except UsageError as error:
            if asked:
                raise
            skipped.append(f"left out {name}: {error}")
    if not tasks:
        raise UsageError(f"no task has data to answer: {skipped[0]}")
    return tasks, skipped


@command(submission, "check")
def check(
    path: Annotated[Path, typer.Argument(help="Folder or zip of a submission.", show_default=False)],
    benchmark: Benchmark = "superglue",
    partial: Annotated[bool, typer.Option("--partial", help="Allow other row counts than the official ones.")] = False,
) -> Answer:
    """Check ids, counts and label words of a submission."""
    from softprompt.tasks.submission import check_submission

    problems = check_submission(path, _benchmark(benchmark), complete=not partial)
    if problems:
        raise DataError("; ".join(problem.rstrip(".") for problem in problems) + ".")
    return Answer(data={"path": path, "problems": problems}, show=lines(f"{path}: nothing to complain about"))
