"""How much work a study's cells are: positions through the backbone in training and in validation.

The count is exact where lengths and row counts were looked at (`softprompt.study.look`), and assumed elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softprompt.methods.spot.race import TRAINING_FACTOR, race_cost
from softprompt.study.grid import METHOD_KINDS, MODEL_KINDS, TRAINED_KINDS, StudyCell
from softprompt.study.look import TaskLook
from softprompt.study.recipes import lora_settings, model_tuning_settings, sharpt_settings
from softprompt.study.settings import Study
from softprompt.training.settings import TrainSettings

ASSUMED_INPUT_SHARE = 0.4
"""Mean length of inputs as a share of ``max_input_tokens``, where it was not measured."""
ASSUMED_TARGET_TOKENS = 4.0
ASSUMED_VALIDATION_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Positions through the backbone.

    Attributes:
        train: forward and backward.
        validation: forward alone.
    """

    train: float = 0.0
    validation: float = 0.0

    def __add__(self, other: Positions) -> Positions:
        return Positions(train=self.train + other.train, validation=self.validation + other.validation)


class Workload:
    """The work of cells of one study.

    Args:
        study: its settings.
        looks: what is known of its tasks.
    """

    def __init__(self, study: Study, looks: Sequence[TaskLook] = ()) -> None:
        self.study = study
        self.looks: Mapping[str, TaskLook] = {one.task: one for one in looks}
        self._known: dict[tuple[object, ...], Positions] = {}

    def of(self, cell: StudyCell) -> Positions:
        """The work of one cell; what is made on another's way costs nothing of its own."""
        spec = cell.spec
        same = (cell.kind, cell.steps, spec.get("target"), tuple(spec.get("tasks", ())), spec.get("role"), spec.get("k"),
                spec.get("ablation"))  # fmt: skip
        if same not in self._known:
            self._known[same] = Positions(train=self._training(cell), validation=self._validation(cell))
        return self._known[same]

    def _training(self, cell: StudyCell) -> float:
        if cell.kind in MODEL_KINDS:  # weights need gradients too: 6 FLOPs a parameter instead of 4
            return 1.5 * cell.steps * model_tuning_settings(self.study).batch_tokens
        if cell.kind == "lora":
            return 1.5 * cell.steps * lora_settings(self.study)[0].batch_tokens
        settings = settings_of(self.study, cell)
        return cell.steps * settings.batch_size * self._row(cell, settings)

    def _validation(self, cell: StudyCell) -> float:
        settings = settings_of(self.study, cell)
        tasks = self._tasks(cell)
        if cell.kind not in (*TRAINED_KINDS, *METHOD_KINDS) or cell.kind == "mixture":
            return 0.0
        if len(tasks) > 1 and cell.kind != "latent_space":
            return 0.0  # mixtures keep their last checkpoint
        rows = sum(self._rows(task) for task in tasks)
        looked = min(settings.eval_rows or rows, rows)
        row = self._row(cell, settings)
        if cell.kind == "race":  # what is left of its rows when training is taken off, and the final measurement
            rule = self.study.strategies
            known = race_cost(
                len(cell.spec["names"]), settings, keep=rule.race_keep, look_rows=rule.race_rows, select_rows=looked
            )
            training = TRAINING_FACTOR * settings.batch_size * known.steps
            return (known.rows - training + rows) * row
        return (cell.steps // settings.eval_every * looked + rows) * row

    def _tasks(self, cell: StudyCell) -> list[str]:
        spec, study = cell.spec, self.study
        if cell.kind in ("mixture", "latent_space"):
            sources = [task for source in study.sources for task in study.tasks_of(source)]
            return list(dict.fromkeys([*sources, *([str(spec["target"])] if "target" in spec else [])]))
        if "tasks" in spec:
            return [str(task) for task in spec["tasks"]]
        return [str(spec.get("target", spec.get("name")))]

    def _rows(self, task: str) -> int:
        """Validation rows of a task in this study."""
        known = self.looks[task].validation_rows if task in self.looks else None
        return known or self.study.rows_of(task)["validation"] or ASSUMED_VALIDATION_ROWS

    def _row(self, cell: StudyCell, settings: TrainSettings) -> float:
        """Mean positions of a row: prompt, input and target, over the tasks a cell draws from."""
        from softprompt.tasks.mixture import K

        share = ASSUMED_INPUT_SHARE * (settings.max_input_tokens or 512)
        total = weight = 0.0
        for task in self._tasks(cell):
            seen = self.looks.get(task)
            rate = min(seen.train_rows, K) if seen is not None and seen.train_rows else 1
            inputs = seen.input_tokens if seen is not None and seen.input_tokens is not None else share
            targets = (
                seen.target_tokens if seen is not None and seen.target_tokens is not None else ASSUMED_TARGET_TOKENS
            )
            total, weight = total + rate * (inputs + targets), weight + rate
        return settings.prompt_length + total / weight

    def lengths_note(self) -> str:
        """Where the lengths of rows are from."""
        known = [one for one in self.looks.values() if one.input_tokens is not None]
        most = self.study.target.max_input_tokens or 512
        if known:
            mean = sum(one.input_tokens or 0.0 for one in known) / len(known)
            return f"inputs are {mean:.0f} tokens long on average, measured on the first rows of {len(known)} tasks."
        return f"inputs are assumed to be {ASSUMED_INPUT_SHARE * most:.0f} tokens long on average ({ASSUMED_INPUT_SHARE:.0%} of {most})."


def settings_of(study: Study, cell: StudyCell) -> TrainSettings:
    """The settings a cell trains with."""
    if cell.kind == "latent_space":
        return sharpt_settings(study).source
    if cell.kind == "latent_transfer":
        return sharpt_settings(study).target
    from_source = cell.kind in ("source", "mixture") or cell.spec.get("role") == "source"
    return study.source if from_source else study.target
