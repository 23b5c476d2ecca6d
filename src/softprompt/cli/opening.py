"""From what flags say to what the package takes: backbones, tasks, mixtures, libraries, tokenised rows."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.cli.output import asked
from softprompt.cli.progress import say
from softprompt.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.library.store import Library
    from softprompt.tasks.mixture import Mixture
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData
    from softprompt.training.settings import LoopSettings

RELEASED = {"released": "builtin", "released-smollm2": "smollm2"}
"""Names of the libraries that ship in the package, and the backbones they are for."""


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


def backbone_of(library: str | None, names: Sequence[str] = ()) -> str:
    """The backbone that prompts were tuned on; the embedded one where there are none.

    Args:
        library: where the prompts are; None where there are none.
        names: the prompts; all of the library where there are none.

    Raises:
        UsageError: the prompts are of several backbones, or it is not known of which one.
        UnknownNameError: a prompt that is not in the library.
    """
    if library is None:
        return "builtin"
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


def check_out(folder: Path, *, resume: bool) -> None:
    """Say before anything is loaded what a run directory cannot be.

    Raises:
        UsageError: its place is a file or cannot be written to, or a run stands there that was not asked to be resumed.
    """
    _check_writable(folder, "run directory")
    begun = any((folder / part / "run.json").exists() for part in (".", "run", "first", "mixture"))
    if begun and not resume:
        raise UsageError(
            f"{folder} already holds a run: add --resume to go on with it (by the settings it was started with), or choose "
            "another folder with --out."
        )


def check_file(path: Path, read: Sequence[Path] = ()) -> None:
    """Say before anything is loaded that rows cannot be written to a file.

    Args:
        path: the file to write.
        read: the files that rows are read from, which are not written over.

    Raises:
        UsageError: its name says no format, it is a folder or a file that is read, or its place cannot be written to.
    """
    from softprompt.tasks.writers import WRITTEN

    if path.suffix not in WRITTEN:
        raise UsageError(f"{path}: rows are written as {', '.join(WRITTEN)}; choose one of these names.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, and rows go to a file: choose another name.")
    if path.exists() and any(file.exists() and path.samefile(file) for file in read):
        raise UsageError(f"{path} is the file that the rows are read from: choose another name.")
    _check_writable(path.parent, "folder")


def _check_writable(folder: Path, what: str) -> None:
    """Raises UsageError where a folder is not there and cannot be made, or nothing can be written into it."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path())
    if not there.is_dir():
        raise UsageError(f"{folder} cannot be a {what}: {there} is a file; choose another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be a {what}: {there} cannot be written to; choose another place.")


def encode(
    backbone: Backbone,
    tasks: Sequence[Task],
    settings: LoopSettings,
    train_rows: int | None = None,
    validation_rows: int | None = None,
) -> list[TaskData]:
    """Tokenised training and validation rows of tasks, with a line of progress each."""
    from softprompt.artifacts import cache_folder
    from softprompt.training.data import task_data

    made = []
    for task in tasks:
        data = task_data(
            backbone, task, settings, train_rows=train_rows, validation_rows=validation_rows,
            cache=cache_folder("encoded"),
        )  # fmt: skip
        for line in told(data):
            say(line)
        made.append(data)
    return made


def told(data: TaskData) -> list[str]:
    """What a user should see of a task before it is trained on: counts, columns, the first example, what is left out, and
    what is doubtful in its labels."""
    from softprompt.tasks.check import label_doubts

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
    doubts = label_doubts(task, {"train": train.examples, "validation": data.validation.examples})
    return found + [f"task {task.name}: {doubt}" for doubt in doubts]


def open_library(place: str, *, must_exist: bool = True) -> Library:
    """A library by folder or URL, or the one in a run's folder; the names of `RELEASED` are those that ship in the package,
    where no such folder stands.

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


def texts_of(given: Sequence[str] | None, file: Path | None) -> list[str]:
    """The texts to answer: given ones, or the lines of a file (``-``: standard input).

    A line ends at a line feed alone, with or without a carriage return before it; U+2028 and form feeds are text.

    Raises:
        UsageError: both or neither were given.
        DataError: the file is empty or not UTF-8.
    """
    if bool(given) == bool(file):
        raise UsageError(
            "predict takes input texts or --file, one of the two: softprompt predict 'TEXT' --prompt NAME."
        )
    if file is None:
        return list(given or ())
    raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): convert it.") from None
    texts = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")] if content else []
    if not texts:
        raise DataError(f"{file} is empty: give one input a line.")
    return texts
