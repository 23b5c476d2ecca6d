"""The source tasks as one: a plain union, where every row is as likely as any other (SharPT section 3).

Letters: S reference rows, m encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.tasks.encoded import EncodedSplit, encode_split
from softprompt.tasks.task import Example, Split, Task
from softprompt.training.data import TaskData
from softprompt.training.settings import TrainSettings
from softprompt.training.stream import keyed_rng


@dataclass(frozen=True, kw_only=True)
class UnionTask(Task):
    """Several tasks scored together: each on its own rows, then averaged.

    Attributes:
        parts: the tasks, by name; a row belongs to the one its key begins with.
    """

    parts: Mapping[str, Task]

    def score(
        self,
        predictions: Sequence[str],
        examples: Sequence[Example],
        canonical: Callable[[str], str] | None = None,
    ) -> dict[str, float]:
        """Each task's score in percent by its name, and ``score``, their mean over the tasks that have rows here."""
        rows: dict[str, list[int]] = {}
        for i, example in enumerate(examples):
            rows.setdefault(example.key.split("/", 1)[0], []).append(i)
        scores = {
            name: self.parts[name].score([predictions[i] for i in own], [examples[i] for i in own], canonical)["score"]
            for name, own in rows.items()
        }
        return {**scores, "score": float(np.mean(list(scores.values()))) if scores else 0.0}


def reference_encodings(encoder: CachedEncoder, sources: Sequence[TaskData], most: int) -> Tensor:
    """Raw encodings of at most ``most`` source rows, drawn evenly from the plain union of all, float32 [S, m]."""
    every_nm = torch.cat([encoder.precompute(source.train) for source in sources])
    if len(every_nm) <= most:
        return every_nm
    picked = np.sort(keyed_rng(0, "sharpt-reference").permutation(len(every_nm))[:most])
    return every_nm[torch.from_numpy(picked)]


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
    room = None if backbone.max_length is None else backbone.max_length - settings.prompt_length
    split = Split.of("validation", examples)
    return union, encode_split(split, backbone, max_input_tokens=room, max_target_tokens=None)
