"""`softprompt tasks check`: a task proven against its data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from softprompt.errors import DataError, SoftpromptError, UsageError, short, some
from softprompt.tasks.encoded import check_labels
from softprompt.tasks.example import Example, Split
from softprompt.tasks.rows import UNKNOWN_TARGET
from softprompt.tasks.show import published_sizes
from softprompt.tasks.task import Task

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone

STREAM_ROWS = 200
"""How much of a streamed task is checked."""

GENERATION_ROWS = 500
"""Gold texts that go through ROUGE or BLEU, which take their time."""


def check_task(
    task: Task, splits: Sequence[str] = ("train", "validation"), backbone: Backbone | None = None
) -> dict[str, Any]:
    """Read every split, count rows and labels, and send the gold targets through the metrics.

    Args:
        task: any task.
        splits: to read.
        backbone: whose tokenizer must be able to write the labels; None for none.

    Returns:
        ``ok``; ``problems`` (what makes it not ok); ``notes`` (what a user should know: other counts than published,
        repeated rows, missing labels); ``splits`` with counts, label counts, fingerprints and the gold score.
    """
    found: dict[str, Split] = {}
    problems: list[str] = []
    notes: list[str] = []
    report: dict[str, Any] = {}
    if backbone is not None:
        try:
            check_labels(backbone, task.labels)
        except UsageError as error:
            problems.append(str(error))
    for name in splits:
        try:
            found[name] = task.split(name, max_rows=STREAM_ROWS if task.streamed else None)
        except DataError as error:
            problems.append(str(error))
            continue
        report[name] = _check_split(task, found[name], problems, notes)
    notes += label_doubts(task, {name: split.examples for name, split in found.items()})
    if {"train", "validation"} <= found.keys():
        shared = {e.inputs for e in found["train"].examples} & {e.inputs for e in found["validation"].examples}
        if shared:
            notes.append(f"{len(shared)} inputs stand in both train and validation.")
    return {"task": task.name, "ok": not problems, "problems": problems, "notes": notes, "splits": report}


def label_doubts(task: Task, splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """What is doubtful in a task's labels, a sentence each; nothing of a task with free answers.

    Args:
        task: gives the labels.
        splits: examples by the split's name; "train" is asked for every label.
    """
    labels = task.labels
    if labels is None or "exact_text" in task.metrics:
        return []
    doubts = []
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[_bare(label)].append(label)
    for spellings in alike.values():
        if len(spellings) > 1:
            doubts.append(
                f"labels {_quoted(spellings)} count as different ones: spell them alike if they mean the same."
            )
    for name, examples in splits.items():
        told: dict[str, set[str]] = defaultdict(set)
        for example in examples:
            if example.targets != UNKNOWN_TARGET:
                told[example.inputs].add(example.targets)
        several = {inputs: found for inputs, found in told.items() if len(found) > 1}
        if several:
            inputs, found = next(iter(several.items()))
            doubts.append(
                f"{name}: {len(several)} input(s) have more than one label; {short(inputs)} has {_quoted(sorted(found))}."
            )
    if train := splits.get("train"):
        missing = sorted(set(labels) - {e.targets for e in train})
        if missing:
            doubts.append(f"train: no row has the label {_quoted(missing)}.")
    return doubts


def _bare(label: str) -> str:
    """A label without case, its words parted by single spaces. Signs stay: "-1" is not "1", nor "A+" "A-"."""
    return " ".join(label.replace("_", " ").casefold().split())


def _quoted(labels: Sequence[str]) -> str:
    return some([repr(label) for label in labels], most=5)


def _check_split(task: Task, split: Split, problems: list[str], notes: list[str]) -> dict[str, Any]:
    examples = split.examples
    counts = Counter(e.targets for e in examples) if task.labels is not None else Counter()
    empty = sum(task.is_empty(e) or not e.targets for e in examples)
    missing = sum(e.targets == UNKNOWN_TARGET for e in examples)
    repeated = len(examples) - len({(e.inputs, e.targets) for e in examples})
    if empty:
        notes.append(f"{split.name}: {empty} examples have empty inputs or targets.")
    if split.unlabelled:
        notes.append(f"{split.name}: {split.unlabelled} rows have no gold label and are left out of training.")
    if missing:
        notes.append(f"{split.name}: {missing} examples have no gold label.")
    if repeated:
        notes.append(f"{split.name}: {repeated} examples repeat another one.")
    if split.skipped:
        notes.append(f"{split.name}: {split.skipped} bad rows were skipped.")
    outside = sorted(set(counts) - {UNKNOWN_TARGET, *(task.labels or ())}) if "exact_text" not in task.metrics else []
    if outside:
        problems.append(f"{split.name}: targets outside the labels: {', '.join(outside[:5])}.")
    published = (published_sizes(task.name) or {}).get(split.name)
    if published and published != len(examples) and not task.streamed:
        notes.append(f"{split.name}: {len(examples):,} examples, {published:,} rows published.")
    gold = _gold_scores(task, split, problems) if missing < len(examples) else None
    return {
        "rows": len(examples),
        "labels": dict(sorted(counts.items())),
        "skipped": split.skipped,
        "unlabelled": split.unlabelled,
        "fingerprint": split.fingerprint,
        "gold_scores": gold,
    }


def _gold_scores(task: Task, split: Split, problems: list[str]) -> dict[str, float] | None:
    slow = {"rouge1", "bleu"} & set(task.metrics)
    examples = split.examples[:GENERATION_ROWS] if slow else split.examples
    try:
        scores = task.score(gold_answers(task, examples), examples)
    except SoftpromptError as error:
        problems.append(f"{split.name}: {error}")
        return None
    low = {k: round(v, 4) for k, v in scores.items() if v < 100 - 1e-6}
    constant = len({e.targets for e in examples}) < len(task.labels or (0, 1))
    if low and not constant:
        problems.append(f"{split.name}: gold targets score {low}, not 100: the metrics do not undo the text form.")
    return scores


def gold_answers(task: Task, examples: Sequence[Example]) -> list[str]:
    """What a model that is always right would write: the target; for WSC another word where the referent is wrong."""
    if "referent_accuracy" not in task.metrics:
        return [e.targets for e in examples]
    return [e.targets if e.extra.get("label") else "nobody" for e in examples]
