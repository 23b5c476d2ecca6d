"""Tasks by name: built-in generated ones, those of the papers, and the user's own.

load_task("rte", "data")
load_task("path/to/my_task")
load_task("owner/name")
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from softprompt import waits
from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.columns import Asked, as_names
from softprompt.tasks.declaration import PINS, Declared
from softprompt.tasks.forms import DECLARATIONS, canonical_name, t5_form
from softprompt.tasks.generated.tasks import GENERATED
from softprompt.tasks.mixed import MixtureTask
from softprompt.tasks.mixture import MIXTURES, load_mixture
from softprompt.tasks.natural import NATURAL, natural_form
from softprompt.tasks.preprocessors import prefix_lm
from softprompt.tasks.readers import format_of
from softprompt.tasks.rows import RowSource
from softprompt.tasks.sources import FileSource, HubSource, MissingSource
from softprompt.tasks.task import Task
from softprompt.tasks.wording import Worded, Wording

DATA_VARIABLE = "SOFTPROMPT_DATA"
"""Environment variable that names a data folder where none is given."""


def generated() -> Mapping[str, Callable[[], Task]]:
    """The built-in generated tasks: name -> a function that makes the task."""
    return GENERATED


def task_names() -> list[str]:
    """All names `load_task` knows without a folder of the user's: generated tasks first, then the catalog."""
    return [*generated(), *DECLARATIONS]


def declared(name: str) -> Declared:
    """The catalog's row of a task."""
    if name not in DECLARATIONS:
        raise UnknownNameError("task", name, DECLARATIONS, "`softprompt tasks ls` lists them.")
    return DECLARATIONS[name]


def load_task(
    name: str,
    data: str | Path | None = None,
    *,
    prefix: bool = True,
    skip_bad: int = 0,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    kind: str | None = None,
    progress: bool = True,
) -> Task:
    """A task by name, or the user's own by path.

    Args:
        name: a name of `task_names`, of a folder in ``data``, a path to a user's task (a file of rows, a folder, .toml, .py),
            or a data set of the hub: ``owner/name`` where no such path is there, ``owner/name:config``, ``hf:owner/name``;
            or a mixture of such (``glue``, ``mnli+qqp``, ``mnli=7+qqp=3``).
        data: a folder with ``tasks/<name>/{train,validation}.*`` or ``<name>/{train,validation}.*``; where None, a
            generated task, the folder that $SOFTPROMPT_DATA names, or the Hugging Face hub.
        prefix: keep the task's name in front of the inputs where the form has one.
        skip_bad: how many bad rows a split may leave out.
        text: column or columns of the inputs, of a user's own rows.
        label: column of the answer, likewise.
        kind: of the answer, likewise: classification, regression, multi_label or text.
        progress: show a bar while a large file is read.

    Raises:
        UnknownNameError: with the nearest names.
        DataError: where ``data`` does not hold the task.
        UsageError: columns were named for a task that has its own.

    Example:
        >>> sp.load_task("gen_sentiment_film")
        <Task gen_sentiment_film: 2 labels, accuracy>
    """
    asked = Asked(text=as_names(text), label=label, kind=kind)
    with waits.shown(progress):
        return _loaded(name, data, asked, prefix=prefix, skip_bad=skip_bad)


def _loaded(name: str, data: str | Path | None, asked: Asked, *, prefix: bool, skip_bad: int) -> Task:
    if is_mixture(name) and (data is None or task_folder(name, Path(data)) is None):
        if asked:
            raise UsageError(f"{name!r} is a mixture: columns are named in each of its tasks, not for all of them.")
        return _load_mixture(name, data, prefix=prefix, skip_bad=skip_bad)
    own = _of_the_user(name, asked)
    if own is not None:
        return own.with_skip_bad(skip_bad)
    known = canonical_name(name)
    if asked and known in {*DECLARATIONS, *generated()}:
        raise UsageError(
            f"task {known!r} has columns of its own; --text-column, --label-column and --kind are for your files."
        )
    if data is not None:
        task = _from_folder(known, Path(data), prefix, asked)
        if task is None and known not in generated():
            raise _not_in_folder(known, Path(data))
        if task is not None:
            return task.with_skip_bad(skip_bad)
    if known in generated():
        return generated()[known]().with_skip_bad(skip_bad)
    root = os.environ.get(DATA_VARIABLE)
    task = _from_folder(known, Path(root), prefix, asked) if root else None
    if task is None:
        if known not in DECLARATIONS:
            here = f"For what lies here, write ./{name}." if os.path.exists(name) else ""
            raise UnknownNameError("task", name, task_names(), here or "`softprompt tasks ls` lists them.")
        task = make(DECLARATIONS[known], _hub_source(DECLARATIONS[known]), prefix=prefix)
    return task.with_skip_bad(skip_bad)


def is_mixture(name: str) -> bool:
    """Whether a name is one of the papers' mixtures, or joins tasks: ``mnli+qqp``, ``mnli=7+qqp=3``."""
    return name in MIXTURES or ("+" in name and not name.startswith("hf:") and not Path(name).exists())


def _of_the_user(name: str, asked: Asked) -> Task | None:
    """The task that a name of the hub or a path stands for; None where it is neither."""
    from softprompt.tasks.user import load_hub_task, load_user_task

    if name.startswith("hf:"):
        return load_hub_task(name.removeprefix("hf:"), asked)
    if _names_a_data_set(name):
        return _of_hub(name, asked)
    return load_user_task(Path(name), asked) if _is_path(name) else None


def _load_mixture(name: str, data: str | Path | None, *, prefix: bool, skip_bad: int) -> Task:
    mixture = load_mixture(name)
    parts = [load_task(part, data, prefix=prefix, skip_bad=skip_bad) for part in mixture.tasks]
    own = dict(zip(mixture.tasks, (part.name for part in parts), strict=True))
    weights = {own[given]: weight for given, weight in mixture.weights.items()}
    if name not in MIXTURES:
        rates = {task: f"={weights[task]:g}" if weights else "" for task in own.values()}
        name = "+".join(task + rates[task] for task in own.values())
    return MixtureTask.of(replace(mixture, name=name, tasks=tuple(own.values()), weights=weights), parts)


def make(declared: Declared, source: RowSource, *, prefix: bool = True) -> Task:
    """The task of a catalog row over a source, in the papers' wording; `Task.worded` gives the natural one."""
    t5, natural = _t5(declared, prefix), _natural(declared)
    return Task(
        name=declared.name,
        category=declared.category,
        labels=t5.labels,
        metrics=declared.metrics,
        source=source,
        form=t5.form,
        licence=declared.licence,
        note=declared.note,
        id_column=declared.id_column,
        streamed=declared.streamed,
        stream_rows=declared.stream_rows,
        target_tokens=declared.target_tokens,
        drawn_prefix=declared.form is prefix_lm,
        wording=t5.wording,
        wordings={"t5": t5, "natural": natural},
    )


def _t5(declared: Declared, prefix: bool) -> Worded:
    wording = Wording(
        task=declared.name,
        form="t5",
        columns=declared.input_columns,
        label_column=declared.label_column,
        labels=declared.classes,
        metrics=declared.metrics,
        instruction=NATURAL[declared.name].instruction,
        prefix=prefix,
    )
    form = t5_form(declared, prefix=prefix)
    return Worded(form=form, wording=wording, labels=declared.classes, metrics=declared.metrics)


def _natural(declared: Declared) -> Worded:
    natural = NATURAL[declared.name]
    base = t5_form(declared, prefix=False, **natural.settings)
    labels = natural.labels if natural.by_label else declared.classes
    metrics = natural.metrics or declared.metrics
    wording = Wording(
        task=declared.name,
        form="natural",
        template=natural.template,
        columns=declared.input_columns,
        label_column="label" if natural.by_label else declared.label_column,
        labels=labels,
        answers=natural.answers,
        metrics=metrics,
        instruction=natural.instruction,
    )
    form = partial(natural_form, natural=natural, form=declared.form, base=base)
    return Worded(form=form, wording=wording, labels=natural.answers or labels, metrics=metrics)


def known_wording(name: str) -> Wording | None:
    """The papers' wording of a task known here by its name; None for any other."""
    known = canonical_name(name)
    if known in DECLARATIONS:
        return _t5(DECLARATIONS[known], True).wording
    return generated()[known]().wording if known in generated() else None


def _names_a_data_set(name: str) -> bool:
    """Whether a name reads ``owner/name``, with or without ``:config``, and no file or folder of that name is here."""
    named = re.fullmatch(r"\w[\w-]*/\w[\w.-]*(:\w[\w.-]*)?", name) is not None
    return named and format_of(Path(name)) is None and not name.endswith((".py", ".toml")) and not os.path.exists(name)


def _of_hub(name: str, asked: Asked) -> Task:
    """A data set of the hub that was named as a folder could be: where it cannot be read, both are said."""
    from softprompt.tasks.user import load_hub_task

    try:
        return load_hub_task(name, asked)
    except DataError as error:
        raise DataError(f"{name} is no file or folder here, and as a data set of the hub: {error}") from error


def _is_path(name: str) -> bool:
    return os.sep in name or ".py:" in name or name.endswith((".py", ".toml")) or format_of(Path(name)) is not None


def task_folder(name: str, root: Path) -> Path | None:
    """The folder of a task's files under a data folder; None where there is none. The name stays inside the folder."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\x00" in name:
        return None
    for folder in (root / "tasks" / name, root / name):
        if folder.is_dir():
            return folder
    return None


def _from_folder(name: str, root: Path, prefix: bool, asked: Asked) -> Task | None:
    declared = DECLARATIONS.get(name)
    wanted = declared.folder or name if declared else name
    folder = task_folder(wanted, root)
    if folder is None:
        beside = _stem_file(wanted, root)
        if beside is None:
            return None
        if declared is None:
            from softprompt.tasks.user import load_user_task

            return load_user_task(beside, asked)
        source = FileSource(folder=beside.parent, stem=wanted, keep=declared.keep, rename=declared.rename)
        return make(declared, source, prefix=prefix)
    if declared is None or (folder / "task.toml").is_file():
        from softprompt.tasks.user import load_user_task

        return load_user_task(folder, asked)
    source = FileSource(folder=folder, keep=declared.keep, rename=declared.rename)
    return make(declared, source, prefix=prefix)


def _stem_file(name: str, root: Path) -> Path | None:
    """``NAME.train.*`` in a data folder; None where there is none."""
    if "/" in name or "\\" in name or "\x00" in name:
        return None
    for folder in (root / "tasks", root):
        found = FileSource(folder=folder, stem=name).find("train") if folder.is_dir() else None
        if found is not None:
            return found
    return None


def _not_in_folder(name: str, root: Path) -> DataError | UnknownNameError:
    there = names_in_folder(root)
    if name not in DECLARATIONS:
        return UnknownNameError("task", name, [*there, *generated()], f"{root} holds {', '.join(there) or 'none'}.")
    holds = f"it holds {', '.join(there)}" if there else "it holds no task (a folder with train and validation files)"
    return DataError(f"{root} has no folder for task {name!r}; {holds}.")


def names_in_folder(root: Path) -> list[str]:
    """Names of the tasks a data folder holds: its own folders and those of ``tasks/``."""
    base = root / "tasks" if (root / "tasks").is_dir() else root
    if not base.is_dir():
        return []
    named = {p.name.partition(".train.")[0] for p in base.glob("*.train.*") if format_of(p)}
    return sorted({p.name for p in base.iterdir() if p.is_dir()} | named)


def _hub_source(declared: Declared) -> RowSource:
    if declared.hub is None:
        remedy = declared.remedy or f"task {declared.name!r} is not on the hub; give local files with --data."
        return MissingSource(remedy=remedy)
    repo, config, branch = declared.hub
    return HubSource(
        repo=repo,
        config=config,
        branch=branch,
        revision=PINS.get(repo) if branch == "main" else None,
        splits=declared.splits,
        rename=declared.rename,
        keep=declared.keep,
        tag=declared.tag,
        streamed=declared.streamed,
    )
