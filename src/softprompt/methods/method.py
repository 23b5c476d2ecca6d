"""The contract of everything that trains for a target, and what all methods share: targets, starts, runs and results.

A `Method` is given a backbone and where to work (`Work`), a target (`Target`) and seeds. It names its starts, trains them as
runs of one group, chooses among them on the selecting rows and gives one `Result`: the delivered prompt, every run with its
curve and cost, and scores on the reporting rows. `softprompt.methods.deliver` compares results of several methods on one
target; a transfer, a study's cell and a SharPT adaptation are made of the same pieces.

Letters: P prompt tokens, H width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.errors import NonFiniteError, UsageError, one_line
from softprompt.inference.evaluate import canonical_text, halves
from softprompt.methods.spot.guard import Comparison, compare
from softprompt.prompts.init import Role, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.task import Task
from softprompt.training.data import TaskData, start_of, task_data
from softprompt.training.loop import Leave, Looks, Observer, train_prompts
from softprompt.training.runs import Run, RunResult
from softprompt.training.settings import LoopSettings, TrainSettings

PhaseObserver = Callable[[str, int], Observer | None]
"""Called with the name of a phase and its number of runs; gives the observer of its steps."""
TRAINING_FACTOR = 2
"""Forward-token equivalents of a training position: forward, and back through activations alone (no weight gradient)."""


@dataclass(kw_only=True, eq=False)
class Target:
    """A task that something is trained for, and which of its validation rows choose and report.

    Attributes:
        data: tokenised rows.
        select: int [.], the validation rows that choose; None for all.
        report: int [.], those that are reported on; None for all.
        label: what its runs are called; the task's name where empty.
    """

    data: TaskData
    select: np.ndarray | None = None
    report: np.ndarray | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """Of the task."""
        return self.data.task.name

    def run(self, name: str, seed: int) -> Run:
        """A run on the target."""
        return self.data.run(name, seed, select_rows=self.select, report_rows=self.report)

    def start(
        self,
        backbone: Backbone,
        name: str,
        seed: int,
        prompt_length: int,
        *,
        role: Role = "scratch",
        run: Run | None = None,
    ) -> tuple[Run, Tensor]:
        """A run on the target (``run`` where one is given) and the prompt [P, H] that its task starts from in a role."""
        init = start_of(backbone, self.data.task, role)
        return run or self.run(name, seed), initial_prompt(backbone, init, prompt_length, seed)


def halved(data: TaskData) -> tuple[np.ndarray, np.ndarray]:
    """The rows that choose and those that report, the same for every seed and method.

    Raises:
        UsageError: fewer than two validation rows.
    """
    select, report = halves(len(data.validation), 0, data.task.groups(data.validation.examples))
    if not len(select) or not len(report):
        raise UsageError(
            f"task '{data.task.name}' has {len(data.validation)} validation rows; choosing and reporting need two."
        )
    return select, report


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """An initial prompt for a target.

    Attributes:
        strategy: what chose it.
        sources: names of the source prompts in it.
        weights: their weights, in the same order.
        prompt_PH: float32 [P, H].
        dropped: source prompts left out because their similarity was not positive.
    """

    strategy: str
    sources: tuple[str, ...]
    weights: tuple[float, ...]
    prompt_PH: Tensor
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """Where and with what runs are made.

    Attributes:
        backbone: frozen.
        folder: run directory; None keeps everything in memory.
        resume: continue what the folder holds.
        observe: gives each phase's observer.
        identity: plain JSON that tells these trainings from others in the same place.
    """

    backbone: Backbone
    folder: Path | None = None
    resume: bool = False
    observe: PhaseObserver | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def observer(self, phase: str, runs: int) -> Observer | None:
        """Of a phase that begins with so many runs."""
        return self.observe(phase, runs) if self.observe is not None else None

    def place(self, phase: str) -> Path | None:
        """The run directory of a phase; the folder itself for a method that has one phase, named ""."""
        return self.folder / phase if self.folder is not None and phase else self.folder

    def train(
        self,
        phase: str,
        starts: Sequence[tuple[Run, Tensor]],
        settings: TrainSettings,
        *,
        leave: Leave | None = None,
        looks: Looks | None = None,
    ) -> dict[str, RunResult]:
        """Train runs from prompts as one group; results by the runs' names.

        Args:
            phase: names their directory.
            starts: runs, each with the prompt [P, H] it starts from.
            settings: shared by all.
            leave: as of `train_prompts`.
            looks: likewise.

        Raises:
            NonFiniteError: no run is left.
        """
        prompts = PromptStack.of([prompt.to(self.backbone.device) for _, prompt in starts], tuned=True)
        results = train_prompts(
            self.backbone, prompts, [run for run, _ in starts], settings, self.place(phase), resume=self.resume,
            observer=self.observer(phase, len(starts)), leave=leave, looks=looks, extra_identity=dict(self.identity),
        )  # fmt: skip
        return {result.name: result for result in results}


@dataclass(kw_only=True)
class Result:
    """What one method gave on one target.

    Attributes:
        strategy: the method's name.
        run: name of the run that the selecting rows chose.
        sources: what it started from (source prompts, a space), with their weights.
        runs: how many target runs it took.
        select_score: score of the chosen run on the selecting rows, percent.
        score: its score on the reporting rows, percent.
        spread: standard deviation of the reporting score over the method's runs, points; None for one run.
        cost: forward-token equivalents of its runs, what was tuned for it on sources included.
        seconds: its share of the wall clock.
        versus_scratch: paired comparison with the chosen run from scratch on the reporting rows; None without one.
        prompt_PH: the chosen prompt, float32 [P, H]; None where the method delivers something else (`tensors`).
        curve: its validations.
        notes: what a reader should know, e.g. sources left out.
        step: the step of its best checkpoint, which is delivered; 0 for the start itself.
        results: every run, the chosen one among them.
        tensors: what is delivered, by the trained tensors' names; empty where nothing was trained.
        tuned: numbers tuned for the target.
    """

    strategy: str
    run: str
    sources: tuple[tuple[str, float], ...]
    runs: int
    select_score: float
    score: float
    spread: float | None
    cost: int
    seconds: float
    versus_scratch: dict[str, Any] | None
    prompt_PH: Tensor | None
    curve: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    step: int = 0
    results: Sequence[RunResult] = field(default=(), repr=False)
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    tuned: int = 0

    def __repr__(self) -> str:
        return one_line(f"<Result {self.strategy}: score {self.score:.1f}, {self.runs} runs>")

    def plain(self) -> dict[str, Any]:
        """What a report says of it, as JSON."""
        left_out = ("prompt_PH", "results", "tensors", "tuned")
        return {key: value for key, value in vars(self).items() if key not in left_out}

    @property
    def chosen(self) -> RunResult:
        """The run that the selecting rows chose."""
        return next(result for result in self.results if result.name == self.run)


class Method(Protocol):
    """What trains for a target.

    Attributes:
        name: among the results of one target.
    """

    name: str

    def plain(self) -> dict[str, Any]:
        """Everything its result depends on besides backbone, data and seeds, as JSON takes it."""
        ...

    def encode(
        self, backbone: Backbone, task: Task, *, train_rows: int | None = None, validation_rows: int | None = None
    ) -> TaskData:
        """A task tokenised as its runs take it; at most so many rows."""
        ...

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """Train for a target, one run a seed at least, and choose.

        Raises:
            NonFiniteError: no run was validated.
        """
        ...


class OfRows:
    """Base of methods whose rows are cut to the token limits of their settings."""

    @property
    def limits(self) -> LoopSettings:
        """The settings that say them."""
        raise NotImplementedError

    def encode(
        self, backbone: Backbone, task: Task, *, train_rows: int | None = None, validation_rows: int | None = None
    ) -> TaskData:
        """See `Method.encode`."""
        return task_data(backbone, task, self.limits, train_rows=train_rows, validation_rows=validation_rows)


def forward_tokens(results: Iterable[RunResult]) -> int:
    """Forward-token equivalents of some runs, validation and instance encodings included, so that methods can be compared honestly."""
    return sum(TRAINING_FACTOR * r.tokens + r.eval_tokens + r.encoder_tokens for r in results)


def best_of(results: Sequence[RunResult]) -> RunResult:
    """The run that the selecting rows choose among those that were validated; the first of a tie.

    Raises:
        NonFiniteError: none was.
    """
    usable = [result for result in results if result.scores and result.status != "dropped"]
    if not usable:
        why = next((result.note for result in results if result.note), "no run reached a validation")
        raise NonFiniteError(f"nothing can be delivered: {why}; lower the learning rate.")
    return max(usable, key=lambda result: result.best_score)


def result_of(
    name: str,
    target: Target,
    results: Sequence[RunResult],
    backbone: Backbone,
    *,
    base: RunResult | None = None,
    level: float = 0.9,
    extra_cost: int = 0,
    sources: tuple[tuple[str, float], ...] = (),
    notes: Sequence[str] = (),
) -> Result:
    """What a method's runs gave: choose on the selecting rows, report on the others, compare with scratch.

    Args:
        name: of the method.
        target: they trained for.
        results: of its runs.
        backbone: gives the tokenizer.
        base: the chosen run from scratch; None for no comparison.
        level: coverage of the comparison's interval.
        extra_cost: forward-token equivalents besides the runs'.
        sources: what the chosen run started from.
        notes: besides those of the runs.

    Raises:
        NonFiniteError: no run was validated.
    """
    chosen, scores = best_of(results), [r.scores["score"] for r in results if r.scores]
    compared = base is not None and chosen is not base
    versus = (
        compare_runs(target, chosen, base, backbone, level=level).plain() if base is not None and compared else None
    )
    return Result(
        strategy=name, run=chosen.name, sources=sources, runs=len(results), select_score=chosen.best_score,
        score=chosen.scores["score"], spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        cost=forward_tokens(results) + extra_cost, seconds=sum(r.seconds for r in results), versus_scratch=versus,
        prompt_PH=chosen.best.get("prompt"), curve=chosen.curve, notes=[*notes, *(r.note for r in results if r.note)],
        step=chosen.best_step, results=tuple(results), tensors=chosen.best,
        tuned=sum(tensor.numel() for tensor in chosen.best.values()),
    )  # fmt: skip


def compare_runs(
    target: Target, new: RunResult, base: RunResult, backbone: Backbone, *, level: float = 0.9
) -> Comparison:
    """Compare two runs' predictions on a target's reporting rows."""
    examples = target.data.validation.examples
    rows = examples if target.report is None else [examples[int(row)] for row in target.report]
    return compare(
        target.data.task, rows, new.predictions, base.predictions, canonical=canonical_text(backbone), level=level
    )
