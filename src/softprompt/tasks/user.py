"""The user's own tasks: a csv, a folder with or without a few lines of TOML, or one decorated function.

    reviews.csv                                       text and label columns; nothing else to write
    hf:owner/name or hf:owner/name:config             the same from the Hugging Face hub
    my_task/{train,validation}.jsonl                  the same, split by hand
    my_task/task.toml                                 inputs = "question: {question}", targets = "{answer}", ...
    my_task.py                                        one function under @task

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
from softprompt.tasks.metrics import METRICS
from softprompt.tasks.rows import UNKNOWN_TARGET, BadRows, Form, Formed, Row, RowSource
from softprompt.tasks.sources import FileSource, HubSource
from softprompt.tasks.task import Task
from softprompt.tasks.template import column_of, places
from softprompt.tasks.wording import Wording

LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "sentiment", "intent")
ID_COLUMNS = ("id", "idx")
MOST_LABELS = 200
"""More distinct values than this are taken for free text."""

HELD_OUT_NOTE = "No validation file: a fifth of the rows, drawn by their content, stands in and is not trained on."
TOML_KEYS = (
    "name",
    "inputs",
    "targets",
    "labels",
    "label",
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

_PLACE = re.compile(r"\{(\w+)\}")
UserForm = Callable[[Mapping[str, Any]], tuple[str, Any]]


def load_user_task(path: Path) -> Task:
    """The task of a csv or tsv file, a folder, a .toml file or a .py file (``file.py:function`` where it has several).

    Raises:
        DataError: where the path holds no task, or its data cannot be used.
        UsageError: where the TOML or the function is wrong.
    """
    text = str(path)
    if text.endswith(".py"):
        return _from_python(path, "")
    if ".py:" in text:
        file, _, function = text.rpartition(".py:")
        return _from_python(Path(file + ".py"), function)
    if path.suffix == ".toml":
        return _from_toml(path)
    if path.is_file():
        return _from_table(path)
    if (path / "task.toml").is_file():
        return _from_toml(path / "task.toml")
    if path.is_dir():
        return _classification(path.resolve().name, FileSource(folder=path))
    raise DataError(f"{path}: no such file or folder; give a csv, a folder with train.jsonl, a .toml or a .py file.")


def load_hub_task(address: str) -> Task:
    """A classification data set of the Hugging Face hub as a task: ``owner/name`` or ``owner/name:config``.

    Its label column is found as in a csv. For label words, another text form or a pinned commit write a task.toml with
    ``hub = "owner/name"``.
    """
    repo, _, config = address.partition(":")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", repo):
        raise UsageError(f"hub data set {repo!r} should be owner/name.")
    return _classification(repo.replace("/", "_"), HubSource(repo=repo, config=config or None))


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
        text = UNKNOWN_TARGET if target is None else str(target)
        return Formed(inputs, text, {"references": [text], "answers": [text]})
    index = Row(values={"label": target}, line=row.line, where=row.where).label(labels)
    return Formed(inputs, UNKNOWN_TARGET if index is None else labels[index], {"label": index})


def _files(folder: Path, data: str | Mapping[str, str]) -> FileSource:
    if isinstance(data, str):
        return FileSource(folder=folder / data)
    return FileSource(folder=folder, files={split: folder / file for split, file in data.items()})


def _from_toml(path: Path) -> Task:
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}.") from error
    for key in settings:
        if key not in TOML_KEYS:
            raise UnknownNameError(f"key in {path}", key, TOML_KEYS)
    lists = {key: settings.get(key) for key in ("labels", "metrics")}
    for key, value in lists.items():
        if value is not None and not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise UsageError(f'{path}: {key} should be a list of texts, e.g. {key} = ["no", "yes"].')
    wrong = [k for k, v in settings.items() if k not in lists and not isinstance(v, str)]
    if wrong:
        raise UsageError(f"{path}: {', '.join(wrong)} should be text in quotes.")
    source = _toml_source(path.parent, settings)
    name = settings.get("name", path.parent.resolve().name)
    if "inputs" not in settings:
        return _classification(name, source, label=settings.get("label"), labels=settings.get("labels"))
    labels = settings.get("labels")
    targets = settings.get("targets", "{" + settings.get("label", "label") + "}")
    form = partial(_template, inputs=settings["inputs"], targets=targets, labels=labels and tuple(labels))
    return _user_task(
        name,
        form,
        source,
        labels=labels,
        metrics=settings.get("metrics"),
        category=settings.get("category", "user"),
        licence=settings.get("licence", "unstated"),
        note=settings.get("note", ""),
        id_column=settings.get("id"),
        wording=Wording(
            task=name,
            form="template",
            template=settings["inputs"],
            columns=tuple(dict.fromkeys(column_of(place) for place in places(settings["inputs"]))),
            label_column=next(iter(_PLACE.findall(targets)), None),
            labels=labels,
            metrics=settings.get("metrics") or (),
        ),
    )


def _toml_source(folder: Path, settings: Mapping[str, str]) -> FileSource | HubSource:
    """Files beside the TOML, or a data set of the hub; train, validation and test name files or the hub's splits."""
    named = {split: settings[split] for split in ("train", "validation", "test") if split in settings}
    if "hub" not in settings:
        files: dict[str, Path] = {split: folder / file for split, file in named.items()}
        return FileSource(folder=folder, files=files)
    splits: dict[str, tuple[str, ...]] = {split: (name,) for split, name in named.items()}
    config, revision = settings.get("config"), settings.get("revision")
    return HubSource(repo=settings["hub"], config=config, revision=revision, splits=splits)


def _template(row: Row, *, inputs: str, targets: str, labels: tuple[str, ...] | None) -> list[Formed]:
    text = _PLACE.sub(lambda match: row.text(match[1]), inputs)
    whole = _PLACE.fullmatch(targets)
    if not row.labelled and any(row.values.get(c) is None for c in _PLACE.findall(targets)):
        return [_formed(row, text, None, labels)]
    target = row.get(whole[1]) if whole and labels else _PLACE.sub(lambda match: row.text(match[1]), targets)
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
    )


@dataclass(frozen=True, kw_only=True)
class HeldOutSource:
    """One file as training and validation: rows are held out by their content, so equal rows stay on one side.

    Attributes:
        source: gives all rows as its training split.
        share: one row in this many is held out.
    """

    source: FileSource
    share: int = 5

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        if split == "test":
            raise DataError(f"{self.source.files['train']}: is one file without a test split; use validation.")
        rows = [(_content_key(row), row) for row in self.source.rows("train", bad)]
        keys = sorted({key for key, _ in rows})
        held_out = {key for key in keys if key % self.share == 0} or set(keys[:1])
        if len(held_out) == len(keys):
            held_out.discard(keys[-1])  # a file of a few rows keeps at least one on each side
        for key, row in rows:
            if (key in held_out) == (split != "train"):
                yield Row(values=row.values, line=row.line, where=row.where, train=split == "train")

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "held_out": f"1 in {self.share}"}


def _content_key(row: Row) -> int:
    content = json.dumps(dict(row.values), sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def _from_table(path: Path) -> Task:
    name = path.name.split(".")[0]
    source = FileSource(folder=path.parent, files={"train": path})
    return _classification(name, HeldOutSource(source=source), every=source, note=HELD_OUT_NOTE)


def _classification(
    name: str,
    source: RowSource,
    *,
    every: RowSource | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    note: str = "",
) -> Task:
    """A text-classification task from columns alone: one label column, ids left out, the rest is text."""
    rows = iter((every or source).rows("train", BadRows()))
    first = next(rows, None)
    if first is None:
        raise DataError(f"task {name!r}: the training file has no rows; give it at least one.")
    column = label or next((c for c in LABEL_COLUMNS if c in first.values), None)
    if column is None:
        raise first.error(
            f"no label column among {', '.join(first.values)}; name one 'label', or write a task.toml with inputs and "
            "targets."
        )
    texts = [c for c in first.values if c != column and c not in ID_COLUMNS and not c.endswith("_text")]
    if not texts:
        raise first.error(f"no text column beside {column!r}; it has {', '.join(first.values)}.")
    words = tuple(labels) if labels else _label_words(first, rows, column)
    cast = labels is not None  # declared words may be meant by their index, inferred ones are the values themselves
    id_column = next((c for c in ID_COLUMNS if c in first.values), None)
    form = partial(_columns, texts=tuple(texts), label=column, labels=words, cast=cast)
    template = " ".join(f"{_escaped(text)}: {{{text}}}" for text in texts)
    wording = Wording(
        task=name, form="template", template=template, columns=tuple(texts), label_column=column, labels=words,
        metrics=("accuracy",),
    )  # fmt: skip
    return _user_task(name, form, source, labels=words, note=note, id_column=id_column, wording=wording)


def _escaped(column: str) -> str:
    return column.replace("{", "{{").replace("}", "}}")


def _label_words(first: Row, rest: Iterator[Row], column: str) -> tuple[str, ...]:
    """The distinct labels in alphabetical (or numeric) order; text and numbers in one column are an error."""
    kind, words = type(first.get(column)), {str(first.get(column))}
    count = 1
    for row in rest:
        value = row.get(column)
        if type(value) is not kind:
            raise row.error(
                f"column {column!r} holds a {type(value).__name__} where line {first.line} holds a {kind.__name__}; "
                "write all labels one way."
            )
        words.add(str(value))
        count += 1
    if len(words) < 2 or len(words) > MOST_LABELS:
        raise first.error(
            f"column {column!r} has {len(words)} distinct values in {count} rows; a classification needs 2 to "
            f"{MOST_LABELS}: name the label column or write a task.toml."
        )
    numeric = all(re.fullmatch(r"-?\d+", word) for word in words)
    return tuple(sorted(words, key=int if numeric else str))


def _columns(row: Row, *, texts: tuple[str, ...], label: str, labels: tuple[str, ...], cast: bool) -> list[Formed]:
    inputs = " ".join(f"{column}: {row.text(column)}" for column in texts)
    if cast:
        index = row.label(labels, label)
    else:
        value = row.values.get(label) if not row.labelled else row.get(label)
        word = None if value is None or value == "" else str(value)
        if word is not None and word not in labels:
            raise row.error(f"label {word!r} in column {label!r} is none of {', '.join(labels)}.")
        index = None if word is None else labels.index(word)
    return [Formed(inputs, UNKNOWN_TARGET if index is None else labels[index], {"label": index})]
