"""Flags that several commands share, and how they become what the package takes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

import typer

from softprompt.cli.output import asked
from softprompt.cli.progress import counting, say
from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.library import metric as library_metric

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.library.store import Library
    from softprompt.tasks.mixture import Mixture
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData
    from softprompt.training.settings import TrainSettings

TaskName = Annotated[
    str, typer.Option("--task", help="Task: a name (`softprompt tasks ls`) or a path to your own.", show_default=False)
]
TaskNames = Annotated[str, typer.Option("--task", help="Task, or several with commas between.", show_default=False)]
TaskFlag = Annotated[
    str | None, typer.Option("--task", help="Task, or several with commas between.", show_default=False)
]
Data = Annotated[Path | None, typer.Option("--data", help="Folder with tasks/NAME/{train,validation}.*.")]
BackboneName = Annotated[str, typer.Option("--backbone", help="builtin, smollm2, a GGUF file, a folder, or a hub id.")]
BackboneOf = Annotated[
    str | None,
    typer.Option("--backbone", help="As for `train`; that of the prompts if not given.", show_default=False),
]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, int8 or int4.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")]
Sharded = Annotated[
    bool, typer.Option("--sharded", help="The backbone's layers in shards on all processes of torchrun (FSDP2).")
]
Checkpointing = Annotated[
    bool, typer.Option("--checkpointing", help="Compute layers again in the backward pass: less memory, the same bits.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch of a hub backbone.")]
LibraryPlace = Annotated[
    str,
    typer.Option(
        "--library", help="Prompt library: a folder, a URL (s3://, hf://), or `released`.", show_default=False
    ),
]
Recipe = Annotated[str, typer.Option("--recipe", help="Training settings by name, e.g. quick, spot, spot-30k.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any training setting, e.g. weight_decay=0; may be repeated."),
]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Rows of each run in a step.")]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", help="Rate after warm-up.")]
PromptLength = Annotated[int | None, typer.Option("--prompt-length", help="Prompt tokens.")]
MaxInputTokens = Annotated[int | None, typer.Option("--max-input-tokens", help="Inputs are cut to this in training.")]
TrainRows = Annotated[int | None, typer.Option("--train-rows", help="At most this many training rows.", min=1)]
ValidationRows = Annotated[int | None, typer.Option("--validation-rows", help="The same for validation.", min=1)]
Seed = Annotated[int, typer.Option("--seed", help="First seed.")]
Seeds = Annotated[str, typer.Option("--seeds", help="Seeds, with commas between.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what the run directory holds.")]
SkipBad = Annotated[int, typer.Option("--skip-bad", help="Bad rows a split may leave out.", min=0)]
Split = Annotated[str, typer.Option("--split", help="train, validation or test.")]
MaxRows = Annotated[int | None, typer.Option("--max-rows", help="At most this many rows.", min=1)]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        help="Longest answer in free text (default: 64, or a quarter of what a small decoder holds).",
        min=1,
        show_default=False,
    ),
]
Texts = Annotated[
    list[str] | None, typer.Argument(help="Texts, as people write them: the prompt words them.", show_default=False)
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="A csv, tsv, jsonl or parquet file with the prompt's columns, or texts, one a line; - is standard input.",
    ),
]
AnswerFile = Annotated[
    Path | None, typer.Option("--out", help="Write rows and answers here (.csv, .tsv, .jsonl or .parquet).")
]
TextColumns = Annotated[
    str | None, typer.Option("--text-column", help="Column of the text, or several with commas between.")
]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="Column of the answer.")]
Kind = Annotated[
    str | None,
    typer.Option("--kind", help="What the label column holds: classification, regression, multi_label or text."),
]
Workers = Annotated[int | None, typer.Option("--workers", help="Workers of processes, ray or slurm.", min=1)]
ExecutorOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--executor-option",
        metavar="KEY=VALUE",
        help="devices=cuda:0,cuda:1 (processes), gpus=1 (ray), slurm_partition=gpu (slurm), ...; may be repeated.",
    ),
]
AnswerColumn = Annotated[str, typer.Option("--answer-column", help="The column that answers are written to.")]
AsIs = Annotated[bool, typer.Option("--as-is", help="The texts are worded already: leave them as they are.")]
WordingForm = Annotated[
    str,
    typer.Option(
        "--wording",
        help="t5 (the papers' form), natural (natural language) or auto: natural for decoder-only backbones.",
    ),
]
Figure = Annotated[Path | None, typer.Option("--figure", help="Draw it here (.png or .svg; needs the report extra).")]
Figures = Annotated[bool, typer.Option("--figures/--no-figures", help="Draw figures (needs the report extra).")]
ChatForm = Annotated[bool, typer.Option("--chat", help="Put inputs into the backbone's chat template.")]
System = Annotated[str | None, typer.Option("--system", help="System turn of --chat.")]
Predictor = Annotated[
    str,
    typer.Option("--predictor", help="Rank by label-loss, loss-decrease-1, loss-decrease-5, logme or zero-shot-loss."),
]
Metric = Annotated[library_metric.Metric, typer.Option("--metric", help="Similarity that ranks.")]

RELEASED = {"released": "builtin", "released-smollm2": "smollm2"}
"""Names of the libraries that ship in the package, and the backbones they are for."""


class Having(Protocol):
    """Settings of any training: a frozen dataclass that gives changed copies of itself."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def having(self, **changes: Any) -> Any:
        """The same settings with some changed."""


Settings = TypeVar("Settings", bound=Having)


def words(text: str, what: str) -> tuple[str, ...]:
    """Names with commas between; each once.

    Raises:
        UsageError: there is none, or one stands twice.
    """
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if not found:
        raise UsageError(f"{what} is empty: give one name, or several with commas between.")
    twice = sorted({word for word in found if found.count(word) > 1})
    if twice:
        raise UsageError(f"{what} names {', '.join(twice)} more than once: name each once.")
    return found


def numbers(text: str, what: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    try:
        return tuple(int(word) for word in words(text, what))
    except ValueError:
        raise UsageError(f"{what} takes whole numbers with commas between, got {text!r}.") from None


def train_settings(recipe: str, given: Sequence[str] | None = None, **flags: Any) -> TrainSettings:
    """A recipe with settings changed by flags and by ``--set NAME=VALUE``.

    Raises:
        UnknownNameError: no such recipe or setting; the nearest names are offered.
        UsageError: a value of another type or out of range, or set twice.
    """
    from softprompt.training.recipes import recipe as named

    return changed_settings(named(recipe), given, **flags)


def changed_settings(base: Settings, given: Sequence[str] | None = None, **flags: Any) -> Settings:
    """Settings with some changed by flags (None: not given) and by ``--set NAME=VALUE``; errors as `train_settings`."""
    present = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
    changed: Settings = base.having(**changes_of(present, given, **flags))
    return changed


def changes_of(
    present: Mapping[str, Any], given: Sequence[str] | None = None, flag: str = "--set", **flags: Any
) -> dict[str, Any]:
    """The settings that flags (None: not given) and ``NAME=VALUE`` items change, as values of the types they have now.

    Raises:
        UnknownNameError: no such setting; the nearest names are offered.
        UsageError: no ``=``, a value of another type, or a setting that is changed twice.
    """
    changes = {name: value for name, value in flags.items() if value is not None}
    for item in given or ():
        name, sign, value = item.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise UsageError(f"{flag} takes NAME=VALUE, got {item!r}.")
        if name not in present:
            raise UnknownNameError("setting", name, present)
        if name in changes:
            raise UsageError(f"{name} is set twice: leave one out.")
        changes[name] = _value(name, value.strip(), present[name])
    return changes


def _value(name: str, text: str, example: Any) -> Any:
    """A text as the type of the setting's present value."""
    if isinstance(example, bool):
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{name} takes true or false, got {text!r}.")
        return text.lower() == "true"
    if name in ("dropout", "learning_rate") and (text == "auto" or example == "auto"):
        return text  # the settings check it
    try:
        return type(example)(text)
    except ValueError:
        kind = "a whole number" if isinstance(example, int) else "a number"
        raise UsageError(f"{name} takes {kind}, got {text!r}.") from None


def open_backbone(
    name: str,
    dtype: str,
    device: str,
    revision: str | None = None,
    *,
    sharded: bool = False,
    checkpointing: bool = False,
) -> Backbone:
    """The backbone, with a line of progress; processes of ``torchrun`` find each other here.

    Raises:
        UsageError: see `load_backbone`.
    """
    from softprompt import distributed as parallel
    from softprompt.backbones.load import load_backbone

    quiet_transformers()
    parallel.join(device)
    backbone = load_backbone(name, dtype=dtype, device=device, revision=revision, sharded=sharded)
    if checkpointing:
        backbone.checkpointing = True
    say(f"backbone {backbone.name}: {backbone.parameter_count:,} parameters, {backbone.precision}, {backbone.device}")
    return backbone


def backbone_of(given: str | None, library: str | None, names: Sequence[str] = ()) -> str:
    """The backbone that was named, else the one the prompts were tuned on, else the embedded one.

    Args:
        given: of ``--backbone``.
        library: where the prompts are; None where there are none.
        names: the prompts; all of the library where there are none.

    Raises:
        UsageError: the prompts are of several backbones, or it is not known of which one.
        UnknownNameError: a prompt that is not in the library.
    """
    if given is not None or library is None:
        return given or "builtin"
    store = open_library(library)
    prompts = [store.get(name).manifest for name in names] if names else store.list()
    found = sorted({prompt.backbone_name for prompt in prompts})
    if not found:
        return "builtin"
    if len(found) > 1:
        raise UsageError(f"the prompts of {library} are of the backbones {', '.join(found)}: name one with --backbone.")
    if found[0] == "unknown":
        raise UsageError(f"the prompts of {library} do not say which backbone they are of: name it with --backbone.")
    return str(found[0])


def quiet_transformers() -> None:
    """No progress bars of transformers' own among ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def open_tasks(
    names: Sequence[str],
    data: Path | None,
    *,
    prefix: bool = True,
    skip_bad: int = 0,
    text_column: str | None = None,
    label_column: str | None = None,
    kind: str | None = None,
) -> list[Task]:
    """Tasks by name, or a user's own with the columns that flags name.

    Raises:
        DataError: the data folder does not exist.
    """
    from softprompt.tasks.catalog import load_task

    check_folder(data)
    text = words(text_column, "--text-column") if text_column is not None else None
    return [
        load_task(name, data, prefix=prefix, skip_bad=skip_bad, text=text, label=label_column, kind=kind)
        for name in names
    ]


def open_mixture(text: str, data: Path | None) -> tuple[Mixture, list[Task]]:
    """A mixture by name, ``task,task``, ``task+task`` or ``task=rate,task=rate``, and its tasks; one task alone is one too.

    Raises:
        UnknownNameError: neither a mixture nor a task; the nearest names are offered.
        UsageError: an empty name.
    """
    from softprompt.tasks.catalog import task_names
    from softprompt.tasks.mixture import MIXTURES, Mixture, load_mixture

    if not text.strip(" ,+"):
        raise UsageError(
            "no task was named where tasks or a mixture were expected: give one name, or several with commas."
        )
    if text in MIXTURES or any(sign in text for sign in "+,="):
        mixture = load_mixture(text)
        tasks = open_tasks(mixture.tasks, data)
        # A task given by its path has a name of its own, which its size and rate go by.
        own = {given: task.name for given, task in zip(mixture.tasks, tasks, strict=True)}
        weights = {own[given]: weight for given, weight in mixture.weights.items()}
        return dataclasses.replace(mixture, tasks=tuple(own.values()), weights=weights), tasks
    try:
        tasks = open_tasks([text], data)
    except UnknownNameError as error:
        raise UnknownNameError("mixture or task", text, [*MIXTURES, *task_names()]) from error
    return Mixture(name=tasks[0].name, tasks=(tasks[0].name,)), tasks


def worded(tasks: Sequence[Task], form: str, backbone: Backbone) -> list[Task]:
    """The tasks in the wording that suits a backbone, or in the one that was asked for.

    Raises:
        UnknownNameError: neither auto nor a wording.
    """
    from softprompt.tasks.tuned import for_backbone

    if form not in ("auto", "t5", "natural"):
        raise UnknownNameError("wording", form, ("auto", "t5", "natural"))
    return [for_backbone(task, backbone.kind, form) for task in tasks]


def in_chat(tasks: Sequence[Task], chat: bool, system: str | None, backbone: Backbone) -> list[Task]:
    """The tasks, with their inputs as conversations where that was asked for.

    Raises:
        UsageError: a system turn without ``--chat``, or a tokenizer without a chat template.
    """
    if not chat:
        if system is not None:
            raise UsageError("--system is a turn of a conversation: give --chat as well.")
        return list(tasks)
    from softprompt.tasks.chat import Chat, with_chat

    return [with_chat(task, Chat(system=system), backbone.tokenizer) for task in tasks]


def check_folder(data: Path | None) -> None:
    """Raises DataError where a data folder was named that is not there."""
    if data is not None and not data.is_dir():
        found = "is a file" if data.exists() else "does not exist"
        raise DataError(
            f"data folder {data} {found}: name a folder with tasks/NAME/train.jsonl (or .csv, .tsv, .parquet)."
        )


def encode(
    backbone: Backbone,
    tasks: Sequence[Task],
    settings: TrainSettings,
    train_rows: int | None = None,
    validation_rows: int | None = None,
) -> list[TaskData]:
    """Tokenised training and validation rows of tasks, with a line of progress each."""
    from softprompt.artifacts import cache_folder
    from softprompt.training.data import task_data

    made = []
    for task in tasks:
        with counting(f"tokenising {task.name}") as progress:
            data = task_data(
                backbone,
                task,
                settings,
                train_rows=train_rows,
                validation_rows=validation_rows,
                cache=cache_folder("encoded"),
                progress=progress,
            )
        for line in told(data):
            say(line)
        made.append(data)
    return made


def told(data: TaskData) -> list[str]:
    """What a user should see of a task before it is trained on: counts, columns, the first example, what is left out."""
    task, train = data.task, data.train
    empty = sum(task.is_empty(e) for e in chain(train.examples, data.validation.examples))
    counts = {
        "training inputs cut": train.cut_inputs,
        "validation inputs cut": data.validation.cut_inputs,
        "bad rows left out": train.skipped,
        "rows without a label left out": train.unlabelled,
        "empty texts": empty,
    }
    told = "".join(f", {count} {what}" for what, count in counts.items() if count)
    found = [f"task {task.name}: {len(train)} training and {len(data.validation)} validation rows{told}"]
    wording = task.wording
    if wording is not None and wording.columns:
        label = f"; label from {wording.label_column}" if wording.label_column else ""
        names = f" ({', '.join(wording.labels)})" if wording.labels and len(wording.labels) <= 12 else ""
        found.append(f"task {task.name}: inputs from {', '.join(wording.columns)}{label}{names}")
    first = train.examples[0]
    text = first.inputs if len(first.inputs) <= 200 else f"{first.inputs[:150]} ... {first.inputs[-45:]}"
    found.append(f"task {task.name}: first example: {text!r} -> {first.targets!r}")
    if task.category == "user" and task.note:
        found.append(f"task {task.name}: {task.note}")
    return found


def open_library(place: str, *, must_exist: bool = True) -> Library:
    """A library by folder or URL, or the one in a run's folder; the names of `RELEASED` are those that ship in the package, where no
    such folder stands.

    Raises:
        UsageError: there is none at a local folder.
    """
    from softprompt.library.places import split_place
    from softprompt.library.store import Library

    if place in RELEASED and must_exist and not Path(place).is_dir():
        from softprompt.library.released import FOLDERS, released_library

        return released_library(FOLDERS[RELEASED[place]])
    if must_exist and "://" not in place and not Path(place).expanduser().is_dir():
        raise UsageError(
            f"there is no library at {place}: name another folder, or make one with `softprompt train --library {place}`."
        )
    where, name = split_place(place)
    return Library(place if name is not None else where)


def refuse_taken(library: Library, names: Sequence[str], *, replace: bool) -> None:
    """Raises UsageError where prompts of these names are in the library already; before anything is trained."""
    taken = [name for name in names if name in library]
    if taken and not replace:
        raise UsageError(
            f"{', '.join(taken)} already in library {library.location}: add --replace, other --seeds, or another --library."
        )


def command_line() -> str:
    """The command as it was typed, for the record."""
    import shlex

    return shlex.join(["softprompt", *(asked or sys.argv[1:])])
