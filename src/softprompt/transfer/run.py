"""Transfer onto one or many targets: embed, rank, start from the known, compare with scratch (SPoT section 3.3).

Phases, each one training of all its runs in one batch:
    first     scratch runs of every target, and the short runs that make the task embeddings
    mixture   source tuning of multitask mixtures, where that strategy is asked for
    transfer  every start of every strategy of every target
    race      successive halving over all starts, where asked for
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError
from softprompt.inference.evaluate import canonical_text, halves
from softprompt.library.index import Entry
from softprompt.library.search import Match
from softprompt.library.search import search as search_library
from softprompt.library.store import Library
from softprompt.prompts.init import InitSettings, default_init, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.mixture import proportional_rates
from softprompt.training.data import TaskData, mixture_run
from softprompt.training.loop import Leave, Observer, train_prompts
from softprompt.training.runs import Run, RunResult
from softprompt.training.settings import TrainSettings
from softprompt.transfer.cost import forward_tokens
from softprompt.transfer.guard import compare
from softprompt.transfer.race import halving, rung_every
from softprompt.transfer.settings import Outcome, TargetReport, TransferSettings
from softprompt.transfer.strategies import (
    Ranked,
    Start,
    best_of_top_k,
    mixture_tasks,
    weighted_average,
)

PhaseObserver = Callable[[str, int], Observer | None]


@dataclass(kw_only=True)
class _Target:
    """A target on its way through the phases."""

    data: TaskData
    select: np.ndarray
    report: np.ndarray
    scratch: list[RunResult] = field(default_factory=list)
    embeddings: list[RunResult] = field(default_factory=list)
    ranking: list[Match] = field(default_factory=list)
    starts: dict[str, Start] = field(default_factory=dict)
    mixture: RunResult | None = None
    transferred: dict[str, RunResult] = field(default_factory=dict)
    raced: dict[str, RunResult] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.data.task.name

    def run(self, name: str, seed: int) -> Run:
        return self.data.run(name, seed, select_rows=self.select, report_rows=self.report)


def transfer_targets(
    backbone: Backbone,
    library: Library,
    targets: Sequence[TaskData],
    settings: TransferSettings,
    *,
    source_tasks: Collection[str] | None = None,
    folder: Path | None = None,
    resume: bool = False,
    mixture_data: Mapping[str, TaskData] | None = None,
    observe: PhaseObserver | None = None,
) -> list[TargetReport]:
    """Try strategies on targets and deliver, for each, the prompt that holds up on held-out validation rows.

    Args:
        backbone: frozen.
        library: source prompts; those of other backbones, and those of the target itself, are passed over.
        targets: tokenised target tasks.
        settings: strategies, k, seeds, training.
        source_tasks: only prompts of these tasks are used; all where None.
        folder: run directory; each phase is resumable in it. None keeps everything in memory.
        resume: continue what the folder holds.
        mixture_data: tokenised source tasks by name, for ``multitask_mixture``.
        observe: called with (phase, runs in it) before each phase; gives the observer of its steps.

    Returns:
        One report a target, in order.
    """
    sources = source_entries(library, backbone, source_tasks)
    if not sources:
        raise UsageError(
            f"library {library.location} holds no source prompt for backbone '{backbone.name}': train some with "
            "'softprompt train --library', or name another library."
        )
    work = [_start(data) for data in targets]
    study = _Study(backbone, library, sources, settings, folder, resume, observe)
    study.first(work)
    study.rank(work)
    if "multitask_mixture" in settings.strategies:
        study.mixtures(work, mixture_data or {})
    study.transfers(work)
    if "race" in settings.strategies:
        study.race(work)
    return [study.report(target) for target in work]


def _start(data: TaskData) -> _Target:
    # The halves are the same for every seed and strategy: what is compared is measured on the same rows.
    select, report = halves(len(data.validation), 0)
    if not len(select) or not len(report):
        raise UsageError(
            f"task '{data.task.name}' has {len(data.validation)} validation rows; choosing and reporting need two."
        )
    return _Target(data=data, select=select, report=report)


def source_entries(library: Library, backbone: Backbone, tasks: Collection[str] | None = None) -> list[Entry]:
    """The library's prompts that fit this backbone, of these tasks (all where None)."""
    return [entry for entry in library.list(backbone=backbone) if tasks is None or entry.task in tasks]


def match_row(match: Match) -> dict[str, Any]:
    """A line of a ranking as plain JSON."""
    return {
        "rank": match.rank,
        "name": match.name,
        "task": match.task,
        "per_token": match.per_token,
        "average": match.average,
        "similarity_std": match.similarity_std,
        "agreement": match.agreement,
    }


class _Study:
    """The phases over all targets, sharing backbone, library and settings."""

    def __init__(
        self,
        backbone: Backbone,
        library: Library,
        sources: Sequence[Entry],
        settings: TransferSettings,
        folder: Path | None,
        resume: bool,
        observe: PhaseObserver | None,
    ) -> None:
        self.backbone = backbone
        self.library = library
        self.task_of = {entry.name: entry.task for entry in sources}
        self.settings = settings
        self.folder = folder
        self.resume = resume
        self.observe = observe

    def _load(self, name: str) -> Tensor:
        return self.library.load(name, self.backbone).float()

    def _others(self, target: _Target) -> list[str]:
        """Every source prompt that is not the target's own."""
        return [name for name, task in self.task_of.items() if task != target.name]

    def _train(
        self,
        phase: str,
        runs: Sequence[Run],
        prompts: Sequence[Tensor],
        train: TrainSettings | None = None,
        leave: Leave | None = None,
    ) -> dict[str, RunResult]:
        observer = self.observe(phase, len(runs)) if self.observe is not None else None
        results = train_prompts(
            self.backbone,
            PromptStack.of([p.to(self.backbone.device) for p in prompts], tuned=True),
            runs,
            train or self.settings.train,
            self.folder / phase if self.folder is not None else None,
            resume=self.resume,
            observer=observer,
            leave=leave,
            extra_identity={"phase": phase},
        )
        return {result.name: result for result in results}

    def first(self, targets: Sequence[_Target]) -> None:
        """Scratch runs and task embeddings of all targets in one batch."""
        runs: list[Run] = []
        prompts: list[Tensor] = []
        length = self.settings.train.prompt_length
        for target in targets:
            for seed in self._scratch_seeds():
                runs.append(target.run(f"{target.name}-scratch-{seed}", seed))
                init = default_init("scratch", labels=target.data.task.labels)
                prompts.append(initial_prompt(self.backbone, init, length, seed))
            for seed in self._embedding_seeds():
                # Started as source prompts are, with the same seeds: then what differs between two task embeddings
                # is what the tasks taught, not where they began.
                runs.append(
                    target.data.run(
                        f"{target.name}-embed-{seed}", seed, steps=self.settings.train.embedding_step, validated=False
                    )
                )
                prompts.append(initial_prompt(self.backbone, InitSettings(), length, seed))
        found = self._train("first", runs, prompts)
        for target in targets:
            target.scratch = [found[f"{target.name}-scratch-{seed}"] for seed in self._scratch_seeds()]
            target.embeddings = [found[f"{target.name}-embed-{seed}"] for seed in self._embedding_seeds()]

    def rank(self, targets: Sequence[_Target]) -> None:
        """Rank the source prompts for every target by its task embeddings."""
        for target in targets:
            embeddings = [r.embedding["prompt"] for r in target.embeddings if r.embedding]
            if embeddings:
                target.ranking = search_library(
                    self.library,
                    embeddings,
                    metric=self.settings.metric,
                    top_k=len(self.task_of),
                    exclude_tasks={target.name},
                    names=self.task_of.keys(),
                )

    def _scratch_seeds(self) -> range:
        count = self.settings.scratch_runs
        if not count:
            count = max(1, self.settings.k if "best_of_top_k" in self.settings.strategies else 1)
        return range(self.settings.seed, self.settings.seed + count)

    def _embedding_seeds(self) -> range:
        return range(self.settings.seed, self.settings.seed + self.settings.embedding_runs)

    def _ranked(self, target: _Target) -> list[Ranked]:
        return [Ranked(name=m.name, task=m.task, similarity=m.similarity) for m in target.ranking]

    def mixtures(self, targets: Sequence[_Target], data: Mapping[str, TaskData]) -> None:
        """Source tuning on each target's mixture; the final checkpoint is what the target starts from."""
        runs: list[Run] = []
        for target in targets:
            names = mixture_tasks(self._ranked(target), self.settings.mixture_k, target.name)
            missing = [n for n in names[:-1] if n not in data]
            if missing:
                raise UsageError(
                    f"multitask_mixture of '{target.name}' needs the training rows of {', '.join(missing)}."
                )
            parts = [*(data[n] for n in names[:-1]), target.data]
            rates = proportional_rates([len(part.train) for part in parts])
            target.notes["multitask_mixture"] = [f"mixed: {', '.join(names)}"]
            runs.append(
                mixture_run(f"{target.name}-mixture", self.settings.seed, parts, rates,
                            validated_on=target.data, validated=False)
            )  # fmt: skip
        length = self.settings.train.prompt_length
        prompts = [initial_prompt(self.backbone, InitSettings(), length, self.settings.seed) for _ in runs]
        found = self._train("mixture", runs, prompts)
        for target in targets:
            result = found[f"{target.name}-mixture"]
            target.mixture = result
            target.starts[f"{target.name}-multitask_mixture"] = Start(
                strategy="multitask_mixture", sources=(), weights=(), prompt_PH=result.final["prompt"]
            )

    def transfers(self, targets: Sequence[_Target]) -> None:
        """All starts of all targets in one batch."""
        runs: list[Run] = []
        prompts: list[Tensor] = []
        for target in targets:
            self._plan(target)
            for i, (name, start) in enumerate(target.starts.items()):
                runs.append(target.run(name, self.settings.seed + i % max(1, self.settings.k)))
                prompts.append(start.prompt_PH)
        if not runs:
            return
        found = self._train("transfer", runs, prompts)
        for target in targets:
            target.transferred = {name: found[name] for name in target.starts}

    def _plan(self, target: _Target) -> None:
        ranking = self._ranked(target)
        for strategy in self.settings.strategies:
            starts: list[Start] = []
            if strategy == "best_of_top_k":
                starts = best_of_top_k(ranking, self.settings.k, self._load)
            elif strategy == "weighted_average":
                try:
                    starts = [weighted_average(ranking, self.settings.average_k, self._load)]
                except UsageError as error:
                    target.notes[strategy] = [str(error)]
            elif strategy == "generic":
                starts = [self._generic()]
            elif strategy == "oracle":
                starts = [replace(s, strategy="oracle") for s in best_of_top_k(
                    [Ranked(name=n, task="", similarity=0.0) for n in self._others(target)], len(self.task_of), self._load)]  # fmt: skip
            for start in starts:
                if start.dropped:
                    target.notes[strategy] = [f"left out, similarity not positive: {', '.join(start.dropped)}"]
                origin = f"-{start.sources[0]}" if len(start.sources) == 1 else ""
                target.starts[f"{target.name}-{strategy}{origin}"] = start

    def _generic(self) -> Start:
        name = self.settings.generic
        if name not in self.task_of:
            raise UsageError(f"source prompt '{name}' is not in the library for this backbone.")
        return Start(strategy="generic", sources=(name,), weights=(1.0,), prompt_PH=self._load(name))

    def race(self, targets: Sequence[_Target]) -> None:
        """Successive halving over every source prompt and one start from scratch, for all targets in one batch."""
        runs: list[Run] = []
        prompts: list[Tensor] = []
        target_of: dict[str, str] = {}
        length = self.settings.train.prompt_length
        for target in targets:
            init = default_init("scratch", labels=target.data.task.labels)
            field_ = {"scratch": initial_prompt(self.backbone, init, length, self.settings.seed)}
            field_.update({name: self._load(name) for name in self._others(target)})
            for name, prompt in field_.items():
                run = target.run(f"{target.name}-race-{name}", self.settings.seed)
                runs.append(run)
                prompts.append(prompt)
                target_of[run.name] = target.name
        keep = self.settings.race_keep
        every = rung_every(self.settings.train.steps, len(self.task_of) + 1, keep)
        found = self._train(
            "race", runs, prompts, self.settings.train.having(eval_every=every, patience=0), halving(target_of, keep)
        )
        for target in targets:
            target.raced = {n: r for n, r in found.items() if target_of[n] == target.name}

    # -- reporting --------------------------------------------------------------------------------------------------

    def report(self, target: _Target) -> TargetReport:
        """Outcomes by strategy, and what is delivered."""
        base = max(target.scratch, key=lambda r: r.best_score)
        outcomes = [self._outcome(target, "scratch", target.scratch, base)]
        for strategy in self.settings.strategies:
            if strategy in ("scratch", "race"):
                continue
            results = [target.transferred[n] for n, s in target.starts.items() if s.strategy == strategy]
            if results:
                outcomes.append(self._outcome(target, strategy, results, base))
        if target.raced:
            outcomes.append(self._outcome(target, "race", list(target.raced.values()), base))
        delivered, verdict = verdict_of(outcomes)
        chosen = next(o for o in outcomes if o.strategy == delivered)
        first = target.embeddings[0].embedding if target.embeddings else None
        return TargetReport(
            target=target.name,
            outcomes=outcomes,
            ranking=[match_row(match) for match in target.ranking],
            delivered=delivered,
            verdict=verdict,
            prompt_PH=chosen.prompt_PH,
            embedding_PH=first["prompt"] if first else None,
            facts={
                "train_rows": len(target.data.train),
                "train_fingerprint": target.data.train.fingerprint,
                "validation_fingerprint": target.data.validation.fingerprint,
                "select_rows": len(target.select),
                "report_rows": len(target.report),
                "seeds": list(self._scratch_seeds()),
                "embedding_seeds": list(self._embedding_seeds()),
                "embedding_cost": forward_tokens(target.embeddings),
                "metric": self.settings.metric,
            },
        )

    def _outcome(self, target: _Target, strategy: str, results: Sequence[RunResult], base: RunResult) -> Outcome:
        usable = [r for r in results if r.best]
        notes = [*target.notes.get(strategy, []), *(r.note for r in results if r.note)]
        survivors = [r for r in usable if r.status != "dropped"] if strategy == "race" else usable
        chosen = max(survivors, key=lambda r: r.best_score)
        start = target.starts.get(chosen.name)
        sources = tuple(zip(start.sources, start.weights, strict=True)) if start else ()
        if strategy == "race":
            sources = ((chosen.name.removeprefix(f"{target.name}-race-"), 1.0),)
        cost = forward_tokens(results)
        if strategy == "multitask_mixture" and target.mixture is not None:
            cost += forward_tokens([target.mixture])
        if strategy in ("best_of_top_k", "weighted_average", "multitask_mixture"):
            cost += forward_tokens(target.embeddings)
        scores = [r.scores["score"] for r in usable if r.scores]
        versus = None
        if chosen is not base:
            versus = compare(
                target.data.task,
                [target.data.validation.examples[int(r)] for r in target.report],
                chosen.predictions,
                base.predictions,
                canonical=canonical_text(self.backbone),
                level=self.settings.level,
            ).plain()
        return Outcome(
            strategy=strategy,
            run=chosen.name,
            sources=sources,
            runs=len(results),
            select_score=chosen.best_score,
            score=chosen.scores["score"],
            spread=float(np.std(scores, ddof=1)) if len(scores) > 1 and strategy != "race" else None,
            cost=cost,
            seconds=sum(r.seconds for r in results),
            versus_scratch=versus,
            prompt_PH=chosen.best["prompt"],
            curve=chosen.curve,
            notes=notes,
        )


def verdict_of(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """Which strategy's prompt is delivered, and one sentence on why.

    The strategy is chosen by the selecting half; the reporting half then has to confirm that it beats scratch.
    """
    scratch = outcomes[0]
    others = list(outcomes[1:])
    if not others:
        return "scratch", "no transfer was tried; the prompt from scratch is delivered."
    best = max(others, key=lambda o: o.select_score)
    found = best.versus_scratch
    if found is None:
        return "scratch", f"{best.strategy} chose the same run as scratch; the prompt from scratch is delivered."
    what = (
        f"{best.strategy} scores {best.score:.1f} against {scratch.score:.1f} from scratch on {found['rows']} held-out "
        f"rows ({found['gain']:+.1f}, {100 * found['level']:.0f} % interval {found['low']:+.1f} to {found['high']:+.1f})"
    )
    if found["better"]:
        return best.strategy, f"{what}: better beyond noise, delivered."
    if found["worse"]:
        return "scratch", f"{what}: transfer hurts here, the prompt from scratch is delivered."
    return "scratch", f"{what}: not beyond noise, the prompt from scratch is delivered."
