"""The source tasks as one: a plain union, where every row is as likely as any other (SharPT section 3).

Letters: S reference rows, m encoder width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.tasks.encoded import encode_split, input_room, target_limit
from softprompt.tasks.example import Example, Picked, Split, places
from softprompt.tasks.mixed import MixtureTask
from softprompt.tasks.mixture import Mixture
from softprompt.tasks.splits import EncodedSplit
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData
from softprompt.training.runs import Run
from softprompt.training.settings import TrainSettings
from softprompt.training.stream import RowStream, keyed_rng


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
    part_N, row_N = places([len(source.train) for source in sources])
    rows = Picked([source.train.examples for source in sources], part_N, row_N)
    if len(rows) > most:
        picked = np.sort(keyed_rng(0, "sharpt-reference").permutation(len(rows))[:most])
        return encoder.precompute([rows[int(i)] for i in picked], task_names)
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
) -> tuple[MixtureTask, EncodedSplit]:
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
    union = MixtureTask.of(Mixture(name="union-of-sources", tasks=tuple(parts), limit=None), list(parts.values()))
    most = max(target_limit(backbone, source.task, settings.max_target_tokens) for source in sources)
    room = input_room(backbone, settings.prompt_length, None, most)
    split = Split.of("validation", examples)
    return union, encode_split(split, backbone, max_input_tokens=room, max_target_tokens=None)
