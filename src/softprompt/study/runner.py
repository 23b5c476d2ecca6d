"""Makes the cells of a study with the trainer and the evaluator: one pack is one batch of prompts on one backbone.

A runner is named by text (``module:factory``), so that worker processes and other machines can make their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from softprompt.errors import NonFiniteError, UsageError
from softprompt.study.arms import ARM_KINDS, make_arm
from softprompt.study.grid import TARGET_KINDS, DataFacts, Facts, Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.measures import predict, prompt_of
from softprompt.study.racing import run_race
from softprompt.study.settings import Study
from softprompt.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.backbones.base import Backbone
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData
    from softprompt.training.loop import Leave, Looks
    from softprompt.training.runs import Run, RunResult

TextKey = tuple[str, ...]
DEFAULT_RUNNER = "softprompt.study.runner:PromptRunner"
Tell = Callable[[int, int], None]
"""Called with steps done and steps in all of the pack at work."""


class Runner(Protocol):
    """What can resolve a study's facts and make its cells."""

    def facts(self, study: Study) -> Facts:
        """The backbone and the data that the study would use now."""
        ...

    def make(
        self,
        study: Study,
        pack: Pack,
        ledger: Ledger,
        folder: Path,
        provenance: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> None:
        """Record every member of the pack, and what comes on the way, in the ledger; continue what ``folder`` holds."""
        ...


def make_runner(name: str, options: Mapping[str, Any] | None = None) -> Runner:
    """A runner by ``module:factory`` and the factory's keyword arguments.

    Raises:
        UsageError: there is no such factory.
    """
    module, _, factory = name.partition(":")
    try:
        made: Runner = getattr(importlib.import_module(module), factory)(**(options or {}))
    except (ImportError, AttributeError) as error:
        raise UsageError(f"runner {name!r} cannot be made: {error}.") from error
    return made


class PromptRunner:
    """Prompt tuning on a frozen backbone. Backbone and data are loaded once a process.

    Args:
        device: as `load_backbone` takes it.
        checkpointing: compute layers again in the backward pass; changes no bit, and so no cell's key.
    """

    def __init__(self, device: str = "auto", checkpointing: bool = False) -> None:
        self.device, self.checkpointing = device, checkpointing
        self._backbones: dict[tuple[str, str], Backbone] = {}
        self._data: dict[tuple[Any, ...], TaskData] = {}
        self.encoders: dict[tuple[str, str, str], Any] = {}

    # -- what there is ------------------------------------------------------------------------------------------------

    def backbone(self, study: Study) -> Backbone:
        """The study's backbone, loaded once."""
        key = study.backbone, study.dtype
        if key not in self._backbones:
            from softprompt.backbones.load import load_backbone

            self._backbones[key] = load_backbone(study.backbone, dtype=study.dtype, device=self.device)
            self._backbones[key].checkpointing = self.checkpointing
        return self._backbones[key]

    def task(self, study: Study, name: str) -> Task:
        """A task of the study, worded for its backbone."""
        from softprompt.tasks.catalog import load_task
        from softprompt.tasks.tuned import for_backbone

        return for_backbone(load_task(name, study.data or None), self.backbone(study).kind)

    def facts(self, study: Study) -> Facts:
        """See `Runner.facts`; every split is read, and targets are looked for among the sources' training rows.

        Raises:
            DataError: a task lacks data.
        """
        from softprompt.tasks.contamination import text_key

        backbone = self.backbone(study)
        data, train_texts, held_out = {}, {}, {}
        for name in study.all_tasks:
            task = self.task(study, name)
            train = task.split("train", max_rows=study.train_rows_of(name))
            validation = task.split("validation", max_rows=study.validation_rows or None)
            data[name] = DataFacts(
                train=train.fingerprint,
                validation=validation.fingerprint,
                train_rows=len(train.examples),
                validation_rows=len(validation.examples),
                metrics=tuple(task.metrics),
                labels=tuple(task.labels or ()),
            )
            train_texts[name] = {text_key(example.inputs) for example in train.examples}
            if name in study.targets:
                held_out[name] = [text_key(example.inputs) for example in validation.examples]
        return Facts(
            backbone=study.backbone,
            fingerprint=backbone.fingerprint,
            dtype=backbone.precision,
            data=data,
            parameters=backbone.parameter_count,
            contamination=tuple(contamination(study, train_texts, held_out)),
        )

    def data(self, study: Study, name: str, settings: TrainSettings) -> TaskData:
        """A task, tokenised once."""
        key = (study.backbone, study.data, name, settings.max_input_tokens, settings.max_target_tokens,
               settings.prompt_length, study.train_rows_of(name), study.validation_rows)  # fmt: skip
        if key not in self._data:
            from softprompt.training.data import task_data

            self._data[key] = task_data(
                self.backbone(study),
                self.task(study, name),
                settings,
                train_rows=study.train_rows_of(name),
                validation_rows=study.validation_rows or None,
            )
        return self._data[key]

    # -- making cells -------------------------------------------------------------------------------------------------

    def make(
        self,
        study: Study,
        pack: Pack,
        ledger: Ledger,
        folder: Path,
        provenance: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> None:
        """See `Runner.make`."""
        if pack.kind == "evaluation":
            for cell in pack.cells:
                self._evaluate(study, cell, ledger, provenance)
            return
        if pack.kind == "prediction":
            for cell in pack.cells:
                predict(self, study, cell, ledger, provenance)
            return
        if pack.kind in ARM_KINDS:
            make_arm(self, study, pack, ledger, folder, provenance, tell)
            return
        if pack.kind == "race":
            for cell in pack.cells:
                run_race(self, study, pack, cell, ledger, folder, provenance, tell)
            return
        settings = settings_of(study, pack)
        runs, prompts = [], []
        for cell in pack.cells:
            run, prompt = self._start(study, cell, settings, ledger)
            runs.append(run)
            prompts.append(prompt)
        results = self.train(study, pack, settings, runs, prompts, folder, tell)
        for cell, run, result in zip(pack.cells, runs, results, strict=True):
            self._record(cell, [m for m in pack.made if m.made_by == cell.id], run, result, study, ledger, provenance)

    def train(
        self,
        study: Study,
        pack: Pack,
        settings: TrainSettings,
        runs: Sequence[Run],
        prompts: Sequence[Tensor],
        folder: Path,
        tell: Tell | None,
        leave: Leave | None = None,
        looks: Looks | None = None,
    ) -> list[RunResult]:
        """Train the runs of a pack together, or go on with what ``folder`` holds."""
        import torch

        from softprompt.prompts.stack import PromptStack
        from softprompt.training.loop import Progress, train_prompts

        backbone = self.backbone(study)
        stack = PromptStack(torch.stack(list(prompts)).to(backbone.device), tuned=True)

        def observe(progress: Progress) -> None:
            if tell is not None:
                tell(progress.step, progress.steps)

        def train() -> list[RunResult]:
            return train_prompts(
                backbone,
                stack,
                runs,
                settings,
                folder,
                resume=True,
                observer=observe,
                leave=leave,
                looks=looks,
                extra_identity={"pack": pack.key},
            )

        try:
            return train()
        except NonFiniteError:
            # Every run of the pack diverged. Their results were saved; a study records that and goes on.
            return train()

    def _start(self, study: Study, cell: StudyCell, settings: TrainSettings, ledger: Ledger) -> tuple[Run, Tensor]:
        """The run of a cell and the prompt it starts from, float32 [P, H]."""
        from softprompt.prompts.init import default_init, initial_prompt
        from softprompt.training.data import mixture_run, start_of

        backbone, spec = self.backbone(study), cell.spec
        name = f"{cell.kind}-{cell.key[:24]}"
        seed = int(spec["seed"])
        if cell.kind in TARGET_KINDS or (cell.kind == "embedding" and spec["role"] == "target"):
            data = self.data(study, str(spec.get("target", spec.get("name"))), settings)
            if cell.kind in ("baseline", "embedding"):
                init = start_of(backbone, data.task, "scratch")
            else:
                init = default_init("transfer", prompt=self._given(study, cell, ledger), origin=cell.name)
            prompt = initial_prompt(backbone, init, settings.prompt_length, seed)
            select = selecting_rows(study, data)
            return data.run(name, seed, select_rows=select, validated=cell.kind != "embedding"), prompt
        tasks = self._mixed(study, cell, ledger) if cell.kind == "mixture" else [str(task) for task in spec["tasks"]]
        parts = [self.data(study, task, settings) for task in tasks]
        start = start_of(backbone, parts[0].task, "source") if len(parts) == 1 else default_init("source")
        prompt = initial_prompt(backbone, start, settings.prompt_length, seed)
        if len(parts) == 1:
            return parts[0].run(name, seed, validated=cell.kind != "embedding"), prompt
        from softprompt.tasks.mixture import proportional_rates

        rates = proportional_rates([len(part.train) for part in parts])
        # A mixture has no validation of its own: its final checkpoint is used (SPoT section 3.3).
        return mixture_run(name, seed, parts, rates, validated_on=parts[0], validated=False), prompt

    def _given(self, study: Study, cell: StudyCell, ledger: Ledger) -> Tensor:
        """The prompt that a transfer starts from."""
        if cell.kind == "weighted_average":
            return self._average(cell, ledger)
        kind, key = cell.parents[0]
        return prompt_of(ledger, kind, key, cell.name)

    def _ranking(self, cell: StudyCell, ledger: Ledger) -> list[tuple[float, int]]:
        """(similarity, place among the sources) of every source prompt, best first."""
        from softprompt.library.similarity import similarity_matrix

        spec = cell.spec
        own = ledger.tensors("embedding", spec["own"])["prompt"]
        others = [ledger.tensors("embedding", key)["prompt"] for key in spec["embeddings"]]
        similarity = similarity_matrix([own], others, spec["similarity"])[0]
        return sorted(((float(s), i) for i, s in enumerate(similarity)), key=lambda item: (-item[0], item[1]))

    def _average(self, cell: StudyCell, ledger: Ledger) -> Tensor:
        from softprompt.methods.spot.strategies import Ranked, weighted_average

        spec = cell.spec
        keys = {f"{task}.{seed}": key for (task, seed), key in zip(spec["names"], spec["sources"], strict=True)}
        names = list(keys)
        ranking = [
            Ranked(name=names[i], task=str(spec["names"][i][0]), similarity=s) for s, i in self._ranking(cell, ledger)
        ]
        start = weighted_average(
            ranking, int(spec["k"]), lambda name: prompt_of(ledger, "source", keys[name], cell.name)
        )
        return start.prompt_PH

    def _mixed(self, study: Study, cell: StudyCell, ledger: Ledger) -> list[str]:
        top = [str(cell.spec["names"][i][0]) for _, i in self._ranking(cell, ledger)[: int(cell.spec["k"])]]
        tasks = [task for source in dict.fromkeys(top) for task in study.tasks_of(source)]
        return list(dict.fromkeys([*tasks, str(cell.spec["target"])]))

    # -- recording ----------------------------------------------------------------------------------------------------

    def _record(
        self,
        cell: StudyCell,
        made: Sequence[StudyCell],
        run: Run,
        result: RunResult,
        study: Study,
        ledger: Ledger,
        provenance: Mapping[str, Any],
    ) -> None:
        """What came on the way first, the training last: a training that is recorded is recorded whole."""
        story = {**provenance, "cell": cell.name, "seconds": result.seconds, "evidence": result.evidence}
        for child in made:
            if child.kind == "embedding" and result.embedding is not None:
                self._write(ledger, child, {"steps": child.spec["step"]}, {"prompt": result.embedding["prompt"]}, story)
            if child.kind == "evaluation" and result.predictions:
                self._write(ledger, child, self.halves(study, run, result.predictions), {}, story)
        if cell.kind == "embedding":
            if result.embedding is None:
                raise NonFiniteError(f"the task embedding {cell.name} was not reached: {result.note or result.status}.")
            self._write(ledger, cell, {"steps": cell.spec["step"]}, {"prompt": result.embedding["prompt"]}, story)
            return
        plain = {
            name: value for name, value in result.plain().items() if name not in ("predictions", "name", "evidence")
        }
        tensors = {"best": result.best.get("prompt"), "final": result.final.get("prompt")}
        self._write(ledger, cell, plain, {name: t for name, t in tensors.items() if t is not None}, story)

    def _write(
        self,
        ledger: Ledger,
        cell: StudyCell,
        result: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        story: Mapping[str, Any],
    ) -> None:
        ledger.write(cell.kind, cell.key, cell.identity, result, tensors, story)

    def halves(self, study: Study, run: Run, predictions: Sequence[str]) -> dict[str, Any]:
        """Scores of predictions on all of validation and on its two seeded halves."""
        from softprompt.inference.evaluate import canonical_text, halves

        canonical = canonical_text(self.backbone(study))
        examples = run.validation.examples

        def score(rows: Sequence[int]) -> float:
            chosen = [examples[r] for r in rows]
            return float(run.task.score([predictions[r] for r in rows], chosen, canonical=canonical)["score"])

        everything = list(range(len(examples)))
        parts = [[int(r) for r in part] for part in halves(len(examples), 0, run.task.groups(examples))]
        return {
            "score": score(everything),
            "halves": [score(part) if part else None for part in parts],
            "rows": [len(part) for part in parts],
            "predictions": list(predictions),
        }

    def _evaluate(self, study: Study, cell: StudyCell, ledger: Ledger, provenance: Mapping[str, Any]) -> None:
        from softprompt.inference.evaluate import EvalJob, evaluate
        from softprompt.prompts.stack import PromptStack

        kind, key = cell.spec["of"]
        if kind in ARM_KINDS:
            raise UsageError(
                f"the answers of {cell.name} were not recorded: delete {ledger.path(kind, key)} to make it again."
            )
        backbone = self.backbone(study)
        data = self.data(study, str(cell.spec["target"]), study.target)
        prompt = prompt_of(ledger, kind, key, cell.name).to(backbone.device)
        job = EvalJob(run=0, task=data.task, split=data.validation)
        settings = study.target
        (found,) = evaluate(backbone, PromptStack(prompt[None]), [job], max_target_tokens=settings.max_target_tokens)
        run = data.run("evaluation", 0)
        self._write(ledger, cell, self.halves(study, run, found.predictions), {}, {**provenance, "cell": cell.name})


def settings_of(study: Study, pack: Pack) -> TrainSettings:
    """The training settings of a pack."""
    first = pack.cells[0]
    from_source = pack.kind in ("source", "mixture") or first.spec.get("role") == "source"
    settings = study.source if from_source else study.target
    if pack.kind == "embedding":
        step = int(first.spec["step"])
        return settings.having(steps=step, embedding_step=step, eval_every=step, patience=0)
    wanted = study.embedding.step if pack.kind in ("source", "baseline") else 0
    return settings.having(embedding_step=wanted)


def selecting_rows(study: Study, data: TaskData) -> np.ndarray[Any, Any] | None:
    """The validation rows that choose checkpoints of target runs; None for all."""
    if study.protocol == "paper":
        return None
    from softprompt.inference.evaluate import halves

    return halves(len(data.validation), 0, data.task.groups(data.validation.examples))[0]


def contamination(
    study: Study, train_keys: Mapping[str, set[TextKey]], held_out: Mapping[str, Sequence[TextKey]]
) -> list[tuple[str, str, int]]:
    """(target, source, rows): validation inputs of the target that a source's training rows hold too, word for word.

    Args:
        study: its sources and targets.
        train_keys: of every task's training inputs, by `softprompt.tasks.contamination.text_key`.
        held_out: the same of every target's validation inputs, one a row.
    """
    from softprompt.tasks.contamination import exact_rows

    found = []
    for target in study.targets:
        for source in study.sources:
            seen: set[TextKey] = set().union(*(train_keys[task] for task in study.tasks_of(source)))
            rows = exact_rows(held_out[target], seen)
            if rows:
                found.append((target, source, rows))
    return found
