"""What a plan can see of a study on this machine: its backbone, its tasks, and how fast its steps go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from softprompt.errors import SoftpromptError
from softprompt.study.grid import Facts
from softprompt.study.look import TaskLook, look
from softprompt.study.runner import PromptRunner
from softprompt.study.settings import Study
from softprompt.study.timing import Timing, time_steps


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was seen.

    Attributes:
        looks: at every task.
        parameters: of the backbone; 0 where it is not at hand.
        timing: of its steps; None where they could not be made, or were not asked for.
        facts: the study's data, read whole; None where it was not asked for or is not all there.
        problems: with the backbone; those of tasks stand in ``looks``.
    """

    looks: tuple[TaskLook, ...]
    parameters: int = 0
    timing: Timing | None = None
    facts: Facts | None = None
    problems: tuple[str, ...] = ()

    def known(self) -> dict[str, Any]:
        """The arguments of `plan_study` that it gives."""
        return {
            "looks": self.looks, "parameters": self.parameters or None, "timing": self.timing, "facts": self.facts,
        }  # fmt: skip


def survey(study: Study, device: str = "auto", *, timing: float, facts: bool) -> Survey:
    """Open a study's backbone and every source; time some of its steps.

    Args:
        study: from `load_study`.
        device: as `load_backbone` takes it.
        timing: seconds of steps; 0 for none.
        facts: whether its rows are read whole, to tell what a ledger holds already.
    """
    runner = PromptRunner(device)
    try:
        backbone = runner.backbone(study)
    except SoftpromptError as error:
        return Survey(looks=tuple(look(study, None)), problems=(f"backbone {study.backbone!r}: {error}",))
    looks = tuple(look(study, backbone))
    there = [one.task for one in looks if not one.problem]
    targets = [name for name in study.targets if name in there]
    return Survey(
        looks=looks,
        parameters=backbone.parameter_count,
        timing=time_steps(study, backbone, targets, timing) if timing and targets else None,
        facts=runner.facts(study) if facts and len(there) == len(looks) else None,
    )
