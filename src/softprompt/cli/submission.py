"""``softprompt submission``: test predictions as the GLUE and SuperGLUE benchmarks want them, checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.flags import flag
from softprompt.cli.output import Answer, both, lines, table
from softprompt.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.library.store import Library
    from softprompt.tasks.submission import TaskPredictions
    from softprompt.tasks.task import Task

submission = group("submission", "Files for the GLUE and SuperGLUE leaderboards.")

Benchmark = Annotated[str, flag("--benchmark", "glue or superglue.")]
# The diagnostics are answered with the prompt of the entailment task.
STANDS_IN = {"axb": "rte", "axg": "rte", "mnli_mismatched": "mnli", "glue_rte": "rte"}


def _benchmark(name: str) -> Literal["glue", "superglue"]:
    if name not in ("glue", "superglue"):
        raise UnknownNameError("benchmark", name, ("glue", "superglue"))
    return cast('Literal["glue", "superglue"]', name)


@command(
    submission, "write", "softprompt submission write --library prompts --data DIR --out superglue",
    "softprompt submission write --library prompts --data DIR --out cb --task cb --split validation --partial",
)  # fmt: skip
def write(
    *,
    library: Annotated[
        str, flag("--library", "Where the prompts are, or a study's ledger; the best of each task is used.")
    ],
    out: Annotated[Path, flag("--out", "A new folder; the zip stands beside it.")],
    benchmark: Benchmark = "superglue",
    task: Annotated[
        str | None, flag("--task", "Only these tasks, commas between; all with a prompt if not given.")
    ] = None,
    data: o.Data = None,
    model: o.PromptBackboneFlags,
    split: Annotated[str, flag("--split", "test, or validation for a rehearsal.")] = "test",
    partial: Annotated[bool, flag("--partial", "Allow other row counts than the official ones.")] = False,
    max_new_tokens: o.MaxNewTokens = None,
    which: Annotated[str | None, flag("--study", "Of a ledger with several studies.")] = None,
) -> Answer:
    """Answer the test rows of every task and write a checked submission."""
    chosen = _benchmark(benchmark)
    wanted = opening.words(task, "--task") if task is not None else None
    with _prompts(library, which) as store:
        backbone = model.open(store.location)
        given, prompts, skipped = _given(store, backbone, chosen, wanted, data, split, max_new_tokens)
    return _written(chosen, given, prompts, skipped, out, complete=not partial)


@contextmanager
def _prompts(place: str, which: str | None) -> Iterator[Library]:
    """The library at a place; of a study's ledger one that is made of its prompts and vanishes again."""
    from softprompt.study.prompts import is_ledger, named_apart, study_records

    if not is_ledger(place):
        yield opening.open_library(place)
        return
    with tempfile.TemporaryDirectory(prefix="softprompt-") as folder:
        store = opening.open_library(folder, must_exist=False)
        for record in named_apart(study_records(place, which, ("sources", "targets"))):
            store.add(record)
        yield store


def _given(
    store: Library, backbone: Backbone, chosen: Literal["glue", "superglue"], wanted: tuple[str, ...] | None,
    data: Path | None, split: str, max_new_tokens: int | None,
) -> tuple[list[TaskPredictions], dict[str, str], list[str]]:  # fmt: skip
    """Every task's answers, the prompt of each, and what was left out."""
    from softprompt.tasks.submission import GLUE, SUPERGLUE
    from softprompt.tasks.tuned import as_tuned

    known = GLUE if chosen == "glue" else SUPERGLUE
    prompts = _best(store, backbone, wanted or tuple(known), asked=wanted is not None)
    for name in prompts:
        if name not in known:
            raise UnknownNameError(f"{chosen} task", name, known)
    tasks, skipped = _open(prompts, data, asked=wanted is not None)
    prompts = {t.name: prompts[t.name] for t in tasks}
    tasks = [as_tuned(t, store.get(prompts[t.name]).manifest, backbone.tokenizer) for t in tasks]
    return _answered(backbone, store, tasks, list(prompts.values()), split, max_new_tokens), prompts, skipped


def _written(
    chosen: Literal["glue", "superglue"], given: list[TaskPredictions], prompts: dict[str, str], skipped: list[str],
    out: Path, *, complete: bool,
) -> Answer:  # fmt: skip
    from softprompt.tasks.submission import write_submission

    written = write_submission(out, chosen, given, complete=complete)
    rows = [[name, facts["rows"], facts["invalid"]] for name, facts in written.items()]
    where = lines(*skipped, f"folder: {out}", f"zip: {out.with_name(out.name + '.zip')}")
    shown = both(table(["file", "rows", "invalid answers"], rows), where)
    data = {"files": written, "prompts": prompts, "folder": out}
    return Answer(data=data, show=shown, next=[("submission", "check", out)])


def _answered(
    backbone: Backbone, store: Library, tasks: list[Task], prompts: list[str], split: str, max_new_tokens: int | None
) -> list[TaskPredictions]:
    """Each task's rows answered with its prompt."""
    from softprompt.cli.training import eval_jobs
    from softprompt.inference.evaluate import answers, canonical_text
    from softprompt.tasks.encoded import answer_room
    from softprompt.tasks.submission import TaskPredictions

    stack, most = store.stack(prompts, backbone), answer_room(backbone, max_new_tokens)
    jobs = eval_jobs(tasks, range(len(tasks)), split, None, backbone, stack, most)
    found = answers(backbone, stack, jobs, max_target_tokens=most)
    canonical = canonical_text(backbone)
    return [
        TaskPredictions(
            task=job.task.name,
            labels=job.task.labels,
            examples=job.split.examples,
            predictions=[text for text, *_ in e],
            canonical=canonical,
        )
        for job, e in zip(jobs, found, strict=True)
    ]


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
            tasks.extend(opening.open_tasks([name], data))
        except UsageError as error:
            if asked:
                raise
            skipped.append(f"left out {name}: {error}")
    if not tasks:
        raise UsageError(f"no task has data to answer: {skipped[0]}")
    return tasks, skipped


@command(
    submission,
    "check",
    "softprompt submission check superglue",
    "softprompt submission check glue.zip --benchmark glue",
)
def check(
    path: Annotated[Path, typer.Argument(help="Folder or zip of a submission.", show_default=False)],
    benchmark: Benchmark = "superglue",
    partial: Annotated[bool, flag("--partial", "Allow other row counts than the official ones.")] = False,
) -> Answer:
    """Check ids, counts and label words of a submission."""
    from softprompt.tasks.submission import check_submission

    problems = check_submission(path, _benchmark(benchmark), complete=not partial)
    if problems:
        raise DataError("; ".join(problem.rstrip(".") for problem in problems) + ".")
    return Answer(data={"path": path, "problems": problems}, show=lines(f"{path}: nothing to complain about"))
