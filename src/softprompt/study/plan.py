"""What a study will cost before it starts: cells, prompt-steps, and time, memory and storage, for this study alone.

The count of work is that of the study's own tasks where they were looked at (`look`), and time is work over a rate. On this
machine the rate is measured: some seconds of the study's own steps (`timing`), or earlier cells of the same ledger, or a
rate you give. For a machine that is not at hand it is assumed, and said so: the peak of the device times a utilisation.

Work of one position in a frozen backbone: 2 FLOPs a parameter forward and 2 backward, since gradients flow to the prompt
but not to the weights; 2 in validation, which only generates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from softprompt.backbones.shapes import Shape, shape_of
from softprompt.errors import UsageError
from softprompt.study.build import build_grid
from softprompt.study.grid import TRAINED_KINDS, Facts, Grid, StudyCell, unresolved_facts
from softprompt.study.ledger import Ledger
from softprompt.study.look import TaskLook
from softprompt.study.run import clock
from softprompt.study.settings import Study
from softprompt.study.timing import Timing
from softprompt.study.work import Positions, Workload

H100_PEAK = 989e12
"""Dense bfloat16 FLOP/s of one H100 (SXM), NVIDIA's data sheet; an H200's is the same."""
ASSUMED_UTILISATION = 0.3
"""Share of the peak that is assumed where nothing was measured."""


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One kind of cell.

    Attributes:
        kind: of cells.
        cells: in the study.
        done: finished in the ledger; None where the data or backbone was not looked at.
        steps: prompt tuning steps of all cells.
        steps_left: of the missing ones.
        work: positions through the backbone, of the missing cells.
    """

    kind: str
    cells: int
    done: int | None
    steps: int
    steps_left: int
    work: Positions


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost on one machine.

    Attributes:
        machine: in words.
        seconds: of work; None while no rate is known.
        memory: bytes on each device.
        storage: bytes of the ledger when all is done.
        basis: where the rate is from.
    """

    machine: str
    seconds: float | None
    memory: float | None
    storage: float | None
    basis: str

    def line(self) -> str:
        """One line for a terminal."""
        time = clock(self.seconds) if self.seconds is not None else "unknown"
        memory = f"{self.memory / 2**30:.1f} GiB" if self.memory is not None else "unknown"
        storage = f"{self.storage / 2**30:.2f} GiB" if self.storage is not None else "unknown"
        return f"{self.machine}: {time}; memory {memory} a device; ledger {storage} ({self.basis})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study before it runs.

    Attributes:
        study: its settings.
        rows: by kind of cell.
        estimates: for the machines asked for.
        contamination: (target, source, rows) of validation inputs that stand among training inputs.
        notes: what the numbers rest on.
        problems: why the study cannot run as it is; empty where it can, or where nobody looked.
    """

    study: Study
    rows: tuple[PlanRow, ...]
    estimates: tuple[Estimate, ...]
    contamination: tuple[tuple[str, str, int], ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """All of them."""
        return sum(row.cells for row in self.rows)

    @property
    def steps_left(self) -> int:
        """Prompt tuning steps of missing cells."""
        return sum(row.steps_left for row in self.rows)

    def to_text(self) -> str:
        """For a terminal."""
        study = self.study
        lines = [
            f"Study '{study.name}': {study.title or 'transfer study'}",
            f"{len(study.sources)} sources x {len(study.targets)} targets x {len(study.seeds)} seeds on {study.backbone}",
            "",
            f"{'cells':<18}{'all':>7}{'done':>7}{'prompt-steps':>16}{'still to do':>16}",
        ]
        for row in self.rows:
            done = "?" if row.done is None else str(row.done)
            lines.append(f"{row.kind:<18}{row.cells:>7,}{done:>7}{row.steps:>16,}{row.steps_left:>16,}")
        total = sum(row.steps for row in self.rows)
        lines += [f"{'together':<18}{self.cells:>7,}{'':>7}{total:>16,}{self.steps_left:>16,}", ""]
        lines += [estimate.line() for estimate in self.estimates]
        lines += [f"note: {note}" for note in self.notes]
        lines += [
            f"contamination: {rows} validation inputs of {target} stand among the training inputs of {source}"
            for target, source, rows in self.contamination
        ]
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join(lines)


def plan_study(
    study: Study,
    folder: str | Path | None = None,
    *,
    facts: Facts | None = None,
    looks: Sequence[TaskLook] = (),
    timing: Timing | None = None,
    rate: float | None = None,
    parameters: int | None = None,
    utilisation: float = ASSUMED_UTILISATION,
) -> Plan:
    """Cells, prompt-steps and estimates of a study.

    Args:
        study: from `load_study`.
        folder: of the ledger, for what is finished and how fast it went; None for none.
        facts: from a runner; without them the grid is counted but not compared with the ledger.
        looks: from `look`: lengths, row counts and what is missing; assumed where a task was not looked at.
        timing: from `time_steps`: this study's own steps on this machine.
        rate: measured positions a second on this machine (training); overrides what else is known.
        parameters: of the backbone, where its name does not tell.
        utilisation: share of an H100's peak that is assumed for it.

    Raises:
        UsageError: a rate or utilisation that cannot be.
    """
    if rate is not None and rate <= 0:
        raise UsageError(f"the rate must be above 0 positions a second, got {rate}.")
    if not 0 < utilisation <= 1:
        raise UsageError(f"the utilisation must be in (0, 1], got {utilisation}.")
    ledger = Ledger(folder) if folder is not None else None
    grid = build_grid(study, facts or unresolved_facts(study))
    missing = grid.missing(ledger) if ledger is not None and facts is not None else list(grid.cells.values())
    workload = Workload(study, looks)
    rows = _rows(grid, missing, facts is not None, workload)
    shape = shape_of(study.backbone, parameters or (facts.parameters if facts is not None else 0))
    estimates = [_here(grid, shape, rows, rate, timing, ledger)]
    notes = [workload.lengths_note(), *([timing.line()] if timing is not None else [])]
    if shape is not None:
        estimates += [on_h100(grid, missing, workload, shape, devices, utilisation) for devices in (1, 8)]
        notes.append(
            f"the H100s are not at hand: assumed are {utilisation:.0%} of the data sheet's {H100_PEAK / 1e12:.0f} TFLOP/s (dense "
            f"bfloat16) and {shape.passed / 1e6:.0f}M parameters a position, 4 FLOPs a parameter in training and 2 in "
            "validation; on such a machine, plan there and the rate is measured."
        )
    return Plan(
        study=study,
        rows=tuple(rows),
        estimates=tuple(estimates),
        contamination=facts.contamination if facts is not None else (),
        notes=tuple(notes),
        problems=tuple(one.problem for one in looks if one.problem),
    )


def _here(
    grid: Grid, shape: Shape | None, rows: Sequence[PlanRow], rate: float | None, timing: Timing | None,
    ledger: Ledger | None,
) -> Estimate:  # fmt: skip
    """The study on this machine, at a rate that is given or measured."""
    work = sum((row.work for row in rows), Positions())
    seconds, basis = None, "no rate known: time some steps (--timing), run some cells, or give one (--rate)"
    if rate is not None:
        seconds, basis = _seconds(work, rate), "given rate"
    elif timing is not None:
        seconds = work.train / timing.train_rate + work.validation / timing.eval_rate
        basis = f"{timing.seconds:.0f} s of its own steps"
    elif ledger is not None and (known := _measured_rate(ledger)) is not None:
        seconds, basis = _seconds(work, known), "rate of this ledger's cells"
    memory = _memory(grid.study, shape) if shape else None
    return Estimate(
        machine="this machine",
        seconds=seconds,
        memory=float(timing.memory) if timing is not None else memory,
        storage=_storage(grid, grid.study, shape) if shape else None,
        basis=basis,
    )


def _seconds(work: Positions, rate: float) -> float:
    # A position in validation costs about half of one in training, whose rate this is.
    return (work.train + work.validation / 2) / rate


def on_h100(
    grid: Grid, cells: Sequence[StudyCell], workload: Workload, shape: Shape, devices: int, utilisation: float
) -> Estimate:
    """Time of cells on some H100s: work over rate, stages one after the other, packs spread over the devices."""
    seconds = 0.0
    for stage in _stages(grid, cells):
        work = []
        for pack in _chunks(stage, grid.study.group):
            own = sum((workload.of(cell) for cell in pack), Positions())
            work.append(shape.passed * (4.0 * own.train + 2.0 * own.validation))
        loads = [0.0] * devices
        for amount in sorted(work, reverse=True):
            loads[loads.index(min(loads))] += amount
        seconds += max(loads) / (H100_PEAK * utilisation)
    return Estimate(
        machine="one H100" if devices == 1 else f"{devices} H100s",
        seconds=seconds,
        memory=_memory(grid.study, shape, bytes_each=2),
        storage=_storage(grid, grid.study, shape),
        basis=f"assumed: {utilisation:.0%} of peak",
    )


def _stages(grid: Grid, cells: Sequence[StudyCell]) -> list[list[StudyCell]]:
    """Cells by how many others have to be made one after the other before them."""
    level: dict[tuple[str, str], int] = {}
    for cell in grid.cells.values():
        before = [level[parent] + 1 for parent in cell.parents]
        if cell.made_by is not None:
            before.append(level[cell.made_by])
        level[cell.id] = max(before, default=0)
    stages: dict[int, list[StudyCell]] = {}
    for cell in cells:
        if cell.steps:
            stages.setdefault(level[cell.id], []).append(cell)
    return [stages[i] for i in sorted(stages)]


def _chunks(cells: Sequence[StudyCell], size: int) -> list[Sequence[StudyCell]]:
    kinds: dict[str, list[StudyCell]] = {}
    for cell in cells:
        kinds.setdefault(cell.kind, []).append(cell)
    return [group[i : i + size] for group in kinds.values() for i in range(0, len(group), size)]


def _rows(grid: Grid, missing: Sequence[StudyCell], known: bool, workload: Workload) -> list[PlanRow]:
    kinds = list(dict.fromkeys(kind for kind, _ in grid.cells))
    rows = []
    for kind in kinds:
        cells = grid.of_kind(kind)
        left = [cell for cell in missing if cell.kind == kind]
        rows.append(
            PlanRow(
                kind=kind,
                cells=len(cells),
                done=len(cells) - len(left) if known else None,
                steps=sum(cell.steps for cell in cells),
                steps_left=sum(cell.steps for cell in left),
                work=sum((workload.of(cell) for cell in left), Positions()),
            )
        )
    return rows


def _memory(study: Study, shape: Shape, bytes_each: int = 4) -> float:
    """Weights, prompts with gradient and optimiser state, and the activations of one micro-batch (about 16 widths a layer)."""
    settings = study.target
    prompts = study.group * settings.prompt_length * shape.width * 4 * 4
    micro = settings.micro_batch_tokens or (65536 if bytes_each == 2 else 4096)
    return shape.parameters * bytes_each + prompts + micro * shape.layers * 16 * shape.width * bytes_each


def _storage(grid: Grid, study: Study, shape: Shape) -> float:
    """Two prompts a training, one an embedding, SharPT's generators (two H x H matrices and up to 256 skills), the bfloat16
    weights of multi-task model tuning, and a few kilobytes of records a cell."""
    prompt = study.target.prompt_length * shape.width * 4
    kept = sum(2 for cell in grid.cells.values() if cell.kind in TRAINED_KINDS) + len(grid.of_kind("embedding"))
    generator = (2 * shape.width**2 + 256 * shape.width) * 4 + prompt
    models = len(grid.of_kind("multitask_tuning")) * 2 * shape.parameters
    generators = len(grid.of_kind("latent_space", "latent_transfer")) * generator
    return kept * prompt + generators + models + len(grid.cells) * 8192


def _measured_rate(ledger: Ledger) -> float | None:
    """Training positions a second over the ledger's finished trainings."""
    positions = seconds = 0.0
    for kind in TRAINED_KINDS:
        for key in ledger.keys(kind):
            result = ledger.read(kind, key).result
            positions += float(result.get("tokens", 0)) + float(result.get("eval_tokens", 0)) / 2
            seconds += float(result.get("seconds", 0))
    return positions / seconds if seconds > 0 and positions > 0 else None
