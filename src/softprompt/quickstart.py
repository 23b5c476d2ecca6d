"""A first look from end to end: source prompts, library, task embeddings, ranking, transfer, and a report.

On the built-in tasks the source prompts of the released library are used where they fit the backbone; everything else
is trained here.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.api import delivered_record, tune_tasks
from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError
from softprompt.inference.evaluate import EvalJob, answers
from softprompt.library.metric import DEFAULT_METRIC, Metric
from softprompt.library.store import Library
from softprompt.methods.method import Target, Work, halved
from softprompt.methods.spot.outcomes import TargetReport
from softprompt.methods.spot.run import SPoT
from softprompt.methods.spot.settings import TransferSettings
from softprompt.prompts.stack import PromptStack
from softprompt.report.quickstart import (
    score_rows,
    similarity_matrices,
    summary,
    table_csv,
    table_row,
)
from softprompt.tasks.catalog import load_task
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData, task_data
from softprompt.training.loop import Observer
from softprompt.training.recipes import recipe
from softprompt.training.run_dir import settings_plain
from softprompt.training.settings import TrainSettings

# Told the name of a phase and its number of runs; gives the observer of its steps.
Phases = Callable[[str, int], Observer | None]


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings:
    """Settings of the quickstart.

    Attributes:
        out: folder for library, runs and report.
        sources: source tasks.
        targets: target tasks.
        data: folder of local data; None for built-in tasks (or what the catalog finds).
        source_train: training of source prompts.
        target_train: training of target prompts; its prompt_length and embedding_step must equal the sources'.
        k: source prompts of best_of_top_k.
        metric: similarity that ranks.
        scratch_runs: runs from scratch a target.
        embedding_runs: seeds the target's task embedding is averaged over.
        target_rows: at most this many training rows of a target; 0 for all.
        validation_rows: at most this many validation rows of any task; 0 for all.
        seed: first seed.
        resume: continue what ``out`` holds.
        command: the command line, for the record.
        cache: folder of tokenised rows; None for memory only.
    """

    out: Path
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    data: Path | None = None
    source_train: TrainSettings = field(default_factory=lambda: recipe("quick"))
    target_train: TrainSettings = field(default_factory=lambda: recipe("quick"))
    k: int = 2
    metric: Metric = DEFAULT_METRIC
    scratch_runs: int = 2
    embedding_runs: int = 2
    target_rows: int = 0
    validation_rows: int = 400
    seed: int = 1
    resume: bool = False
    command: str = "softprompt quickstart"
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not self.sources or not self.targets:
            raise UsageError("quickstart needs at least one source and one target task: give --sources and --targets.")
        both = sorted(set(self.sources) & set(self.targets))
        if both:
            raise UsageError(f"{', '.join(both)} cannot be source and target at once: leave them out of one list.")
        one, other = self.source_train, self.target_train
        if (one.prompt_length, one.embedding_step) != (other.prompt_length, other.embedding_step):
            raise UsageError("source and target prompts need the same prompt_length and embedding_step to be compared.")


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """What a quickstart gave.

    Attributes:
        reports: one a target.
        table: rows (dicts) of the final table.
        files: what lies where: ``report``, ``heatmap``, ``table``, ``results``, ``library``.
        seconds: wall clock by phase.
        next: commands to run next.
        trained_sources: source tasks whose prompts were trained here, not taken from the released library.
        examples: the first held-out rows of the first target: ``text``, ``gold``, and the answers ``before`` (the bare backbone) and
            ``after`` (with the delivered prompt).
    """

    reports: list[TargetReport]
    table: list[dict[str, Any]]
    files: dict[str, str]
    seconds: dict[str, float]
    next: list[str]
    trained_sources: list[str]
    examples: list[dict[str, str]]

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "table": self.table,
            "targets": [report.plain() for report in self.reports],
            "files": self.files,
            "seconds": self.seconds,
            "next": self.next,
            "trained_sources": self.trained_sources,
            "examples": self.examples,
        }


def quickstart(
    backbone: Backbone,
    settings: QuickstartSettings,
    *,
    released: Library | None = None,
    phases: Phases = lambda phase, runs: None,
) -> QuickstartResult:
    """Run it.

    Args:
        backbone: frozen.
        settings: what to do.
        released: a library whose prompts for this backbone and these source tasks are taken instead of training them.
        phases: for progress bars.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = time.perf_counter() - started - sum(seconds.values())

    opened = {given: load_task(given, settings.data) for given in (*settings.sources, *settings.targets)}
    tasks = {task.name: task for task in opened.values()}  # a task given by its path has a name of its own
    following = _next(settings, backbone.name)
    settings = replace(
        settings,
        sources=tuple(opened[given].name for given in settings.sources),
        targets=tuple(opened[given].name for given in settings.targets),
    )
    library = Library(settings.out / "library")
    missing = _take_released(backbone, library, settings, released)
    data = _data(backbone, {name: tasks[name] for name in (*missing, *settings.targets)}, settings)
    lap("data")
    _train_sources(backbone, library, [data[name] for name in missing], settings, phases)
    lap("sources")
    reports = _transfer(backbone, library, data, settings, phases)
    same: dict[str, Any] = {"seed": settings.seed, "command": settings.command}
    for report in reports:
        record = delivered_record(backbone, report, settings.target_train, task=tasks[report.target], **same)
        library.add(record, replace=True)
    examples = answered(backbone, data[settings.targets[0]], reports[0], settings.target_train)
    lap("targets")
    result = QuickstartResult(
        reports=reports, table=[table_row(report) for report in reports], files=_files(settings.out), seconds=seconds,
        next=following, trained_sources=missing, examples=examples,
    )  # fmt: skip
    write_report(result, settings, backbone)
    return result


def answered(
    backbone: Backbone, data: TaskData, report: TargetReport, train: TrainSettings, count: int = 5
) -> list[dict[str, str]]:
    """The first reporting rows of a target, answered without a prompt and with the delivered one, as the runs were validated."""
    rows = halved(data)[1][:count]
    assert report.prompt_PH is not None  # a quickstart tries no generator
    stack = PromptStack.of([report.prompt_PH])
    job = EvalJob(run=0, task=data.task, split=data.validation, rows=rows, scoring=train.scoring)
    before, after = (
        answers(backbone, prompter, [job], max_target_tokens=train.max_target_tokens)[0] for prompter in (None, stack)
    )
    found = []
    for row, (bare, _), (prompted, _) in zip(rows, before, after, strict=True):
        example = data.validation.examples[int(row)]
        found.append({"text": example.inputs, "gold": example.targets, "before": bare, "after": prompted})
    return found


def _transfer(
    backbone: Backbone, library: Library, data: Mapping[str, TaskData], settings: QuickstartSettings, phases: Phases
) -> list[TargetReport]:
    """Onto every target, from the library's prompts of the source tasks."""
    asked = TransferSettings(
        train=settings.target_train, k=settings.k, average_k=max(2, settings.k), metric=settings.metric,
        scratch_runs=settings.scratch_runs, embedding_runs=settings.embedding_runs, seed=settings.seed,
    )  # fmt: skip
    work = Work(backbone=backbone, folder=settings.out / "runs" / "targets", resume=settings.resume, observe=phases)
    targets = [Target(data=data[name]) for name in settings.targets]
    return SPoT(library, asked, source_tasks=settings.sources).run_all(work, targets)


def _data(backbone: Backbone, tasks: Mapping[str, Task], settings: QuickstartSettings) -> dict[str, TaskData]:
    data = {}
    for name, task in tasks.items():
        target = name in settings.targets
        data[name] = task_data(
            backbone,
            task,
            settings.target_train if target else settings.source_train,
            train_rows=(settings.target_rows or None) if target else None,
            validation_rows=settings.validation_rows or None,
            cache=settings.cache,
        )
    return data


def _take_released(
    backbone: Backbone, library: Library, settings: QuickstartSettings, released: Library | None
) -> list[str]:
    """Copy released prompts of the source tasks into the library; names the sources that still need one."""

    def there() -> set[str]:
        return {entry.task for entry in library.list(backbone=backbone)}

    have, wanted = there(), settings.source_train
    for entry in released.list(backbone=backbone) if released is not None else []:
        fits = (entry.prompt_length, entry.embedding_step) == (wanted.prompt_length, wanted.embedding_step)
        if released is not None and fits and entry.task in settings.sources and entry.task not in have:
            library.copy_from(released.get(entry.name), replace=True)
    have = there()
    return [name for name in settings.sources if name not in have]


def _train_sources(
    backbone: Backbone, library: Library, missing: Sequence[TaskData], settings: QuickstartSettings, phases: Phases
) -> None:
    """Tune a prompt for every source that has none, all in one batch."""
    if not missing:
        return
    for record in tune_tasks(
        backbone,
        missing,
        settings.source_train,
        seeds=[settings.seed],
        folder=settings.out / "runs" / "sources",
        resume=settings.resume,
        observer=phases("sources", len(missing)),
        command=settings.command,
    ):
        library.add(record, replace=True)


def _files(out: Path) -> dict[str, str]:
    names = {"report": "report.html", "heatmap": "similarity.png", "table": "table.csv", "results": "results.json"}
    return {**{key: str(out / name) for key, name in names.items()}, "library": str(out / "library")}


def _next(settings: QuickstartSettings, backbone: str) -> list[str]:
    """Commands that go on from here, with the settings that were used here."""
    library, target = shlex.quote(str(settings.out / "library")), shlex.quote(settings.targets[0])
    place = f"{target} --library {library}"
    place += f" --data {shlex.quote(str(settings.data))}" if settings.data else ""
    place += f" --backbone {backbone}" if backbone != "builtin" else ""
    place += f" --metric {settings.metric}" if settings.metric != DEFAULT_METRIC else ""
    usual, train = settings_plain(recipe("quick")), settings_plain(settings.target_train)
    # The embedding step follows the library's by itself.
    changed = {name: value for name, value in train.items() if value != usual[name] and name != "embedding_step"}
    steps = f" --steps {changed.pop('steps')}" if "steps" in changed else ""
    same = "".join(f" --set {name}={value}" for name, value in changed.items())
    return [
        f"softprompt library ls {library}",
        f"softprompt search {place}{same}",
        f"softprompt transfer {place} --strategies race{steps}{same}",
    ]


def write_report(result: QuickstartResult, settings: QuickstartSettings, backbone: Backbone) -> None:
    """Write the heatmap, the table, the raw results and the self-contained page."""
    from softprompt.analysis.similarity import SIMILARITIES
    from softprompt.report.figures import save
    from softprompt.report.heatmaps import similarity_heatmap
    from softprompt.report.quickstart import quickstart_page

    similarity = similarity_matrices(result.reports)
    heatmap = similarity_heatmap(
        similarity["sources"], similarity["targets"], similarity[settings.metric], SIMILARITIES[settings.metric]
    )
    save(heatmap, Path(result.files["heatmap"]))
    page = quickstart_page(
        {
            "title": "softprompt quickstart",
            "subtitle": f"{backbone.name}, {settings.target_train.steps} steps a target run, seed {settings.seed}",
            "summary": summary(result.reports),
            "examples": result.examples,
            "table": [
                {**shown, "started from": row["from"]}
                for shown, row in zip(score_rows(result.reports), result.table, strict=True)
            ],
            "notes": [f"{report.target}: {report.verdict}" for report in result.reports],
            "similarity": similarity,
            "curves": {
                f"{report.target}, {o.strategy}": [(r["step"], r["score"]) for r in o.curve]
                for report in result.reports
                for o in report.outcomes
            },
            "settings": {
                **({"source training": settings_plain(settings.source_train)} if result.trained_sources else {}),
                "target training": settings_plain(settings.target_train),
            },
            "provenance": {
                "command": settings.command,
                "backbone": backbone.name,
                "backbone fingerprint": backbone.fingerprint,
                "seed": settings.seed,
                "sources trained here": ", ".join(result.trained_sources) or "none: all from the released library",
                "targets": {report.target: report.facts for report in result.reports},
                "seconds": result.seconds,
            },
            "next": result.next,
        }
    )
    artifacts.write_bytes(Path(result.files["report"]), page.encode())
    artifacts.write_bytes(Path(result.files["table"]), table_csv(result.table).encode())
    artifacts.write_json(Path(result.files["results"]), result.plain())
