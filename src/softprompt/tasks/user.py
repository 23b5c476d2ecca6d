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

import hashlib
import importlib.util
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.columns import ID_COLUMNS, METRICS_OF, Asked, Columns, as_names, find_columns, formed
from softprompt.tasks.memory import class_names, rows_by_split
from softprompt.tasks.metrics import METRICS
from softprompt.tasks.natural import generic
from softprompt.tasks.readers import FORMATS, format_of
from softprompt.tasks.rows import UNKNOWN_TARGET, BadRows, Form, Formed, Row, RowSource, is_missing
from softprompt.tasks.sources import FileSource, HubSource, MemorySource
from softprompt.tasks.task import Task, Worded
from softprompt.tasks.template import column_of, escaped, places
from softprompt.tasks.wording import Wording, worded

NOTHING = Asked()

HELD_OUT_NOTE = "No validation rows: a fifth of the rows, drawn by their inputs, stands in and is not trained on."
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
        return task_of_rows(path.resolve().name, FileSource(folder=path, stem=_stem(path)), asked)
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


def from_rows(
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    validation: Any = None,
    name: str = "rows",
    kind: str | None = None,
    labels: Sequence[str] | None = None,
) -> Task:
    """A task of rows in memory; see `Task.from_rows`."""
    splits = rows_by_split(data, validation)
    source = MemorySource(splits=splits, what=name)
    words = tuple(labels) if labels is not None else class_names(data, label)
    template = text if isinstance(text, str) and "{" in text and text not in (splits["train"][:1] or [{}])[0] else None
    read = () if template is not None else as_names(text)
    if template is not None:
        read = tuple(dict.fromkeys(column_of(place) for place in places(template)))
    asked = Asked(text=read, label=label, labels=words, kind=kind)
    return task_of_rows(name, source, asked, template=template)


def load_hub_task(address: str, asked: Asked = NOTHING) -> Task:
    """A classification data set of the Hugging Face hub as a task: ``owner/name`` or ``owner/name:config``.

    Its label column is found as in a csv. For label words, another text form or a pinned commit write a task.toml with
    ``hub = "owner/name"``.
    """
    repo, _, config = address.partition(":")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", repo):
        raise UsageError(f"hub data set {repo!r} should be owner/name.")
    return task_of_rows(repo.replace("/", "_"), HubSource(repo=repo, config=config or None), asked)


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
    return _user_task(
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
        return task_of_rows(name, source, said, **_said(settings))
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
    return _user_task(name, form, source, labels=labels, **made)


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


def _user_task(
    name: str,
    form: Form,
    source: RowSource,
    *,
    labels: Sequence[str] | None,
    metrics: Sequence[str] | None = None,
    category: str = "user",
    licence: str = "unstated",
    note: str = "",
    id_column: str | None = None,
    wording: Wording | None = None,
    wordings: Mapping[str, Worded] | None = None,
) -> Task:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"task name {name!r} should be letters, digits, '.', '_' and '-'; choose another name.")
    if labels is not None and len(set(labels)) != len(labels):
        raise UsageError(f"labels of task {name!r} repeat: {', '.join(labels)}; name each once.")
    for metric in metrics or ():
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
    return Task(
        name=name,
        category=category,
        labels=tuple(labels) if labels is not None else None,
        metrics=tuple(metrics or (("accuracy",) if labels is not None else ("exact_text",))),
        source=source,
        form=form,
        licence=licence,
        note=note,
        id_column=id_column,
        wording=wording,
        wordings=wordings or {},
    )


@dataclass(frozen=True, kw_only=True)
class HeldOutSource:
    """Training rows as training and validation: rows are held out by what is read of them, so equal inputs stay on one side.

    Attributes:
        source: gives all rows as its training split.
        inputs: what is read of a row.
        share: one input in this many is held out.
    """

    source: RowSource
    inputs: Callable[[Row], str]
    share: int = 5

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        if split == "test":
            raise DataError("there is one file of rows and no test split; use validation.")
        rows = [(self._key(row), row) for row in self.source.rows("train", bad)]
        keys = sorted({key for key, _ in rows})
        held_out = {key for key in keys if key % self.share == 0} or set(keys[:1])
        if len(held_out) == len(keys):
            held_out.discard(keys[-1])  # a file of a few rows keeps at least one on each side
        for key, row in rows:
            if (key in held_out) == (split != "train"):
                yield Row(values=row.values, line=row.line, where=row.where, train=split == "train")

    def _key(self, row: Row) -> int:
        try:
            content = " ".join(self.inputs(row).split())
        except DataError:  # a bad row: told where it is used
            content = json.dumps(dict(row.values), sort_keys=True, default=str)
        return int.from_bytes(hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[:8], "little")

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "held_out": f"1 in {self.share}"}


def _from_file(path: Path, asked: Asked) -> Task:
    """The task of one file; the other splits are those named alike beside it."""
    if format_of(path) is None:
        raise DataError(f"{path}: unknown format; use {', '.join(FORMATS)}, a .toml or a .py file.")
    front, _, _ = path.name.partition(".train.")
    if ".train." in path.name:
        beside = FileSource(folder=path.parent, stem=front)
        found = {split: file for split in ("validation", "test") if (file := beside.find(split)) is not None}
        return task_of_rows(front, FileSource(folder=path.parent, files={"train": path, **found}), asked)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.name.split(".")[0]).strip("._-") or "task"
    return task_of_rows(name, FileSource(folder=path.parent, files={"train": path}), asked)


def task_of_rows(
    name: str, source: RowSource, asked: Asked, *, template: str | None = None, note: str = "", **more: Any
) -> Task:
    """A task of columns alone: those of the inputs, and one of the answer (`softprompt.tasks.columns`).

    Where there are no validation rows, a fifth of the training rows is held out.

    Args:
        name: of the task.
        source: of its rows.
        asked: what the user says of the columns.
        template: of the inputs; ``column: text`` for every column where None.
        note: what a user should know.
        more: further arguments of `Task`.
    """
    found = find_columns(source.rows("train", BadRows()), asked)
    labels = found.labels if found.kind == "classification" else None
    said: dict[str, Any] = {
        "task": name,
        "form": "template",
        "columns": found.inputs,
        "label_column": found.label,
        "labels": labels,
        "metrics": METRICS_OF[found.kind],
    }
    plain = template or " ".join(f"{escaped(column)}: {{{column}}}" for column in found.inputs)
    wordings = {
        form: Worded(form=partial(_columns, template=text, columns=found), wording=wording, labels=labels)
        for form, text in (("t5", plain), ("natural", template or generic(found.inputs, found.label)))
        for wording in [Wording(template=text, **said)]
    }
    held_out = not has_split(source, "validation")
    if held_out:
        source = HeldOutSource(source=source, inputs=partial(_read, template=plain))
    fields = source.describe().get("fields")
    notes = [note, f"The fields are {fields}." if fields else "", found.note, HELD_OUT_NOTE if held_out else ""]
    ids = [c for c in found.left_out if c.lower() in ID_COLUMNS]
    return _user_task(
        name,
        wordings["t5"].form,
        source,
        labels=labels,
        metrics=METRICS_OF[found.kind],
        note=" ".join(part.strip() for part in notes if part),
        id_column=ids[0] if ids else None,
        wording=wordings["t5"].wording,
        wordings=wordings,
        **more,
    )


def has_split(source: RowSource, split: str) -> bool:
    """Whether a source has a split, told without reading it; the hub is taken to have it."""
    if isinstance(source, FileSource):
        return source.find(split) is not None
    return split in source.splits if isinstance(source, MemorySource) else True


def _read(row: Row, *, template: str) -> str:
    return worded(template, row)


def _columns(row: Row, *, template: str, columns: Columns) -> list[Formed]:
    return formed(row, worded(template, row), columns)
