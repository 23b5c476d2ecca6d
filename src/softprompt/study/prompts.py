"""A study's prompts as records of a library: its source prompts with their task embeddings, and the best prompt of each target.

SPoT's library of prompts (section 3.2) is what a study's source tuning leaves behind; here it leaves the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from softprompt.errors import SoftpromptError, UsageError
from softprompt.library.record import PromptRecord
from softprompt.study.build import build_grid
from softprompt.study.grid import TARGET_KINDS, Facts, Grid, StudyCell
from softprompt.study.ledger import Ledger, key_of
from softprompt.study.reading import facts_of, open_study
from softprompt.study.settings import Study

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.tasks.task import Task

Role = Literal["sources", "targets"]
ROLES: tuple[Role, ...] = ("sources", "targets")
PROMPT_KINDS = (*TARGET_KINDS, "race")
"""Cells of targets that leave a prompt."""


def is_ledger(place: str | Path) -> bool:
    """Whether a folder is the ledger of a study."""
    return "://" not in str(place) and (Path(place) / "ledger.json").is_file()


def study_records(
    folder: str | Path, name: str | None = None, roles: tuple[Role, ...] = ("sources",)
) -> list[PromptRecord]:
    """The finished prompts of a study, ready for ``Library.add``; needs no data, and the backbone only in old ledgers.

    Args:
        folder: of the ledger.
        name: of the study; may be left out where the ledger holds one.
        roles: ``sources``: every source prompt, with its task embedding; ``targets``: of each target the prompt that the
            selecting rows choose among all of the study's ways and seeds.

    Raises:
        UsageError: no such study, or nothing of it is finished.
    """
    study, ledger, noted = open_study(folder, name)
    writer = _Writer(study, ledger, facts_of(study, noted), str(folder))
    found = [
        *(writer.sources() if "sources" in roles else ()),
        *(writer.targets() if "targets" in roles else ()),
    ]
    if not found:
        raise UsageError(
            f"study '{study.name}' in {folder} has no finished prompt of its {' and '.join(roles)} yet: run it on."
        )
    return found


@dataclass
class _Writer:
    """Makes records of one study's cells."""

    study: Study
    ledger: Ledger
    facts: Facts
    place: str

    def __post_init__(self) -> None:
        self.grid: Grid = build_grid(self.study, self.facts)
        self.kind = self.facts.kind or self._loaded_kind()
        self._tasks: dict[str, Task | None] = {}

    def _loaded_kind(self) -> str:
        """Ledgers from before it was noted do not say what kind of backbone they are of."""
        from softprompt.backbones.load import load_backbone

        return load_backbone(self.study.backbone, dtype=self.study.dtype, device="cpu", progress=False).kind

    def sources(self) -> list[PromptRecord]:
        made = []
        for cell in self.grid.of_kind("source"):
            if self.ledger.has(*cell.id):
                source, seed = str(cell.spec["source"]), int(cell.spec["seed"])
                made.append(self._record(cell, source, seed, self._embedding("source", source, seed), ("source",), {}))
        return made

    def targets(self) -> list[PromptRecord]:
        made = []
        for target in self.study.targets:
            found = [
                best for cell in self.grid.of_kind(*PROMPT_KINDS) if (best := self._scored(cell, target)) is not None
            ]
            if not found:
                continue
            _, score, cell = max(found, key=lambda item: item[0])
            seed = int(cell.spec["seed"])
            embedding = self._embedding("target", target, seed)
            made.append(self._record(cell, target, seed, embedding, ("target", cell.kind), {"score": score}))
        return made

    def _scored(self, cell: StudyCell, target: str) -> tuple[float, float, StudyCell] | None:
        """(score that chooses, score that is reported, cell); None where it is of another target or not finished."""
        if cell.spec["target"] != target or not self.ledger.has(*cell.id):
            return None
        evaluation = self.grid.named("evaluation", f"{cell.kind}:{cell.name}")
        if not self.ledger.has(*evaluation.id):
            return None
        result = self.ledger.read(*evaluation.id).result
        if self.study.protocol == "paper":
            return result["score"], result["score"], cell
        select, report = result["halves"]
        return (select, report, cell) if select is not None and report is not None else None

    def _embedding(self, role: str, name: str, seed: int) -> Tensor | None:
        try:
            cell = self.grid.named("embedding", f"{role}:{name}.{seed}@{self.study.embedding.step}")
        except KeyError:  # a further seed from scratch has none
            return None
        return self.ledger.tensors(*cell.id)["prompt"].float() if self.ledger.has(*cell.id) else None

    def _record(
        self, cell: StudyCell, task: str, seed: int, embedding: Tensor | None, tags: tuple[str, ...],
        scores: Mapping[str, float],
    ) -> PromptRecord:  # fmt: skip
        record, tensors = self.ledger.read(*cell.id), self.ledger.tensors(*cell.id)
        result, story = record.result, record.provenance
        prompt = tensors.get("best", tensors.get("final"))
        if prompt is None:
            raise SoftpromptError(
                f"cell {cell.name} of {self.place} kept no prompt: delete it and run the study again."
            )
        settings = self.study.source if cell.kind == "source" else self.study.target
        best = result.get("best_step") if "best" in tensors else result.get("steps")
        return PromptRecord(
            task=task, prompt=prompt.float(), task_embedding=embedding, backbone_name=self.facts.backbone,
            backbone_fingerprint=self.facts.fingerprint, backbone_kind=self.kind, seed=seed,
            data_fingerprint=self._data(cell), steps=result.get("steps"), best_step=best,
            embedding_step=self.study.embedding.step if embedding is not None else None,
            scores=dict(scores) or dict(result.get("scores") or {}),
            recipe={**asdict(settings), "study": self.study.name, "cell": cell.name, "cell_key": cell.key},
            init={"kind": str(cell.identity.get("init", cell.kind)), **_origin(cell)},
            command=str(story.get("command", "")), tags=(*tags, f"study-{self.study.name}"), **self._told(task),
        )  # fmt: skip

    def _data(self, cell: StudyCell) -> str:
        found = [self.facts.data[task].train for task in cell.spec.get("tasks", [cell.spec.get("target")])]
        return found[0] if len(found) == 1 else key_of({"train": found})

    def _told(self, name: str) -> dict[str, Any]:
        """What the task itself says, where it is known here: wording, licence."""
        from softprompt.tasks.catalog import load_task
        from softprompt.tasks.tuned import for_backbone

        if name not in self._tasks:
            try:
                self._tasks[name] = for_backbone(load_task(name, self.study.data or None, progress=False), self.kind)
            except SoftpromptError:  # the study's own mixtures, and files that are gone
                self._tasks[name] = None
        task = self._tasks[name]
        if task is None:
            return {}
        wording = task.wording.record() if task.wording is not None else None
        return {"wording": wording, "licence": task.licence}


def _origin(cell: StudyCell) -> dict[str, Any]:
    """What a target's prompt started from."""
    if cell.kind == "transfer":
        return {"sources": [f"{cell.spec['source']}@{cell.spec['source_seed']}"]}
    return {"k": cell.spec["k"], "similarity": cell.spec["similarity"]} if "similarity" in cell.spec else {}


def named_apart(records: list[PromptRecord]) -> list[PromptRecord]:
    """Target prompts of tasks that are sources too, under names of their own."""
    taken = {record.library_name for record in records if "source" in record.tags}
    return [
        replace(record, name=f"{record.library_name}-target")
        if "target" in record.tags and record.library_name in taken
        else record
        for record in records
    ]
