"""Transfer onto one or many targets: embed, rank, start from source prompts, compare with scratch (SPoT section 3.3).

Phases, each one training of all its runs in one batch:
    first     scratch runs of every target, and the short runs that make the task embeddings where the scratch runs do not
              pass through them (a phase ``embeddings`` of their own where they are longer than the target runs)
    (rank)    source prompts ranked
    mixture   source tuning of multitask mixtures, where that strategy is asked for
    transfer  every start of every strategy of every target
    race      successive halving over all starts, where asked for
    sharpt    the generator of a latent space, where asked for
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.errors import NonFiniteError, UsageError
from softprompt.library.index import Entry
from softprompt.library.search import search as search_library
from softprompt.library.store import Library
from softprompt.methods.method import TRAINING_FACTOR, OfRows, Result, Start, Target, Work
from softprompt.methods.sharpt.method import SharPT
from softprompt.methods.spot.checks import check_learned_elsewhere, check_sources, check_space
from softprompt.methods.spot.outcomes import TargetReport, target_report
from softprompt.methods.spot.predictors import check_distinct, order_of
from softprompt.methods.spot.race import halving, race_rungs
from softprompt.methods.spot.settings import TransferSettings
from softprompt.methods.spot.strategies import RankedSource, best_of_top_k, drawn, mixture_tasks, weighted_average
from softprompt.methods.spot.target import TransferTarget, started
from softprompt.prompts.init import InitSettings, initial_prompt
from softprompt.tasks.mixture import proportional_rates
from softprompt.training.data import TaskData, mixture_run
from softprompt.training.loop import Leave, Looks
from softprompt.training.runs import Run, RunResult
from softprompt.training.settings import LoopSettings, TrainSettings

# Given the names of source tasks, their tokenised rows by name.
MixtureRows = Callable[[Sequence[str]], Mapping[str, TaskData]]


def source_entries(library: Library, backbone: Backbone, tasks: Collection[str] | None = None) -> list[Entry]:
    """The library's prompts that fit this backbone, of these tasks (all where None)."""
    return [entry for entry in library.list(backbone=backbone) if tasks is None or entry.task in tasks]


class SPoT(OfRows):
    """Transfer from a library as a method: strategies beside runs from scratch, and what holds up on held-out rows.

    Args:
        library: source prompts; those of other backbones, and those of a target itself, are passed over.
        settings: strategies, k, training.
        source_tasks: only prompts of these tasks are used; all where None.
        mixture_data: gives tokenised source tasks by name, for ``multitask_mixture``: called once, with the tasks that the
            rankings put into mixtures.
        sharpt: the space that strategy ``sharpt`` adapts.
        name: of the method.
    """

    def __init__(
        self,
        library: Library,
        settings: TransferSettings,
        *,
        source_tasks: Collection[str] | None = None,
        mixture_data: MixtureRows | None = None,
        sharpt: SharPT | None = None,
        name: str = "spot",
    ) -> None:
        self.library, self.settings, self.name = library, settings, name
        self.source_tasks, self.mixture_data, self.sharpt = source_tasks, mixture_data, sharpt

    @property
    def limits(self) -> LoopSettings:
        """See `OfRows`."""
        return self.settings.train

    def plain(self) -> dict[str, Any]:
        """See `Method.plain`."""
        space = {} if self.sharpt is None else {"sharpt": self.sharpt.plain()}
        return {**self.settings.plain(), "library": self.library.location, **space}

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """See `Method.run`: the delivered strategy's result, ``scratch`` among them; runs count up from the first seed."""
        settings = self.settings.having(seed=seeds[0])
        one = SPoT(
            self.library, settings, source_tasks=self.source_tasks, mixture_data=self.mixture_data, sharpt=self.sharpt,
            name=self.name,
        )  # fmt: skip
        (report,) = one.run_all(work, [target])
        return report.outcome(report.delivered)

    def run_all(self, work: Work, targets: Sequence[Target]) -> list[TargetReport]:
        """Every strategy on targets, all of whose runs train in one batch a phase; one report a target, in order.

        Raises:
            UsageError: no source prompt, or the settings ask for what is not there.
            IncompatibleBackboneError: the space of strategy ``sharpt`` is of another backbone.
            UnknownNameError: the source prompt of strategy ``generic`` is not there.
        """
        mixing = "multitask_mixture" in self.settings.strategies
        if mixing and self.mixture_data is None:
            raise UsageError(
                "multitask_mixture needs the training rows of source tasks: say where they are (mixture_data)."
            )
        sources = source_entries(self.library, work.backbone, self.source_tasks)
        check_sources(self.library, work.backbone.name, sources, [target.name for target in targets], self.settings)
        check_space(self.settings.strategies, given=self.sharpt is not None)
        if self.sharpt is not None:
            check_learned_elsewhere(self.sharpt.space, [target.name for target in targets])
            self.sharpt.check(work.backbone, targets)
        phases = _Phases(self.library, sources, self.settings, work)
        going = [started(target) for target in targets]
        phases.first(going)
        phases.rank(going)
        if mixing and self.mixture_data is not None:
            phases.mixtures(going, self.mixture_data)
        phases.transfers(going)
        if "race" in self.settings.strategies:
            phases.race(going)
        if self.sharpt is not None:
            phases.sharpt(going, self.sharpt)
        return [target_report(target, work.backbone, self.library, self.settings) for target in going]


class _Phases:
    """The phases over all targets, sharing backbone, library and settings."""

    def __init__(self, library: Library, sources: Sequence[Entry], settings: TransferSettings, work: Work) -> None:
        self.library, self.settings, self.work, self.backbone = library, settings, work, work.backbone
        self.task_of = {entry.name: entry.task for entry in sources}

    def _load(self, name: str) -> Tensor:
        return self.library.load(name, self.backbone).float()

    def _others(self, target: TransferTarget) -> list[str]:
        """Every source prompt that is not the target's own."""
        return [name for name, task in self.task_of.items() if task != target.name]

    def _train(
        self,
        phase: str,
        starts: Sequence[tuple[Run, Tensor]],
        train: TrainSettings | None = None,
        leave: Leave | None = None,
        looks: Looks | None = None,
    ) -> dict[str, RunResult]:
        work = replace(self.work, identity={"phase": phase})
        return work.train(phase, starts, train or self.settings.train, leave=leave, looks=looks)

    def first(self, targets: Sequence[TransferTarget]) -> None:
        """Scratch runs and task embeddings of all targets in one batch.

        A run from scratch that starts as the embedding of its seed does passes through it, and is not made twice. Where
        the target runs end before the embedding step, the embeddings are a batch of their own: they are compared with the
        library's only at the step those were taken at.
        """
        scratch: list[tuple[Run, Tensor]] = []
        embed: list[tuple[Run, Tensor]] = []
        giving: dict[str, list[str]] = {target.name: [] for target in targets}  # the runs that give its embeddings
        train = self.settings.train
        length, step = train.prompt_length, train.embedding_step
        for target in targets:
            own: dict[int, tuple[Run, Tensor]] = {}
            for seed in self.settings.scratch_seeds:
                own[seed] = target.start(self.backbone, f"{target.name}-scratch-{seed}", seed, length)
            scratch += own.values()
            for seed in self.settings.embedding_seeds if step else ():
                # Started as source prompts are, with the same seeds: then what differs between two task embeddings
                # is what the tasks taught, not where they began.
                name = f"{target.name}-embed-{seed}"
                run = target.data.run(name, seed, steps=step, validated=False)
                begun = target.start(self.backbone, name, seed, length, role="source", run=run)
                if seed in own and torch.equal(begun[1], own[seed][1]) and _reaches(train, step):
                    giving[target.name].append(own[seed][0].name)
                else:
                    giving[target.name].append(name)
                    embed.append(begun)
        if step <= train.steps:
            found = self._train("first", [*scratch, *embed])
        else:
            found = self._train("first", scratch)
            found.update(self._train("embeddings", embed, train.having(steps=step)))
        for target in targets:
            target.scratch = [found[f"{target.name}-scratch-{seed}"] for seed in self.settings.scratch_seeds]
            target.embeddings = [found[name] for name in giving[target.name]]
            target.embedding_cost = sum(_until(result, step) for result in target.embeddings)

    def rank(self, targets: Sequence[TransferTarget]) -> None:
        """Rank the source prompts for every target by its task embeddings, and by the predictor where one is asked for."""
        for target in targets:
            if self.settings.predictor:
                self._predict(target)
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

    def _predict(self, target: TransferTarget) -> None:
        """Source prompts by what the predictor says of them, best first.

        Raises:
            UsageError: it says the same of all.
        """
        from softprompt.methods.spot.measured import predict

        name, names = self.settings.predictor, self._others(target)
        prompts = [self._load(source) for source in names]
        found = predict([name], self.backbone, prompts, target.data, self.settings.train)[name]
        check_distinct(name, found.values)
        target.predicted = {names[i]: found.values[i] for i in order_of(found.values)}
        target.prediction_cost = found.forward_tokens

    def _first_choices(self, target: TransferTarget) -> list[RankedSource]:
        """What best_of_top_k takes from the top of."""
        if not target.predicted:
            return self._ranked(target)
        return [RankedSource(name=n, task=self.task_of[n], similarity=value) for n, value in target.predicted.items()]

    def _ranked(self, target: TransferTarget) -> list[RankedSource]:
        return [RankedSource(name=m.name, task=m.task, similarity=m.similarity) for m in target.ranking]

    def mixtures(self, targets: Sequence[TransferTarget], rows: MixtureRows) -> None:
        """Source tuning on each target's mixture; the final checkpoint is what the target starts from."""
        runs: list[Run] = []
        mixed = {t.name: mixture_tasks(self._ranked(t), self.settings.mixture_k, t.name) for t in targets}
        data = rows(sorted({task for *sources, _ in mixed.values() for task in sources}))
        for target in targets:
            names = mixed[target.name]
            parts = [*(data[n] for n in names[:-1]), target.data]
            rates = proportional_rates([len(part.train) for part in parts])
            target.notes["multitask_mixture"] = [f"mixed: {', '.join(names)}"]
            runs.append(
                mixture_run(f"{target.name}-mixture", self.settings.seed, parts, rates,
                            validated_on=target.data, validated=False)
            )  # fmt: skip
        length = self.settings.train.prompt_length
        prompts = [initial_prompt(self.backbone, InitSettings(), length, self.settings.seed) for _ in runs]
        found = self._train("mixture", list(zip(runs, prompts, strict=True)))
        for target in targets:
            result = found[f"{target.name}-mixture"]
            target.mixture = result
            target.starts[f"{target.name}-multitask_mixture"] = Start(
                strategy="multitask_mixture", sources=(), weights=(), prompt_PH=result.final["prompt"]
            )

    def transfers(self, targets: Sequence[TransferTarget]) -> None:
        """All starts of all targets in one batch."""
        starts: list[tuple[Run, Tensor]] = []
        for target in targets:
            self._plan(target)
            for i, (name, start) in enumerate(target.starts.items()):
                run = target.run(name, self.settings.seed + i % max(1, self.settings.k))
                starts.append((run, start.prompt_PH))
        if not starts:
            return
        found = self._train("transfer", starts)
        for target in targets:
            target.transferred = {name: found[name] for name in target.starts}

    def _plan(self, target: TransferTarget) -> None:
        ranking = self._ranked(target)
        for strategy in self.settings.strategies:
            starts: list[Start] = []
            if strategy == "best_of_top_k":
                starts = best_of_top_k(self._first_choices(target), self.settings.k, self._load)
            elif strategy == "random":
                starts = drawn(self._others(target), self.settings.k, self.settings.seed, self._load)
            elif strategy == "weighted_average":
                try:
                    starts = [weighted_average(ranking, self.settings.average_k, self._load)]
                except UsageError as error:
                    target.refused[strategy] = str(error)
            elif strategy == "generic":
                starts = [self._generic()]
            elif strategy == "oracle":
                starts = [replace(s, strategy="oracle") for s in best_of_top_k(
                    [RankedSource(name=n, task="", similarity=0.0) for n in self._others(target)], len(self.task_of), self._load)]  # fmt: skip
            for start in starts:
                if start.dropped:
                    target.notes[strategy] = [f"left out, similarity not positive: {', '.join(start.dropped)}"]
                origin = f"-{start.sources[0]}" if len(start.sources) == 1 else ""
                target.starts[f"{target.name}-{strategy}{origin}"] = start

    def _generic(self) -> Start:
        name = self.settings.generic
        return Start(strategy="generic", sources=(name,), weights=(1.0,), prompt_PH=self._load(name))

    def race(self, targets: Sequence[TransferTarget]) -> None:
        """Successive halving over every source prompt and one start from scratch, for all targets in one batch."""
        starts: list[tuple[Run, Tensor]] = []
        target_of: dict[str, str] = {}
        seed, length = self.settings.seed, self.settings.train.prompt_length
        for target in targets:
            field_ = [target.start(self.backbone, f"{target.name}-race-scratch", seed, length)]
            field_ += [
                (target.run(f"{target.name}-race-{name}", seed), self._load(name)) for name in self._others(target)
            ]
            starts += field_
            target_of |= {run.name: target.name for run, _ in field_}
        settings = self.settings
        halved_by, looks = race_rules(target_of, settings.train.steps, keep=settings.race_keep, rows=settings.race_rows)
        found = self._train("race", starts, settings.train.having(patience=0), halved_by, looks)
        for target in targets:
            target.raced = {n: r for n, r in found.items() if target_of[n] == target.name}

    def sharpt(self, targets: Sequence[TransferTarget], method: SharPT) -> None:
        """A space's generator on all targets in one batch, with as many runs as from scratch."""
        seeds, place = self.settings.scratch_seeds, self.work.place("sharpt")
        work = replace(self.work, folder=None if place is None else place / "run")
        try:
            made = method.adapt(work, targets, seeds)
        except NonFiniteError as error:  # the other strategies' runs are not lost with it
            for target in targets:
                target.refused["sharpt"] = str(error)
            return
        for n, target in enumerate(targets):
            target.adapted = made[n * len(seeds) : (n + 1) * len(seeds)]


def _reaches(train: TrainSettings, step: int) -> bool:
    """Whether every run of these settings gets to a step: none ends or loses patience before it."""
    return step <= train.steps and (not train.patience or step < train.patience * train.eval_every)


def _until(result: RunResult, step: int) -> int:
    """Forward-token equivalents of a run's training up to a step."""
    return round(TRAINING_FACTOR * result.tokens * min(1.0, step / max(1, result.steps)))


def race_rules(target_of: Mapping[str, str], steps: int, *, keep: float, rows: int) -> tuple[Leave, Looks]:
    """Who leaves a race when, and the looks that say so.

    Args:
        target_of: target of each racing run, by the run's name.
        steps: of the whole training.
        keep: share of a field that survives a rung.
        rows: at most this many selecting rows at a look; 0 for all.
    """
    fields = list(target_of.values())
    rungs = race_rungs(steps, max(fields.count(target) for target in fields), keep)
    return halving(target_of, keep, rungs), Looks(at=rungs, rows=rows)
