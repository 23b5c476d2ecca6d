"""The grid of a study: its cells, what each depends on, and which of them train together.

Kinds of cells:

| kind               | what it is                                                    | depends on                       |
|--------------------|---------------------------------------------------------------|----------------------------------|
| `source`           | source tuning of a task or mixture: the source prompt          |                                  |
| `baseline`         | tuning a target from scratch                                   |                                  |
| `embedding`        | a prompt at an early step, of a source or a target             | (made on the way of the above)   |
| `transfer`         | tuning a target from a source prompt                           | source                           |
| `evaluation`       | a target prompt on both halves of validation                   | baseline, transfer, ...          |
| `weighted_average` | tuning a target from the top-k source prompts' weighted average | sources, embeddings              |
| `prediction`       | what further predictors say of every source prompt on a target | sources                          |
| `mixture`          | source tuning on the top-k tasks and the target                | embeddings                       |
| `mixture_transfer` | tuning a target from a mixture's prompt                        | mixture                          |
| `latent_space`     | SharPT's source training on all sources                        |                                  |
| `latent_transfer`  | SharPT's generator tuned on a target                           | latent_space                     |
| `model_tuning`     | all weights tuned on a target                                  |                                  |

A cell's key is the sha256 of its identity, which holds everything its result depends on and the keys of its parents: a
changed setting changes the keys of exactly what it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from softprompt.study.ledger import Ledger, key_of
from softprompt.study.settings import FEW_STEPS, Study
from softprompt.training.settings import TrainSettings

VERSION = 1
"""Raised when a change to the code makes old cells' results wrong."""

TARGET_KINDS = ("baseline", "transfer", "weighted_average", "mixture_transfer")
TRAINED_KINDS = ("source", "mixture", *TARGET_KINDS)
ARM_STRATEGIES = {"latent_transfer": "sharpt", "model_tuning": "model_tuning"}
"""Kinds of other methods' cells, and the names they have in the tables."""
# What cannot change a training's result beyond float tolerance, or is no part of the training.
_NOT_TRAINING = ("embedding_step", "micro_batch_tokens")
# What cannot change the prompt at an early step.
_NOT_EMBEDDING = (*_NOT_TRAINING, "steps", "eval_every", "eval_rows", "patience")

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
        resolved: False where the data and the backbone were not looked at: the grid can be counted, not run.
        contamination: target, source and how many of the target's validation inputs stand among the source's
            training inputs.
    """

    backbone: str
    fingerprint: str
    dtype: str
    data: Mapping[str, DataFacts]
    parameters: int = 0
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


def build_grid(study: Study, facts: Facts) -> Grid:
    """Every cell of a study."""
    grid = Grid(study, facts)
    for seed in study.seeds:
        for source in study.sources:
            _source(grid, source, seed)
    for target in study.targets:
        for seed in (*study.seeds, *study.further_seeds):
            cell = _target(grid, "baseline", f"{target}.{seed}", target, seed, {"init": "class-labels"}, [], {})
            if seed in study.seeds:
                _embeddings(grid, "target", target, seed, cell)
    for seed in study.seeds:
        for source in study.sources:
            for target in study.targets:
                parent = grid.named("source", f"{source}.{seed}")
                name = f"{source}.{seed}>{target}.{seed}"
                start = {"source": parent.key}
                _target(grid, "transfer", name, target, seed, start, [parent], {"source": source, "source_seed": seed})
    _predictions(grid)
    _tuned_strategies(grid)
    _arms(grid)
    return grid


def _arms(grid: Grid) -> None:
    from softprompt.study.arms import identity_of, model_tuning_settings, sharpt_settings

    study = grid.study
    tasks = list(dict.fromkeys(task for source in study.sources for task in study.tasks_of(source)))
    for seed in study.seeds if "sharpt" in study.methods else ():
        recipe, own = sharpt_settings(study), identity_of(study, "latent_space")
        # The relations of all tasks are part of the result, hence the targets' data.
        data = {"data": _data(grid, tasks), "targets": _data(grid, study.targets, validated=False), "seed": seed}
        space = grid.add(
            "latent_space", f"space.{seed}", {**data, **own}, steps=recipe.source.steps, spec={"seed": seed}
        )
        for target in study.targets:
            identity = {**identity_of(study, "latent_transfer"), "space": space.key}
            name = f"sharpt>{target}.{seed}"
            _target(grid, "latent_transfer", name, target, seed, identity, [space], {}, steps=recipe.target.steps)
    for seed in study.seeds if "model_tuning" in study.methods else ():
        for target in study.targets:
            identity = identity_of(study, "model_tuning")
            steps = model_tuning_settings(study).steps
            _target(grid, "model_tuning", f"model>{target}.{seed}", target, seed, identity, [], {}, steps=steps)


def _predictions(grid: Grid) -> None:
    study = grid.study
    sources = [grid.named("source", f"{source}.{seed}") for source in study.sources for seed in study.seeds]
    for target in study.targets if study.strategies.predictors else ():
        few = "few-step-loss" in study.strategies.predictors
        identity = {
            "data": _data(grid, [target], validated=False),
            "sources": [cell.key for cell in sources],
            "predictors": list(study.strategies.predictors),
            "settings": _plain(study.target, _NOT_EMBEDDING),
        }
        names = [[cell.spec["source"], cell.spec["seed"]] for cell in sources]
        spec = {"target": target, "sources": identity["sources"], "names": names, "seed": 0}
        steps = FEW_STEPS * len(sources) if few else 0
        grid.add("prediction", target, identity, parents=sources, steps=steps, spec=spec)


def _plain(settings: TrainSettings, without: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name not in without}


def _data(grid: Grid, tasks: Sequence[str], validated: bool = True) -> list[dict[str, Any]]:
    return [{"task": task, **grid.facts.data[task].identity(validated)} for task in tasks]


def _source(grid: Grid, source: str, seed: int) -> None:
    study = grid.study
    tasks = study.tasks_of(source)
    identity = {
        "data": _data(grid, tasks),
        "settings": _plain(study.source, _NOT_TRAINING),
        "init": "sampled-vocabulary",
        "seed": seed,
    }
    spec = {"source": source, "tasks": list(tasks), "seed": seed}
    cell = grid.add("source", f"{source}.{seed}", identity, steps=study.source.steps, spec=spec)
    _embeddings(grid, "source", source, seed, cell)


def _embeddings(grid: Grid, role: str, name: str, seed: int, cell: StudyCell) -> None:
    study = grid.study
    settings = study.source if role == "source" else study.target
    tasks = study.tasks_of(name) if role == "source" else (name,)
    for step in dict.fromkeys((study.embedding.step, *study.embedding.other_steps)):
        on_the_way = step == study.embedding.step and step <= settings.steps
        identity = {
            "data": _data(grid, tasks, validated=False),
            "settings": _plain(settings, _NOT_EMBEDDING),
            "init": "sampled-vocabulary" if role == "source" else "class-labels",
            "seed": seed,
            "step": step,
        }
        grid.add(
            "embedding",
            f"{role}:{name}.{seed}@{step}",
            identity,
            steps=0 if on_the_way else step,
            made_by=cell if on_the_way else None,
            spec={"role": role, "name": name, "tasks": list(tasks), "seed": seed, "step": step},
        )


def _target(
    grid: Grid,
    kind: str,
    name: str,
    target: str,
    seed: int,
    start: Mapping[str, Any],
    parents: Sequence[StudyCell],
    spec: Mapping[str, Any],
    *,
    steps: int | None = None,
) -> StudyCell:
    study = grid.study
    identity = {
        "data": _data(grid, [target]),
        "settings": _plain(study.target, _NOT_TRAINING),
        "seed": seed,
        "protocol": study.protocol,
        **start,
    }
    cell = grid.add(
        kind,
        name,
        identity,
        parents=parents,
        steps=study.target.steps if steps is None else steps,
        spec={**spec, "target": target, "seed": seed},
    )
    validation = grid.facts.data[target].validation
    grid.add(
        "evaluation",
        f"{kind}:{name}",
        {"of": cell.key, "validation": validation, "halves_seed": 0},
        parents=[cell],
        made_by=cell,
        spec={"target": target, "of": list(cell.id)},
    )
    return cell


def _tuned_strategies(grid: Grid) -> None:
    study = grid.study
    ranking = study.strategies.tuned_similarity
    step = study.embedding.step
    sources = [grid.named("source", f"{source}.{seed}") for seed in study.seeds for source in study.sources]
    keys = [grid.named("embedding", f"source:{s}.{seed}@{step}") for seed in study.seeds for s in study.sources]
    for target in study.targets:
        for seed in study.seeds:
            own = grid.named("embedding", f"target:{target}.{seed}@{step}")
            basis = {"similarity": ranking, "target_embedding": own.key, "embeddings": [key.key for key in keys]}
            spec: dict[str, Any] = {"similarity": ranking, "own": own.key, "embeddings": [key.key for key in keys]}
            spec["sources"] = [cell.key for cell in sources]
            spec["names"] = [[cell.spec["source"], cell.spec["seed"]] for cell in sources]
            for k in study.strategies.weighted_average:
                start = {**basis, "k": k, "sources": [cell.key for cell in sources]}
                name = f"weighted_average{k}>{target}.{seed}"
                _target(grid, "weighted_average", name, target, seed, start, [*sources, *keys, own], {**spec, "k": k})
            for k in study.strategies.multitask_mixture:
                _mixture(grid, target, seed, k, basis, [*keys, own], spec)


def _mixture(
    grid: Grid,
    target: str,
    seed: int,
    k: int,
    basis: Mapping[str, Any],
    parents: Sequence[StudyCell],
    spec: Mapping[str, Any],
) -> None:
    study = grid.study
    tasks = list(dict.fromkeys([task for source in study.sources for task in study.tasks_of(source)] + [target]))
    identity = {
        **basis,
        "k": k,
        "target": target,
        "data": _data(grid, tasks),
        "sources": [list(study.tasks_of(source)) for source in study.sources],
        "settings": _plain(study.source, _NOT_TRAINING),
        "init": "sampled-vocabulary",
        "seed": seed,
    }
    name = f"multitask_mixture{k}>{target}.{seed}"
    mixture = grid.add(
        "mixture",
        name,
        identity,
        parents=parents,
        steps=study.source.steps,
        spec={**spec, "k": k, "target": target, "seed": seed},
    )
    _target(
        grid,
        "mixture_transfer",
        name,
        target,
        seed,
        {"mixture": mixture.key},
        [mixture],
        {"k": k, "similarity": spec["similarity"]},
    )


def packs(grid: Grid, cells: Sequence[StudyCell], size: int) -> list[Pack]:
    """Cells of one kind and one length together, at most ``size`` in a pack, in a fixed order."""
    made: dict[CellId, list[StudyCell]] = {}
    for cell in grid.cells.values():
        if cell.made_by is not None:
            made.setdefault(cell.made_by, []).append(cell)
    kinds: dict[tuple[Any, ...], list[StudyCell]] = {}
    for cell in cells:
        # Embeddings of another step, or of the other role, train with other settings.
        together = (cell.kind, cell.spec.get("step"), cell.spec.get("role"))
        if cell.kind in ("latent_space", "latent_transfer", "model_tuning"):
            together = (cell.kind, cell.spec["seed"], cell.key if cell.kind == "model_tuning" else "")
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
