"""What a study's tasks hold: fingerprints, counts, and targets' rows among the sources' training rows.

Told once: what was found is remembered in the user's cache under what it depends on (files and commits, the wording, the
draw), so that a study that is resumed, or planned again, reads no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from softprompt.study.grid import DataFacts
from softprompt.study.settings import Study
from softprompt.tasks import stored
from softprompt.tasks.contamination import exact_rows, text_key

if TYPE_CHECKING:
    from softprompt.tasks.example import Example
    from softprompt.tasks.task import Task


def data_facts(study: Study, task: Task, name: str) -> DataFacts:
    """Fingerprints and counts of a task's rows in a study.

    Args:
        study: says how many rows are used.
        task: worded for the study's backbone.
        name: what the study calls it.

    Raises:
        DataError: it lacks rows.
    """
    limits = study.rows_of(name)
    states = [task.state(split, most) for split, most in limits.items()]
    state = stored.state_key("facts", *states) if all(states) else None
    found = stored.known(state) if state is not None else None
    if found is None:
        train, validation = (task.split(split, max_rows=most) for split, most in limits.items())
        found = {
            "train": train.fingerprint, "validation": validation.fingerprint, "train_rows": len(train),
            "validation_rows": len(validation),
        }  # fmt: skip
        if state is not None:
            stored.remember(state, found)
    return DataFacts(**found, metrics=tuple(task.metrics), labels=tuple(task.labels or ()))


def contamination(study: Study, tasks: Mapping[str, Task], data: Mapping[str, DataFacts]) -> list[tuple[str, str, int]]:
    """(target, source, rows): validation inputs of the target that a source's training rows hold too, word for word."""
    parts = {source: study.tasks_of(source) for source in study.sources}
    whole = {name: asdict(facts) for name, facts in data.items()}
    state = stored.state_key("contamination", list(study.targets), parts, whole)
    found = stored.known(state)
    if found is None:
        rows = _shared_rows(study, tasks, {task for names in parts.values() for task in names})
        pairs = [(target, source, exact_rows(*rows[target, source])) for target in study.targets for source in parts]
        found = {"rows": [[target, source, count] for target, source, count in pairs if count]}
        stored.remember(state, found)
    return [(str(target), str(source), int(count)) for target, source, count in found["rows"]]


def _shared_rows(
    study: Study, tasks: Mapping[str, Task], sources: Iterable[str]
) -> dict[tuple[str, str], tuple[list[tuple[str, ...]], set[tuple[str, ...]]]]:
    """For each target and source the target's texts, and those of them that the source's training rows hold.

    The sources are read one after the other, a row at a time; what is kept is what some target asks for.
    """
    held = {
        name: list(
            _keys(tasks[name], tasks[name].split("validation", max_rows=study.rows_of(name)["validation"]).examples)
        )
        for name in study.targets
    }
    wanted = {key for keys in held.values() for key in keys}
    seen = {}
    for name in sources:
        train = tasks[name].split("train", max_rows=study.rows_of(name)["train"])
        seen[name] = wanted & {key for key in _keys(tasks[name], train.examples) if key in wanted}
    return {
        (target, source): (keys, set().union(*(seen[task] for task in study.tasks_of(source))))
        for target, keys in held.items()
        for source in study.sources
    }


def _keys(task: Task, examples: Iterable[Example]) -> Iterator[tuple[str, ...]]:
    """What each example's text is compared by; nothing for a row without text, which is like no other."""
    return (() if task.is_empty(example) else text_key(example.inputs) for example in examples)
