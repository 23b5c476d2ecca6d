"""The grid of a study: its cells, what each depends on, and which of them train together.

Kinds of cells:

| kind               | what it is                                                    | depends on                       |
|--------------------|---------------------------------------------------------------|----------------------------------|
| `source`           | source tuning of a task or mixture: the source prompt          |                                  |
| `baseline`         | tuning a target from scratch                                   |                                  |
| `embedding`        | a prompt at an early step, of a source or a target             | (made on the way of the above)   |
| `transfer`         | tuning a target from a source prompt                           | source                           |
| `evaluation`       | a target prompt on both halves of validation                   | baseline, transfer, ...          |
| `further_evaluation` | a target prompt on the rows of a further task (`also_on`) | baseline, transfer, ...     |
| `weighted_average` | tuning a target from the top-k source prompts' weighted average | sources, embeddings              |
| `prediction`       | what further predictors say of every source prompt on a target | sources                          |
| `mixture`          | source tuning on the top-k tasks and the target                | embeddings                       |
| `mixture_transfer` | tuning a target from a mixture's prompt                        | mixture                          |
| `race`             | successive halving over all source prompts, on a target        | sources                          |
| `latent_space`     | SharPT's source training on all sources                        |                                  |
| `latent_transfer`  | SharPT's generator tuned on a target                           | latent_space                     |
| `model_tuning`     | all weights tuned on a target                                  |                                  |
| `multitask_tuning` | all weights tuned on all sources together                      |                                  |
| `multitask_model_tuning` | all weights tuned on a target from there                 | multitask_tuning                 |
| `lora`             | low-rank adapters tuned on a target                            |                                  |
| `prompt_design`    | a few-shot text prompt on a target                             |                                  |

A cell's key is the sha256 of its identity, which holds everything its result depends on and the keys of its parents: a
changed setting changes the keys of exactly what it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from softprompt.study.ledger import Ledger, key_of
from softprompt.study.settings import Study

VERSION = 1
"""Raised when a change to the code makes old cells' results wrong."""

TARGET_KINDS = ("baseline", "transfer", "weighted_average", "mixture_transfer")
TRAINED_KINDS = ("source", "mixture", "race", *TARGET_KINDS)
ARM_STRATEGIES = {
    "latent_transfer": "sharpt",
    "model_tuning": "model_tuning",
    "multitask_model_tuning": "multitask_model_tuning",
    "lora": "lora",
    "prompt_design": "prompt_design",
}
"""Kinds of other methods' cells, and the names they have in the tables."""
MODEL_KINDS = ("model_tuning", "multitask_tuning", "multitask_model_tuning")
"""Cells that tune all weights."""
ALONE_KINDS = (*MODEL_KINDS, "lora", "prompt_design", "race")
"""One a pack: each holds a whole model, or is a batch of its own."""
METHOD_KINDS = ("latent_space", *ARM_STRATEGIES, "multitask_tuning")
"""Cells of methods other than transfer."""

CellId = tuple[str, str]
"""(kind, key)."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a task's data is.

    Attributes:
        train: fingerprint of the training rows in use.
        validation: fingerprint of the validation rows in use.
        train_rows: how many.
        validation_rows: how many.
        metrics: what the task is scored with.
        labels: the task's label words; empty for free text.
    """

    train: str
    validation: str
    train_rows: int
    validation_rows: int
    metrics: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def identity(self, validated: bool = True) -> dict[str, Any]:
        """The part of a cell's identity; without validation where it has no influence."""
        plain = {"train": self.train, "train_rows": self.train_rows, "labels": list(self.labels)}
        return {**plain, "validation": self.validation, "metrics": list(self.metrics)} if validated else plain


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a study's results depend on besides its settings.

    Attributes:
        backbone: name.
        fingerprint: of the backbone.
        dtype: of its weights.
        data: by task.
        parameters: stored in the backbone; 0 while unknown. No part of any key.
        kind: of the backbone, as `Backbone.kind`; empty while unknown. No part of any key either.
        resolved: False where the data and the backbone were not looked at: the grid can be counted, not run.
        contamination: target, source and how many of the target's validation inputs stand among the source's
            training inputs.
    """

    backbone: str
    fingerprint: str
    dtype: str
    data: Mapping[str, DataFacts]
    parameters: int = 0
    kind: str = ""
    resolved: bool = True
    contamination: tuple[tuple[str, str, int], ...] = ()


def unresolved_facts(study: Study) -> Facts:
    """Facts to count a grid with before its data or backbone is at hand."""
    blank = DataFacts(train="?", validation="?", train_rows=0, validation_rows=0)
    return Facts(
        backbone=study.backbone, fingerprint="?", dtype="?", data=dict.fromkeys(study.all_tasks, blank), resolved=False
    )


@dataclass(frozen=True, kw_only=True)
class StudyCell:
    """One cell of the grid.

    Attributes:
        kind: see the table above.
        key: sha256 of the identity.
        name: for people: ``mnli.0``, ``mnli.0>cb.0``.
        identity: everything the result depends on.
        parents: cells that must be finished before.
        steps: prompt tuning steps it costs on its own.
        made_by: the training that makes it on its way; None where it is made on its own.
        spec: what the runner needs to make it: task, source, seed, k, ...
    """

    kind: str
    key: str
    name: str
    identity: Mapping[str, Any]
    parents: tuple[CellId, ...] = ()
    steps: int = 0
    made_by: CellId | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> CellId:
        """(kind, key)."""
        return self.kind, self.key


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Cells that are made together, in one batch where they are trainings.

    Attributes:
        key: sha256 of the kinds and keys of its members.
        kind: of all members.
        cells: the members, in order.
        made: cells that come into being on the way (embeddings, evaluations).
    """

    key: str
    kind: str
    cells: tuple[StudyCell, ...]
    made: tuple[StudyCell, ...] = ()

    @classmethod
    def of(cls, cells: Sequence[StudyCell], made: Sequence[StudyCell] = ()) -> Pack:
        key = key_of({"cells": [list(cell.id) for cell in cells]})
        return cls(key=key, kind=cells[0].kind, cells=tuple(cells), made=tuple(made))

    @property
    def steps(self) -> int:
        """Prompt tuning steps of all members."""
        return sum(cell.steps for cell in self.cells)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it; `of_plain` reads it back."""
        return asdict(self)

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> Pack:
        return cls(
            key=data["key"],
            kind=data["kind"],
            cells=tuple(_cell_of(cell) for cell in data["cells"]),
            made=tuple(_cell_of(cell) for cell in data["made"]),
        )


def _cell_of(data: Mapping[str, Any]) -> StudyCell:
    made_by = data["made_by"]
    parents = tuple((kind, key) for kind, key in data["parents"])
    return StudyCell(**{**data, "parents": parents, "made_by": tuple(made_by) if made_by is not None else None})


class Grid:
    """All cells of a study, by id, in an order in which parents come first."""

    def __init__(self, study: Study, facts: Facts) -> None:
        self.study = study
        self.facts = facts
        self.cells: dict[CellId, StudyCell] = {}
        self._by_name: dict[tuple[str, str], StudyCell] = {}

    def add(
        self,
        kind: str,
        name: str,
        identity: Mapping[str, Any],
        *,
        parents: Iterable[StudyCell] = (),
        steps: int = 0,
        made_by: StudyCell | None = None,
        spec: Mapping[str, Any] | None = None,
    ) -> StudyCell:
        """Add a cell; one that is there already is given back."""
        full = {
            "kind": kind,
            "version": VERSION,
            "backbone": self.facts.fingerprint,
            "dtype": self.facts.dtype,
            **identity,
        }
        cell = StudyCell(
            kind=kind,
            key=key_of(full),
            name=name,
            identity=full,
            parents=tuple(parent.id for parent in parents),
            steps=steps,
            made_by=made_by.id if made_by is not None else None,
            spec=dict(spec or {}),
        )
        self._by_name[kind, name] = self.cells.setdefault(cell.id, cell)
        return self._by_name[kind, name]

    def named(self, kind: str, name: str) -> StudyCell:
        """A cell by kind and name."""
        return self._by_name[kind, name]

    def of_kind(self, *kinds: str) -> list[StudyCell]:
        """The cells of some kinds, in order."""
        return [cell for cell in self.cells.values() if cell.kind in kinds]

    def missing(self, ledger: Ledger) -> list[StudyCell]:
        """Cells that the ledger does not hold."""
        held = {kind: ledger.keys(kind) for kind in {kind for kind, _ in self.cells}}
        return [cell for cell in self.cells.values() if cell.key not in held[cell.kind]]

    def ready(self, ledger: Ledger) -> list[StudyCell]:
        """Missing cells that can be made now: parents finished, and not about to be made by a training on its way."""
        missing = self.missing(ledger)
        absent = {cell.id for cell in missing}
        return [
            cell
            for cell in missing
            if not any(parent in absent for parent in cell.parents) and cell.made_by not in absent
        ]


def packs(grid: Grid, cells: Sequence[StudyCell], size: int) -> list[Pack]:
    """Cells of one kind and one length together, at most ``size`` in a pack, in a fixed order."""
    made: dict[CellId, list[StudyCell]] = {}
    for cell in grid.cells.values():
        if cell.made_by is not None:
            made.setdefault(cell.made_by, []).append(cell)
    kinds: dict[tuple[Any, ...], list[StudyCell]] = {}
    for cell in cells:
        # Embeddings of another step, or of the other role, train with other settings.
        together: tuple[Any, ...] = (cell.kind, cell.spec.get("step"), cell.spec.get("role"))
        if cell.kind in ("latent_space", "latent_transfer"):
            together = (cell.kind, cell.spec["seed"], cell.parents)  # targets of one space share its skills
        if cell.kind in ALONE_KINDS:
            together = (cell.kind, cell.key)
        kinds.setdefault(together, []).append(cell)
    out = []
    for group in kinds.values():
        ordered = sorted(group, key=_neighbours)
        for i in range(0, len(ordered), size):
            members = ordered[i : i + size]
            out.append(Pack.of(members, [child for cell in members for child in made.get(cell.id, ())]))
    return out


def _neighbours(cell: StudyCell) -> tuple[Any, ...]:
    # Runs on the same data stand together: their rows have like lengths, and are read and tokenised once.
    spec = cell.spec
    return str(spec.get("target", "")), str(spec.get("source", spec.get("name", ""))), spec.get("seed", 0), cell.name
