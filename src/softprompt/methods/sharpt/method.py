"""SharPT on a target as a method: the generator tuned with the skills frozen (Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from softprompt.backbones.base import Backbone
from softprompt.methods.method import Result, Target, Work, result_of
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.space import Space
from softprompt.methods.sharpt.train import adapt, tuned_share
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData, task_data
from softprompt.training.settings import TrainSettings


class SharPT:
    """The generator of a latent space, tuned on the target.

    Args:
        space: from source training.
        encoder: the one it was trained with.
        settings: of target training; its prompt_length must be the space's.
        name: of the method.
    """

    def __init__(self, space: Space, encoder: CachedEncoder, settings: TrainSettings, *, name: str = "sharpt") -> None:
        self.space, self.encoder, self.settings, self.name = space, encoder, settings, name

    def plain(self) -> dict[str, Any]:
        """See `Method.plain`."""
        return {"target": asdict(self.settings), "space": self.space.name, "encoder": self.encoder.fingerprint}

    def encode(
        self, backbone: Backbone, task: Task, *, train_rows: int | None = None, validation_rows: int | None = None
    ) -> TaskData:
        """See `Method.encode`."""
        return task_data(backbone, task, self.settings, train_rows=train_rows, validation_rows=validation_rows)

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """See `Method.run`; what is delivered are the generator's tensors."""
        return self.run_all(work, [target], seeds)[0]

    def run_all(self, work: Work, targets: Sequence[Target], seeds: Sequence[int]) -> list[Result]:
        """`run` for several targets, all of whose runs train as one group."""
        adapted = adapt(
            work.backbone, self.encoder, self.space, [target.data for target in targets], self.settings, seeds=seeds,
            folder=work.folder, resume=work.resume, observer=work.observer(self.name, len(targets) * len(seeds)),
            select_rows=[target.select for target in targets], report_rows=[target.report for target in targets],
        )  # fmt: skip
        found = []
        for n, target in enumerate(targets):
            results = [made.result for made in adapted[n * len(seeds) : (n + 1) * len(seeds)]]
            one = result_of(self.name, target, results, work.backbone, sources=((self.space.name, 1.0),))
            one.tuned = int(tuned_share(self.space, work.backbone)["target"])
            found.append(one)
        return found
