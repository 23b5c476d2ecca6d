"""Model tuning as cells of a study: plain, and multi-task (all sources first, then the target; SPoT Appendix C).

Of plain model tuning only the answers are kept. Multi-task model tuning keeps the weights that its targets start from, in
bfloat16: half the disk, and every target starts from the same numbers however often the study is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.study.grid import Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.settings import Study

if TYPE_CHECKING:
    from softprompt.study.runner import PromptRunner
    from softprompt.training.data import TaskData
    from softprompt.training.loop import Observer
    from softprompt.training.runs import Run
    from softprompt.training.weights.settings import TuneSettings
    from softprompt.training.weights.tuned import ModelState


def model_tuning_settings(study: Study) -> TuneSettings:
    """The study's settings of model tuning on a target."""
    from softprompt.training.weights.settings import tune_recipe

    changes = {"steps": study.model_tuning.steps} if study.model_tuning.steps else {}
    return tune_recipe(study.model_tuning.recipe, **changes)


def union_settings(study: Study) -> TuneSettings:
    """The study's settings of multi-task model tuning on all sources; the last weights count, so it never stops early."""
    settings = model_tuning_settings(study)
    return settings.having(steps=study.model_tuning.source_steps or settings.steps, patience=0)


def tune_union(
    runner: PromptRunner, study: Study, cell: StudyCell, ledger: Ledger, folder: Path, provenance: Mapping[str, Any],
    observe: Observer | None,
) -> None:  # fmt: skip
    """Tune all weights on the sources together, mixed examples-proportionally, and keep the last weights."""
    from softprompt.tasks.mixture import proportional_rates
    from softprompt.training.weights.data import mixed_run
    from softprompt.training.weights.tune import tune_model

    settings = union_settings(study)
    parts = [_data(runner, study, str(task), settings) for task in cell.spec["tasks"]]
    rates = proportional_rates([len(part.train) for part in parts])
    run = mixed_run(f"multitask-{cell.key[:24]}", int(cell.spec["seed"]), parts, rates, settings)
    tuned = tune_model(
        runner.backbone(study), run, settings, folder, keep_final=True, resume=True, observer=observe
    )  # fmt: skip
    assert tuned.final is not None
    result = {**plain_result(tuned.plain()), "watched": str(cell.spec["tasks"][0])}
    story = {**provenance, "cell": cell.name, "seconds": tuned.seconds, "evidence": tuned.evidence}
    ledger.write(cell.kind, cell.key, cell.identity, result, _kept(tuned.final), story)


def tune_on_target(
    runner: PromptRunner, study: Study, pack: Pack, cell: StudyCell, ledger: Ledger, folder: Path,
    provenance: Mapping[str, Any], observe: Observer | None,
) -> None:  # fmt: skip
    """Tune all weights on one target, from the backbone's or from those of a multi-task tuning."""
    from softprompt.study.runner import selecting_rows
    from softprompt.training.weights.tune import tune_model

    settings = model_tuning_settings(study)
    data = _data(runner, study, str(cell.spec["target"]), settings)
    run = data.run(f"model-{cell.key[:24]}", int(cell.spec["seed"]), select_rows=selecting_rows(study, data))
    start = _start(ledger, cell) if cell.parents else None
    tuned = tune_model(runner.backbone(study), run, settings, folder, start=start, resume=True, observer=observe)
    story = {**provenance, "cell": cell.name, "seconds": tuned.seconds, "evidence": tuned.evidence}
    record_answers(runner, study, pack, cell, run, tuned.predictions, ledger, story)
    ledger.write(cell.kind, cell.key, cell.identity, plain_result(tuned.plain()), {}, story)


def record_answers(
    runner: PromptRunner, study: Study, pack: Pack, cell: StudyCell, run: Run, predictions: Sequence[str], ledger: Ledger,
    story: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write the evaluation that a cell makes on its way."""
    for child in pack.made:
        if child.made_by == cell.id and child.kind == "evaluation" and predictions:
            ledger.write(child.kind, child.key, child.identity, runner.halves(study, run, predictions), {}, story)


def plain_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """A training's result without what stands elsewhere: answers in the evaluation, evidence in the provenance."""
    return {name: value for name, value in result.items() if name not in ("predictions", "name", "evidence")}


def _data(runner: PromptRunner, study: Study, task: str, settings: TuneSettings) -> TaskData:
    limits = study.target.having(
        max_input_tokens=settings.max_input_tokens, max_target_tokens=settings.max_target_tokens
    )
    return runner.data(study, task, limits)


def _kept(final: ModelState) -> dict[str, Any]:
    import torch

    weights = {f"weight.{name}": tensor.to(torch.bfloat16) for name, tensor in final.weights.items()}
    return {**weights, **{f"moment.{name}": tensor for name, tensor in final.moments.items()}}


def _start(ledger: Ledger, cell: StudyCell) -> ModelState:
    """The weights of the parent, float32, and its optimiser's moments, as T5X carries them along."""
    from softprompt.training.weights.tuned import state_of

    kind, key = cell.parents[0]
    tensors = {name: tensor.float() for name, tensor in ledger.tensors(kind, key).items()}
    return state_of(tensors, int(ledger.read(kind, key).result["steps"]))
