"""What the makers of cells share: the study's backbone and data, where a pack works, and how results are recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from softprompt.errors import SoftpromptError
from softprompt.study.grid import Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.settings import Study
from softprompt.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.backbones.base import Backbone
    from softprompt.methods.method import Target, Work
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.training.data import TaskData
    from softprompt.training.loop import Progress
    from softprompt.training.runs import Run, RunResult

Tell = Callable[[int, int], None]
"""Called with the prompt-steps of a pack that are made, and how many of them the last step brought."""


class Loaded(Protocol):
    """What is loaded once a process and kept."""

    def backbone(self, study: Study) -> Backbone:
        """The study's backbone."""
        ...

    def data(self, study: Study, name: str, settings: TrainSettings) -> TaskData:
        """A task, tokenised."""
        ...

    def encoder(self, study: Study) -> CachedEncoder:
        """SharPT's instance encoder, its encodings kept in memory."""
        ...


@dataclass(frozen=True, kw_only=True)
class Making:
    """A pack on its way.

    Attributes:
        loaded: backbone, data and encoder.
        study: whose cells they are.
        pack: the cells.
        ledger: where they are recorded.
        folder: run directory of the pack.
        provenance: who makes them.
        tell: told of steps.
        behind: prompt-steps of the pack's cells that were made before the one at work, where they are made one after the other;
            None where all step together.
    """

    loaded: Loaded
    study: Study
    pack: Pack
    ledger: Ledger
    folder: Path
    provenance: Mapping[str, Any]
    tell: Tell | None = None
    behind: int | None = None

    @property
    def backbone(self) -> Backbone:
        """The study's."""
        return self.loaded.backbone(self.study)

    def data(self, name: str, settings: TrainSettings) -> TaskData:
        """A task, tokenised."""
        return self.loaded.data(self.study, name, settings)

    def observe(self, progress: Progress) -> None:
        """Pass a step on."""
        if self.tell is not None:
            together = len(self.pack.cells) if self.behind is None else 1
            self.tell((self.behind or 0) + together * progress.step, together)

    def work(self, place: str = "") -> Work:
        """Where a method trains; ``place`` is a folder of one cell in the pack's."""
        from softprompt.methods.method import Work

        return Work(
            backbone=self.backbone, folder=self.folder / place if place else self.folder, resume=True,
            observe=lambda *_: self.observe, identity={"pack": self.pack.key},
        )  # fmt: skip

    def target(self, cell: StudyCell, settings: TrainSettings, label: str = "") -> Target:
        """A cell's target task; checkpoints are chosen as the study's protocol says, and all rows reported on."""
        from softprompt.methods.method import Target

        data = self.data(str(cell.spec["target"]), settings)
        return Target(data=data, select=selecting_rows(self.study, data), label=label)

    def prompt_of(self, kind: str, key: str, wanted_by: str) -> Tensor:
        """The prompt [P, H] of a finished training: the best checkpoint, or the last where none was chosen (mixtures)."""
        tensors = self.ledger.tensors(kind, key)
        found = tensors.get("best", tensors.get("final"))
        if found is None:
            raise SoftpromptError(
                f"{wanted_by} has nothing to start from: training {kind}/{key[:12]} kept no checkpoint."
            )
        return found

    def record(
        self,
        cell: StudyCell,
        run: Run,
        result: RunResult,
        tensors: Mapping[str, Tensor],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what came on the way first, the training last: a training that is recorded is recorded whole.

        Args:
            cell: the training.
            run: gives the rows that its predictions are of.
            result: of the run.
            tensors: what is kept of it, each without the run axis: ``best`` [P, H] and such shapes.
            more: stands in its record beside, or instead of, what the run says.
        """
        told = {**plain_result(result), **(more or {})}
        story = self.story(cell, told["seconds"], result.evidence)
        for child in self.pack.made:
            if child.made_by != cell.id:
                continue
            if child.kind == "embedding" and (held := self._at(result, int(child.spec["step"]))) is not None:
                self.write(child, {"steps": child.spec["step"]}, {"prompt": held["prompt"]}, story)
            if child.kind == "evaluation" and result.predictions:
                self.write(child, self.halves(run, result.predictions), {}, story)
        self.write(cell, told, tensors, story)

    def _at(self, result: RunResult, step: int) -> Mapping[str, Tensor] | None:
        """The tensors of a run at an embedding's step; None where it did not get there."""
        return result.embedding if step == self.study.embedding.step else result.kept.get(step)

    def story(self, cell: StudyCell, seconds: float, evidence: Mapping[str, Any]) -> dict[str, Any]:
        """Provenance of a cell."""
        return {**self.provenance, "cell": cell.name, "seconds": seconds, "evidence": evidence}

    def write(
        self, cell: StudyCell, result: Mapping[str, Any], tensors: Mapping[str, Tensor], story: Mapping[str, Any]
    ) -> None:
        """Write a cell; its tensors may have any shape."""
        self.ledger.write(cell.kind, cell.key, cell.identity, result, tensors, story)

    def halves(self, run: Run, predictions: Sequence[str]) -> dict[str, Any]:
        """Scores of predictions on all of validation and on its two seeded halves."""
        from softprompt.inference.evaluate import canonical_text, halves

        canonical = canonical_text(self.backbone)
        examples = run.validation.examples

        def score(rows: Sequence[int]) -> float:
            chosen = [examples[r] for r in rows]
            return float(run.task.score([predictions[r] for r in rows], chosen, canonical=canonical)["score"])

        everything = list(range(len(examples)))
        parts = [[int(r) for r in part] for part in halves(len(examples), 0, run.task.groups(examples))]
        return {
            "score": score(everything),
            "halves": [score(part) if part else None for part in parts],
            "rows": [len(part) for part in parts],
            "predictions": list(predictions),
        }


def plain_result(result: RunResult) -> dict[str, Any]:
    """A training's result without what stands elsewhere: answers in the evaluation, evidence in the provenance."""
    return {name: v for name, v in result.plain().items() if name not in ("predictions", "name", "evidence")}


def selecting_rows(study: Study, data: TaskData) -> np.ndarray[Any, Any] | None:
    """The validation rows that choose checkpoints of target runs; None for all."""
    if study.protocol == "paper":
        return None
    from softprompt.inference.evaluate import halves

    return halves(len(data.validation), 0, data.task.groups(data.validation.examples))[0]
