"""``softprompt quickstart``: the main job end to end, in minutes."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, both, cell, lines, table
from softprompt.cli.progress import phases
from softprompt.library.metric import DEFAULT_METRIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softprompt.quickstart import QuickstartResult


# A first look takes minutes. Few steps on the built-in targets: there a good start shows, later scratch catches up (docs/log.md).
FIRST_LOOK_STEPS = 30
QUICK_STEPS = 100
# Targets that a prompt can learn in so few steps (docs/log.md); the demo study has all eight.
QUICK_TARGETS = ("gen_sentiment_hotel", "gen_effect_choice", "gen_paraphrase_question")
# On a language model of full size: one target, which a person understands, from the prompts of its released library.
MODEL_TARGETS = ("gen_sentiment_hotel",)


@command(app, "quickstart")
def quickstart(
    data: o.Data = None,
    sources: Annotated[
        str | None, typer.Option("--sources", help="Source tasks; the released library's if not given.")
    ] = None,
    targets: Annotated[str | None, typer.Option("--targets", help="Target tasks; built-in ones if not given.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Library, runs and report.")] = Path("softprompt-quickstart"),
    resume: o.Resume = False,
    seed: o.Seed = 1,
    k: Annotated[int, typer.Option("--k", help="Source prompts of best_of_top_k.")] = 2,
    metric: o.Metric = DEFAULT_METRIC,
    recipe: o.Recipe = "quick",
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    prompt_length: o.PromptLength = None,
    max_input_tokens: o.MaxInputTokens = None,
    set_: o.Set = None,
    target_rows: Annotated[int, typer.Option("--target-rows", help="Training rows of a target; 0 for all.", min=0)] = 0,
    validation_rows: Annotated[int, typer.Option("--validation-rows", help="Of every task; 0 for all.", min=0)] = 400,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """The main job end to end, with a report, in minutes."""
    from softprompt.artifacts import cache_folder
    from softprompt.library.released import FOLDER, FOLDERS, find_released
    from softprompt.quickstart import QuickstartSettings
    from softprompt.quickstart import quickstart as run_quickstart

    o.check_folder(data)
    first_look = steps is None and recipe == "quick"
    if first_look:
        steps = FIRST_LOOK_STEPS if data is None else QUICK_STEPS
    train = o.train_settings(
        recipe, set_, steps=steps, batch_size=batch_size, learning_rate=learning_rate, prompt_length=prompt_length,
        max_input_tokens=max_input_tokens,
    )  # fmt: skip
    source_train = train.having(steps=max(train.steps, train.embedding_step, QUICK_STEPS if first_look else 0))
    if train.steps < 2 * train.eval_every and not any(text.startswith("eval_every=") for text in set_ or ()):
        train = train.having(eval_every=max(1, train.steps // 3))  # a curve, and checkpoints to choose among
    from softprompt.tasks.generated import DEMO_SOURCES

    store = find_released(FOLDERS.get(backbone, FOLDER))
    shipped = tuple(dict.fromkeys(entry.task for entry in store.list())) if store is not None else ()
    small = backbone not in FOLDERS or backbone == "builtin"
    settings = QuickstartSettings(
        out=out,
        sources=o.words(sources, "--sources") if sources is not None else tuple(DEMO_SOURCES) if small else shipped,
        targets=o.words(targets, "--targets") if targets is not None else QUICK_TARGETS if small else MODEL_TARGETS,
        data=data,
        source_train=source_train,
        target_train=train,
        k=k,
        metric=metric,
        target_rows=target_rows,
        validation_rows=validation_rows,
        seed=seed,
        resume=resume,
        command=o.command_line(),
        cache=cache_folder("encoded"),
    )
    o.open_tasks([*settings.sources, *settings.targets], data)
    model = o.open_backbone(backbone, dtype, device, revision)
    with phases() as observe:
        result = run_quickstart(
            model, settings, released=store if data is None or sources is None else None, phases=observe
        )
    return Answer(data=result.plain(), show=_shown(result), next=[shlex.split(line)[1:] for line in result.next])


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
