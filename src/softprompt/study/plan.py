"""What a study will cost before it starts: cells, prompt-steps, and estimates of time, memory and storage.

The count of work is exact for training and generous for validation; time is work over a rate. A rate is measured (by
earlier cells of the same ledger, or given), or assumed and then said so: peak of the device times a utilisation.

Work of one position in a frozen backbone: 2 FLOPs a parameter forward and 2 backward, since gradients flow to the prompt
but not to the weights; 2 in validation, which only generates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from softprompt.errors import UsageError
from softprompt.methods.spot.race import TRAINING_FACTOR, race_cost
from softprompt.study.build import build_grid
from softprompt.study.grid import METHOD_KINDS, MODEL_KINDS, TRAINED_KINDS, Facts, Grid, StudyCell, unresolved_facts
from softprompt.study.ledger import Ledger
from softprompt.study.recipes import lora_settings, model_tuning_settings, sharpt_settings
from softprompt.study.run import clock
from softprompt.study.settings import Study, load_study
from softprompt.training.settings import TrainSettings

# T5 1.1 LM-adapted by size: parameters that a position goes through (without the embedding table), stored parameters,
# width and layers of the encoder; from the public configurations (d_model, d_ff, layers, heads x d_kv, 32,128 pieces).
_T5_SHAPES = {
    "small": (512, 1024, 8, 384),
    "base": (768, 2048, 12, 768),
    "large": (1024, 2816, 24, 1024),
    "xl": (2048, 5120, 24, 2048),
    "xxl": (4096, 10240, 24, 4096),
}
_VOCABULARY = 32_128
H200_PEAK = 989e12
"""Dense bfloat16 FLOP/s of one H200, NVIDIA's data sheet."""
ASSUMED_UTILISATION = 0.3
"""Share of the peak that is assumed where nothing was measured."""
ASSUMED_INPUT_SHARE = 0.4
"""Mean length of inputs as a share of ``max_input_tokens``, assumed until a ledger says more."""
ASSUMED_TARGET_TOKENS = 4
ASSUMED_VALIDATION_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the cost of a backbone follows from.

    Attributes:
        parameters: that a position goes through.
        stored: all of them.
        width: H.
        layers: of the encoder (or decoder-only stack).
    """

    parameters: int
    stored: int
    width: int
    layers: int


def t5_shape(size: str) -> Shape:
    """The shape of a T5 1.1 model by size: small, base, large, xl, xxl."""
    width, inner, layers, attention = _T5_SHAPES[size]
    self_attention, feed_forward = 4 * width * attention, 3 * width * inner
    body = layers * (self_attention + feed_forward) + layers * (2 * self_attention + feed_forward)
    return Shape(parameters=body, stored=body + 2 * _VOCABULARY * width, width=width, layers=layers)


def shape_of(backbone: str, parameters: int | None = None, width: int | None = None) -> Shape | None:
    """The shape of a backbone by name or by its parameter count; None where neither is known."""
    if parameters:
        return Shape(
            parameters=parameters, stored=parameters, width=width or round((parameters / 150) ** 0.5), layers=12
        )
    for size in _T5_SHAPES:
        if f"t5-{size}" in backbone or f"t5-v1_1-{size}" in backbone:
            return t5_shape(size)
    return None


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One kind of cell.

    Attributes:
        kind: of cells.
        cells: in the study.
        done: finished in the ledger; None where the data or backbone was not looked at.
        steps: prompt tuning steps of all cells.
        steps_left: of the missing ones.
        train_positions: positions through the backbone in training, of the missing cells.
        eval_positions: the same in validation.
    """

    kind: str
    cells: int
    done: int | None
    steps: int
    steps_left: int
    train_positions: float
    eval_positions: float


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
        problems: why the study cannot run as it is; empty where it can.
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
    rate: float | None = None,
    parameters: int | None = None,
    width: int | None = None,
    mean_input_tokens: float | None = None,
    utilisation: float = ASSUMED_UTILISATION,
    papers: bool = True,
) -> Plan:
    """Cells, prompt-steps and estimates of a study.

    Args:
        study: from `load_study`.
        folder: of the ledger, for what is finished and how fast it went; None for none.
        facts: from a runner; without them the grid is counted but not compared with the ledger.
        rate: measured positions a second on this machine (training); overrides what the ledger says.
        parameters: of the backbone, where its name does not tell.
        width: H, likewise.
        mean_input_tokens: measured mean length of inputs; assumed from ``max_input_tokens`` where None.
        utilisation: share of the H200's peak that is assumed for the paper's study.
        papers: whether the paper's full study is estimated too, on one H200 and on eight.

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
    rows = _rows(grid, missing, facts is not None, mean_input_tokens)
    known = parameters or (facts.parameters if facts is not None else 0)
    shape = shape_of(study.backbone, known, width)
    estimates = [_here(grid, shape, rows, rate, ledger)]
    notes = [_length_note(study, mean_input_tokens)]
    if papers:
        more, note = _papers_study(utilisation)
        estimates += more
        notes.append(note)
    return Plan(
        study=study,
        rows=tuple(rows),
        estimates=tuple(estimates),
        contamination=facts.contamination if facts is not None else (),
        notes=tuple(notes),
        problems=() if facts is not None else ("data and backbone were not looked at: what is finished is not known.",),
    )


def _here(
    grid: Grid, shape: Shape | None, rows: Sequence[PlanRow], rate: float | None, ledger: Ledger | None
) -> Estimate:
    """The study on this machine, at a rate that is given or measured."""
    measured = rate or (_measured_rate(ledger) if ledger is not None else None)
    basis = "rate of this ledger's cells" if measured else "no rate known: run some cells, or give one"
    return Estimate(
        machine="this machine",
        seconds=_positions(rows) / measured if measured else None,
        memory=_memory(grid.study, shape) if shape else None,
        storage=_storage(grid, grid.study, shape) if shape else None,
        basis="given rate" if rate else basis,
    )


def _papers_study(utilisation: float) -> tuple[list[Estimate], str]:
    """The paper's full study on one H200 and on eight, and what that assumes."""
    full, base = load_study("paper"), t5_shape("base")
    grid = build_grid(full, unresolved_facts(full))
    return [on_h200(full, grid, base, devices, utilisation) for devices in (1, 8)], (
        f"the paper's study assumes {utilisation:.0%} of an H200's {H200_PEAK / 1e12:.0f} TFLOP/s (data sheet, dense "
        f"bfloat16) and {base.parameters / 1e6:.0f}M parameters a position, 4 FLOPs a parameter in training and 2 in "
        "validation; replace it by a measured rate where you have one."
    )


def on_h200(study: Study, grid: Grid, shape: Shape, devices: int, utilisation: float = ASSUMED_UTILISATION) -> Estimate:
    """Time of a study on some H200s: work over rate, stages one after the other, packs spread over the devices."""
    seconds = 0.0
    for stage in _stages(list(grid.cells.values())):
        work = [
            4.0 * shape.parameters * sum(_train_positions(study, cell, None) for cell in pack)
            + 2.0 * shape.parameters * sum(_eval_positions(study, cell, None) for cell in pack)
            for pack in _chunks(stage, study.group)
        ]
        loads = [0.0] * devices
        for amount in sorted(work, reverse=True):
            loads[loads.index(min(loads))] += amount
        seconds += max(loads) / (H200_PEAK * utilisation)
    words = "one H200" if devices == 1 else f"{devices} H200s"
    return Estimate(
        machine=f"the paper's full study on {words}" if study.name == "paper" else words,
        seconds=seconds,
        memory=_memory(study, shape, bytes_each=2),
        storage=_storage(grid, study, shape),
        basis=f"assumed: {utilisation:.0%} of peak",
    )


def _stages(cells: Sequence[StudyCell]) -> list[list[StudyCell]]:
    level: dict[tuple[str, str], int] = {}
    stages: dict[int, list[StudyCell]] = {}
    for cell in cells:
        before = [level[parent] + 1 for parent in cell.parents]
        if cell.made_by is not None:
            before.append(level[cell.made_by])
        level[cell.id] = max(before, default=0)
        if cell.steps:
            stages.setdefault(level[cell.id], []).append(cell)
    return [stages[i] for i in sorted(stages)]


def _chunks(cells: Sequence[StudyCell], size: int) -> list[Sequence[StudyCell]]:
    kinds: dict[str, list[StudyCell]] = {}
    for cell in cells:
        kinds.setdefault(cell.kind, []).append(cell)
    return [group[i : i + size] for group in kinds.values() for i in range(0, len(group), size)]


def _rows(grid: Grid, missing: Sequence[StudyCell], known: bool, mean_tokens: float | None) -> list[PlanRow]:
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
                train_positions=sum(_train_positions(grid.study, cell, mean_tokens) for cell in left),
                eval_positions=sum(_eval_positions(grid.study, cell, mean_tokens) for cell in left),
            )
        )
    return rows


def _positions(rows: Sequence[PlanRow]) -> float:
    # A position in validation costs about half of one in training, whose rate this is.
    return sum(row.train_positions + row.eval_positions / 2 for row in rows)


def _settings(study: Study, cell: StudyCell) -> TrainSettings:
    if cell.kind == "latent_space":
        return sharpt_settings(study).source
    if cell.kind == "latent_transfer":
        return sharpt_settings(study).target
    from_source = cell.kind in ("source", "mixture") or cell.spec.get("role") == "source"
    return study.source if from_source else study.target


def _row_positions(settings: TrainSettings, mean_tokens: float | None) -> float:
    inputs = mean_tokens if mean_tokens is not None else ASSUMED_INPUT_SHARE * (settings.max_input_tokens or 512)
    return settings.prompt_length + inputs + ASSUMED_TARGET_TOKENS


def _train_positions(study: Study, cell: StudyCell, mean_tokens: float | None) -> float:
    if cell.kind in MODEL_KINDS:  # weights need gradients too: 6 FLOPs a parameter instead of 4
        return 1.5 * cell.steps * model_tuning_settings(study).batch_tokens
    if cell.kind == "lora":
        return 1.5 * cell.steps * lora_settings(study)[0].batch_tokens
    settings = _settings(study, cell)
    return cell.steps * settings.batch_size * _row_positions(settings, mean_tokens)


def _eval_positions(study: Study, cell: StudyCell, mean_tokens: float | None) -> float:
    settings = _settings(study, cell)
    if (
        cell.kind not in (*TRAINED_KINDS, *METHOD_KINDS)
        or cell.kind == "mixture"
        or len(cell.spec.get("tasks", ())) > 1
    ):
        return 0.0
    rows = min(settings.eval_rows or ASSUMED_VALIDATION_ROWS, study.validation_rows or ASSUMED_VALIDATION_ROWS)
    if cell.kind == "race":  # what is left of its rows when training is taken off, and the final measurement
        known = race_cost(len(cell.spec["names"]), settings, select_rows=rows)
        training = TRAINING_FACTOR * settings.batch_size * known.steps
        return (known.rows - training + rows) * _row_positions(settings, mean_tokens)
    return (cell.steps / settings.eval_every + 1) * rows * _row_positions(settings, mean_tokens)


def _memory(study: Study, shape: Shape, bytes_each: int = 4) -> float:
    """Weights, prompts with gradient and optimiser state, and the activations of one micro-batch (about 16 widths a layer)."""
    settings = study.target
    prompts = study.group * settings.prompt_length * shape.width * 4 * 4
    micro = settings.micro_batch_tokens or (65536 if bytes_each == 2 else 4096)
    return shape.stored * bytes_each + prompts + micro * shape.layers * 16 * shape.width * bytes_each


def _storage(grid: Grid, study: Study, shape: Shape) -> float:
    """Two prompts a training, one an embedding, SharPT's generators (two H x H matrices and up to 256 skills), the bfloat16
    weights of multi-task model tuning, and a few kilobytes of records a cell."""
    prompt = study.target.prompt_length * shape.width * 4
    kept = sum(2 for cell in grid.cells.values() if cell.kind in TRAINED_KINDS) + len(grid.of_kind("embedding"))
    generator = (2 * shape.width**2 + 256 * shape.width) * 4 + prompt
    models = len(grid.of_kind("multitask_tuning")) * 2 * shape.stored
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


def _length_note(study: Study, mean_tokens: float | None) -> str:
    if mean_tokens is not None:
        return f"inputs are taken to be {mean_tokens:g} tokens long on average, as given."
    most = study.target.max_input_tokens or 512
    return f"inputs are assumed to be {ASSUMED_INPUT_SHARE * most:.0f} tokens long on average ({ASSUMED_INPUT_SHARE:.0%} of {most})."
