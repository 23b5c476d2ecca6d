"""The source tasks as one: a plain union, where every row is as likely as any other (SharPT section 3).

Letters: S reference rows, m encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.tasks.encoded import EncodedSplit, encode_split, input_room
from softprompt.tasks.example import Example, Split
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData
from softprompt.training.runs import Run
from softprompt.training.settings import TrainSettings
from softprompt.training.stream import RowStream, keyed_rng


@dataclass(frozen=True, kw_only=True)
class UnionTask(Task):
    """Several tasks scored together: each on its own rows, then averaged.

    Attributes:
        parts: the tasks, by name; a row belongs to the one its key begins with.
    """

    parts: Mapping[str, Task]

    def judge_of(self, example: Example) -> Task:
        """The task that the row comes from."""
        return self.parts[example.key.split("/", 1)[0]]

    @property
    def scored_by_label(self) -> bool:
        """Whether a part has labels; rows of the others are answered by generating."""
        return any(part.labels for part in self.parts.values())

    def score(
        self,
        predictions: Sequence[str],
        examples: Sequence[Example],
        canonical: Callable[[str], str] | None = None,
    ) -> dict[str, float]:
        """Each task's score in percent by its name, and ``score``, their mean over the tasks that have rows here."""
        rows: dict[str, list[int]] = {}
        for i, example in enumerate(examples):
            rows.setdefault(self.judge_of(example).name, []).append(i)
        scores = {
            name: self.parts[name].score([predictions[i] for i in own], [examples[i] for i in own], canonical)["score"]
            for name, own in rows.items()
        }
        return {**scores, "score": float(np.mean(list(scores.values()))) if scores else 0.0}

    def groups(self, examples: Sequence[Example]) -> list[str]:
        """For each example what its own task judges it together with."""
        parts = [self.judge_of(example) for example in examples]
        return [f"{part.name} {part.groups([e])[0]}" for part, e in zip(parts, examples, strict=True)]


def names_of(tasks: Iterable[Task]) -> tuple[str, ...]:
    """The words that may stand in front of these tasks' texts to name them, sorted."""
    names: set[str] = set()
    for task in tasks:
        settings = getattr(task.form, "keywords", {})  # of the catalog's forms, which are partial functions
        prefix = settings.get("prefix")
        names |= {task.name} | ({str(prefix)} if prefix else set())
        if prefix and settings.get("round_column"):  # ANLI: a row's round joins the name
            names |= {f"{prefix}_r{number}" for number in (1, 2, 3)}
    return tuple(sorted(names))


def reference_encodings(
    encoder: CachedEncoder, sources: Sequence[TaskData], most: int, task_names: Sequence[str] = ()
) -> Tensor:
    """Raw encodings of at most ``most`` source rows, drawn evenly from the plain union of all, float32 [S, m]."""
    rows = [example for source in sources for example in source.train.examples]
    if len(rows) > most:
        picked = np.sort(keyed_rng(0, "sharpt-reference").permutation(len(rows))[:most])
        rows = [rows[int(i)] for i in picked]
    return encoder.precompute(rows, task_names)


def drawn_rows(run: Run, settings: TrainSettings) -> list[Example]:
    """The training rows a run will see, each once: all that need an instance encoding."""
    count = (run.steps or settings.steps) * settings.batch_size
    sizes = [len(part) for part in run.train]
    if count >= sum(sizes):
        return [example for part in run.train for example in part.examples]
    picks = dict.fromkeys(RowStream(sizes, run.rates, run.seed).take(count))
    return [run.train[part].examples[row] for part, row in picks]


def union_of(
    backbone: Backbone, sources: Sequence[TaskData], settings: TrainSettings
) -> tuple[UnionTask, EncodedSplit]:
    """The sources as one task, and their validation rows as one split: an even share of ``eval_rows`` from each.

    Args:
        backbone: whose tokenizer is used, and whose ``max_length`` binds.
        sources: at least one.
        settings: of source training; ``eval_rows`` 0 takes all rows.
    """
    parts = {source.task.name: source.task for source in sources}
    share = -(-settings.eval_rows // len(sources)) if settings.eval_rows else None
    examples: list[Example] = []
    for source in sources:
        own = list(source.validation.examples)
        if share is not None and share < len(own):
            picked = np.sort(keyed_rng(0, "sharpt-union").permutation(len(own))[:share])
            own = [own[int(i)] for i in picked]
        examples.extend(own)
    first = sources[0].task
    union = UnionTask(
        name="union-of-sources",
        category="mixture",
        labels=None,
        metrics=(),
        source=first.source,
        form=first.form,
        parts=parts,
    )
    room = input_room(backbone, settings.prompt_length, None, settings.max_target_tokens)
    split = Split.of("validation", examples)
    return union, encode_split(split, backbone, max_input_tokens=room, max_target_tokens=None)
