"""``softprompt quickstart``: search, transfer, comparison and report, in minutes."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import flag
from softprompt.cli.output import Answer, both, cell, lines, table
from softprompt.cli.progress import phases
from softprompt.library.metric import DEFAULT_METRIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softprompt.library.store import Library
    from softprompt.quickstart import QuickstartResult
    from softprompt.training.settings import TrainSettings


# A first look takes minutes. Few steps on the built-in targets: there a good start shows, later scratch catches up (docs/log.md).
FIRST_LOOK_STEPS = 30
QUICK_STEPS = 100
# Targets that a prompt can learn in so few steps (docs/log.md); the demo study has all eight.
QUICK_TARGETS = ("gen_sentiment_hotel", "gen_effect_choice", "gen_paraphrase_question")
# On a language model of full size: one target, which a person understands, from the prompts of its released library.
MODEL_TARGETS = ("gen_sentiment_hotel",)


@command(
    app,
    "quickstart",
    "softprompt quickstart",
    "softprompt quickstart --data DIR --sources sst2,mnli --targets cr,rte --backbone smollm2",
)
def quickstart(
    *,
    data: o.Data = None,
    sources: Annotated[
        str | None, flag("--sources", "Source tasks; the released library's if not given.", complete=o.task_completion)
    ] = None,
    targets: Annotated[
        str | None, flag("--targets", "Target tasks; built-in ones if not given.", complete=o.task_completion)
    ] = None,
    model: o.BackboneFlags,
    out: Annotated[Path, flag("--out", "Library, runs and report.")] = Path("softprompt-quickstart"),
    resume: o.Resume = False,
    seed: o.Seed = 1,
    k: Annotated[int, flag("--k", "Source prompts of best_of_top_k.")] = 2,
    metric: o.Metric = DEFAULT_METRIC,
    training_: o.TrainingFlags,
    target_rows: Annotated[int, flag("--target-rows", "Training rows of a target; 0 for all.", o.ROWS, min=0)] = 0,
    validation_rows: Annotated[int, flag("--validation-rows", "Of every task; 0 for all.", o.ROWS, min=0)] = 400,
) -> Answer:
    """Search, transfer, compare and report, in minutes."""
    from softprompt.artifacts import cache_folder
    from softprompt.library.released import FOLDER, FOLDERS, find_released
    from softprompt.quickstart import QuickstartSettings
    from softprompt.quickstart import quickstart as run_quickstart

    opening.check_folder(data)
    store = find_released(FOLDERS.get(model.backbone, FOLDER))
    released = store if data is None or sources is None else None
    followed = released if model.backbone in FOLDERS else None
    source_train, target_train = _trainings(training_, followed, builtin=data is None)
    usual_sources, usual_targets = _usual(model.backbone, store)
    settings = QuickstartSettings(
        out=out, data=data, source_train=source_train, target_train=target_train, k=k, metric=metric,
        sources=opening.words(sources, "--sources") if sources is not None else usual_sources,
        targets=opening.words(targets, "--targets") if targets is not None else usual_targets,
        target_rows=target_rows, validation_rows=validation_rows, seed=seed, resume=resume,
        command=opening.command_line(), cache=cache_folder("encoded"),
    )  # fmt: skip
    opening.check_out(out, resume=True)
    opening.open_tasks([*settings.sources, *settings.targets], data)
    backbone = model.open()
    with phases() as observe:
        result = run_quickstart(backbone, settings, released=released, phases=observe)
    return Answer(data=result.plain(), show=_shown(result), next=[shlex.split(line)[1:] for line in result.next])


def _usual(backbone: str, store: Library | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sources and targets where none were named: of a model with a released library, those of its prompts."""
    from softprompt.library.released import FOLDERS
    from softprompt.tasks.generated import DEMO_SOURCES

    if backbone not in FOLDERS or backbone == "builtin":
        return tuple(DEMO_SOURCES), QUICK_TARGETS
    shipped = store.list() if store is not None else []
    return tuple(dict.fromkeys(entry.task for entry in shipped)), MODEL_TARGETS


def _trainings(flags: o.TrainingFlags, store: Library | None, *, builtin: bool) -> tuple[TrainSettings, TrainSettings]:
    """Of source and of target prompts, with the embedding step of released ones of their length; a first look is short."""
    first_look = flags.recipe == "quick" and "steps" not in flags.asked()
    look = FIRST_LOOK_STEPS if builtin else QUICK_STEPS
    train = flags.settings(steps=look if first_look else None)
    if store is not None and {entry.prompt_length for entry in store.list()} == {train.prompt_length}:
        from softprompt.methods.spot.checks import at_library_step

        train = at_library_step(train, store, None, flags.asked())
    source = train.having(steps=max(train.steps, train.embedding_step, QUICK_STEPS if first_look else 0))
    if train.steps < 2 * train.eval_every and "eval_every" not in flags.asked():
        train = train.having(eval_every=max(1, train.steps // 3))  # a curve, and checkpoints to choose among
    return source, train


def _shown(result: QuickstartResult) -> Any:
    from softprompt.report.quickstart import score_rows

    scores = score_rows(result.reports)
    verdicts = [f"{report.target}: {report.verdict}" for report in result.reports]
    parts = [_rows(scores, "scores on held-out validation rows, percent"), lines(*verdicts, "")]
    told = [{**row, "text": textwrap.shorten(row["text"], 40, placeholder=" …")} for row in result.examples]
    parts.append(_rows(told, f"{result.reports[0].target}: answers of the bare backbone and with the delivered prompt"))
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items())
    places = [f"{name:<9} {place}" for name, place in result.files.items()]
    return both(*parts, lines(f"time: {seconds}", ""), lines(*places, wrap=False))


def _rows(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    """A table narrow enough for a terminal: headings longer than what stands below take two lines."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = [[row.get(name) for name in columns] for row in rows]
    widest = [max(len(cell(value)) for value in column) for column in zip(*body, strict=True)]
    heads = [_two_lines(name) if len(name) > width else name for name, width in zip(columns, widest, strict=True)]
    return table(heads, body, title=title)


def _two_lines(heading: str) -> str:
    """Broken at the space nearest to its middle."""
    spaces = [i for i, letter in enumerate(heading) if letter == " "]
    if not spaces:
        return heading
    at = min(spaces, key=lambda i: abs(i - len(heading) / 2))
    return f"{heading[:at]}\n{heading[at + 1 :]}"
