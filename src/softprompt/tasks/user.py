"""The user's own tasks: a csv, a folder with or without a few lines of TOML, or one decorated function.

    reviews.csv (.tsv .jsonl .json .parquet .xlsx)    text and label columns; nothing else to write
    reviews.train.jsonl.gz                            the same, with reviews.validation.jsonl.gz beside it
    hf:owner/name or hf:owner/name:config             the same from the Hugging Face hub
    my_task/{train,validation}.jsonl                  the same, split by hand
    my_task/task.toml                                 inputs = "question: {question}", targets = "{answer}", ...
    my_task.py                                        one function under @task

In Python: ``Task.from_rows`` of a DataFrame, a datasets.Dataset or a list of dicts.

A file of code is run only where the user names it.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.columns import Asked, as_names
from softprompt.tasks.readers import FORMATS, format_of
from softprompt.tasks.rows import UNKNOWN_TARGET, Formed, Row, RowSource, is_missing
from softprompt.tasks.sources import FileSource, HubSource
from softprompt.tasks.tables import fields_of_table, task_fields
from softprompt.tasks.task import Task
from softprompt.tasks.template import column_of, places, worded
from softprompt.tasks.wording import Wording

NOTHING = Asked()

MOST_TOML_BYTES = 64_000
"""A task.toml is a few lines; reading a huge one would take minutes."""

TOML_KEYS = (
    "name",
    "inputs",
    "targets",
    "text",
    "labels",
    "label",
    "kind",
    "metrics",
    "category",
    "licence",
    "note",
    "id",
    "hub",
    "config",
    "revision",
    "train",
    "validation",
    "test",
)

UserForm = Callable[[Mapping[str, Any]], tuple[str, Any]]


def load_user_task(path: Path, asked: Asked = NOTHING) -> Task:
    """The task of a file of rows, a folder, a .toml file or a .py file (``file.py:function`` where it has several).

    Args:
        path: of it.
        asked: what the user says of its columns; only for files of rows and folders of them.

    Raises:
        DataError: where the path holds no task, or its data cannot be used.
        UsageError: where the TOML or the function is wrong, or columns are named that are not there.
    """
    text = str(path)
    if text.endswith(".py") or ".py:" in text:
        _nothing_asked(asked, text)
        file, _, function = text.rpartition(".py:")
        return _from_python(path, "") if text.endswith(".py") else _from_python(Path(file + ".py"), function)
    if path.suffix == ".toml":
        return _from_toml(path, asked)
    if path.is_file():
        return _from_file(path, asked)
    if (path / "task.toml").is_file():
        return _from_toml(path / "task.toml", asked)
    if path.is_dir():
        return _table(path.resolve().name, FileSource(folder=path, stem=_stem(path)), asked)
    raise DataError(f"{path}: no such file or folder; give a csv, a folder with train.jsonl, a .toml or a .py file.")


def _nothing_asked(asked: Asked, what: str) -> None:
    if asked:
        raise UsageError(
            f"{what} says itself which columns it reads: leave --text-column, --label-column and --kind out."
        )


def _stem(folder: Path) -> str:
    """``reviews`` of a folder with reviews.train.jsonl.gz alone; empty where files are named train.* or otherwise."""
    if any(folder.glob("train.*")):
        return ""
    stems = {name for p in folder.glob("*.train.*") if (name := p.name.partition(".train.")[0]) and format_of(p)}
    if len(stems) > 1:
        raise DataError(
            f"{folder}: holds the training files of {', '.join(sorted(stems))}; name one: {folder}/NAME.train..."
        )
    return next(iter(stems), "")


def load_hub_task(address: str, asked: Asked = NOTHING) -> Task:
    """A classification data set of the Hugging Face hub as a task: ``owner/name`` or ``owner/name:config``.

    Its label column is found as in a csv. For label words, another text form or a pinned commit write a task.toml with
    ``hub = "owner/name"``.
    """
    repo, _, config = address.partition(":")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", repo):
        raise UsageError(f"hub data set {repo!r} should be owner/name.")
    return _table(repo.replace("/", "_"), HubSource(repo=repo, config=config or None), asked)


def task(
    function: UserForm | None = None,
    *,
    data: str | Mapping[str, str] = ".",
    labels: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    category: str = "user",
    name: str | None = None,
    licence: str = "unstated",
) -> Any:
    """Make a function from a row (a mapping) to (inputs, target) a task.

    Args:
        data: folder of train and validation files beside the .py file, or split -> file.
        labels: label words; the target is then one of them, or its index.
        metrics: names; accuracy where there are labels, exact_text where not.
        name: of the task; the function's where not given.

    Example::

        @task(labels=["no", "yes"])
        def is_answer(row):
            return f"question: {row['question']} answer: {row['answer']}", row["label"]
    """

    def mark(form: UserForm) -> UserForm:
        settings = {"data": data, "labels": labels, "metrics": metrics, "category": category, "licence": licence}
        form.__softprompt_task__ = {**settings, "name": name or form.__name__}  # type: ignore[attr-defined]
        return form

    return mark if function is None else mark(function)


def _from_python(path: Path, wanted: str) -> Task:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    spec = importlib.util.spec_from_file_location(f"softprompt_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path}: stopped with {type(error).__name__}: {error}.") from error
    found = {name: f for name, f in vars(module).items() if hasattr(f, "__softprompt_task__")}
    if wanted:
        if wanted not in found:
            raise UnknownNameError(f"task in {path}", wanted, found)
        found = {wanted: found[wanted]}
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise UsageError(f"{path}: has {len(found)} functions under @task ({names}); name one as {path}:function.")
    form = next(iter(found.values()))
    settings = form.__softprompt_task__
    return Task(
        **task_fields(
            settings["name"],
            partial(_call, form=form, labels=settings["labels"] and tuple(settings["labels"])),
            _files(path.parent, settings["data"]),
            labels=settings["labels"],
            metrics=settings["metrics"],
            category=settings["category"],
            licence=settings["licence"],
            wording=Wording(
                task=settings["name"], form="raw", labels=settings["labels"], metrics=settings["metrics"] or ()
            ),
        )
    )


def _table(name: str, source: RowSource, asked: Asked, **more: Any) -> Task:
    return Task(**fields_of_table(name, source, asked, **more))


def _call(row: Row, *, form: UserForm, labels: tuple[str, ...] | None) -> list[Formed]:
    try:
        made = form(row.values)
    except KeyError as error:
        raise row.error(f"the task's function asks for column {error}; it has {', '.join(row.values)}.") from error
    except Exception as error:
        raise row.error(f"the task's function stopped with {type(error).__name__}: {error}.") from error
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], str):
        raise row.error(f"the task's function should give (inputs, target), it gave {type(made).__name__}.")
    return [_formed(row, made[0], made[1], labels)]


def _formed(row: Row, inputs: str, target: Any, labels: tuple[str, ...] | None) -> Formed:
    if labels is None:
        text = UNKNOWN_TARGET if is_missing(target) else str(target)
        return Formed(inputs, text, {"references": [text], "answers": [text]})
    index = Row(values={"label": target}, line=row.line, where=row.where).label(labels)
    return Formed(inputs, UNKNOWN_TARGET if index is None else labels[index], {"label": index})


def _files(folder: Path, data: str | Mapping[str, str]) -> FileSource:
    if isinstance(data, str):
        return FileSource(folder=folder / data)
    return FileSource(folder=folder, files={split: folder / file for split, file in data.items()})


def _from_toml(path: Path, asked: Asked) -> Task:
    settings = _read_toml(path)
    source = _toml_source(path, settings)
    name = settings.get("name", path.parent.resolve().name)
    labels = settings.get("labels")
    if "inputs" not in settings:
        said = Asked(
            text=asked.text or as_names(settings.get("text")),
            label=asked.label or settings.get("label"),
            labels=labels and tuple(labels),
            kind=asked.kind or settings.get("kind"),
        )
        return _table(name, source, said, **_said(settings))
    _nothing_asked(asked, str(path))
    targets = settings.get("targets", "{" + settings.get("label", "label") + "}")
    named = places(targets)
    form = partial(_template, inputs=settings["inputs"], targets=targets, labels=labels and tuple(labels))
    wording = Wording(
        task=name,
        form="template",
        template=settings["inputs"],
        columns=tuple(dict.fromkeys(column_of(place) for place in places(settings["inputs"]))),
        label_column=column_of(named[0]) if named else None,
        labels=labels,
        metrics=settings.get("metrics") or (),
    )
    made = {"metrics": settings.get("metrics"), "id_column": settings.get("id"), "wording": wording, **_said(settings)}
    return Task(**task_fields(name, form, source, labels=labels, **made))


def _said(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("category", "licence", "note") if key in settings}


def _read_toml(path: Path) -> dict[str, Any]:
    """The settings of a task.toml, checked for names and types.

    Raises:
        DataError: there is no such file.
        UsageError: it is no TOML, or says what it may not.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_TOML_BYTES + 1)
    except OSError as error:
        what = (
            "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror or error})"
        )
        raise DataError(f"{path}: {what}.") from None
    if len(raw) > MOST_TOML_BYTES:
        raise UsageError(f"{path}: is larger than {MOST_TOML_BYTES:,} bytes; a task is said in a few lines.")
    try:
        settings = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path}: is not TOML: {what}.") from None
    for key in settings:
        if key not in TOML_KEYS:
            raise UnknownNameError(f"key in {path}", key, TOML_KEYS)
    if isinstance(settings.get("text"), str):
        settings["text"] = [settings["text"]]
    lists = {key: settings.get(key) for key in ("labels", "metrics", "text")}
    for key, value in lists.items():
        if value is not None and not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise UsageError(f'{path}: {key} should be a list of texts, e.g. {key} = ["no", "yes"].')
    wrong = [k for k, v in settings.items() if k not in lists and not isinstance(v, str)]
    if wrong:
        raise UsageError(f"{path}: {', '.join(wrong)} should be text in quotes.")
    return settings


def _toml_source(path: Path, settings: Mapping[str, str]) -> FileSource | HubSource:
    """Files beside the TOML, or a data set of the hub; train, validation and test name files or the hub's splits."""
    named = {split: settings[split] for split in ("train", "validation", "test") if split in settings}
    if "hub" not in settings:
        files: dict[str, Path] = {split: _inside(path, file) for split, file in named.items()}
        return FileSource(folder=path.parent, files=files)
    splits: dict[str, tuple[str, ...]] = {split: (name,) for split, name in named.items()}
    config, revision = settings.get("config"), settings.get("revision")
    return HubSource(repo=settings["hub"], config=config, revision=revision, splits=splits)


def _inside(path: Path, file: str) -> Path:
    """A file that a task.toml names; it stays in the TOML's folder, links followed.

    Raises:
        UsageError: it does not.
    """
    folder = path.parent.resolve()
    try:
        whole = (folder / file).resolve()
    except (OSError, ValueError, RuntimeError):
        whole = Path("/")
    if folder not in whole.parents:
        raise UsageError(f"{path}: names the file {file!r}, which is not in its folder; move it there.")
    return path.parent / file


def _template(row: Row, *, inputs: str, targets: str, labels: tuple[str, ...] | None) -> list[Formed]:
    text = worded(inputs, row)
    named = places(targets)
    whole = named[0] if len(named) == 1 and targets == "{" + named[0] + "}" else None
    if not row.labelled and any(row.values.get(column_of(place)) is None for place in named):
        return [_formed(row, text, None, labels)]
    target = row.get(whole) if whole and labels else worded(targets, row)
    return [_formed(row, text, target, labels)]


def _from_file(path: Path, asked: Asked) -> Task:
    """The task of one file; the other splits are those named alike beside it."""
    if format_of(path) is None:
        raise DataError(f"{path}: unknown format; use {', '.join(FORMATS)}, a .toml or a .py file.")
    front, _, _ = path.name.partition(".train.")
    if ".train." in path.name:
        beside = FileSource(folder=path.parent, stem=front)
        found = {split: file for split in ("validation", "test") if (file := beside.find(split)) is not None}
        return _table(front, FileSource(folder=path.parent, files={"train": path, **found}), asked)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.name.split(".")[0]).strip("._-") or "task"
    return _table(name, FileSource(folder=path.parent, files={"train": path}), asked)
