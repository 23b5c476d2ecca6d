"""Model tuning: all weights tuned on one task or mixture, from the same tasks and with the same evaluator as prompts.

A copy of the backbone's Hugging Face model is tuned, the backbone itself is not touched; the tuned weights are in the
result, and in the run directory:

    run.json               what the run is; a directory is never shared with another run or method
    metrics.jsonl          one line a validation
    checkpoints/           float32 weights, optimiser and data position: resuming is bit for bit
    best.safetensors       the best checkpoint by validation
    final.safetensors      the last weights and the optimiser's moments, where asked for
    result.json            scores and costs, written at the end
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.training.loop import Observer, open_run_dir, stop_requests, train_group
from softprompt.training.runs import Run
from softprompt.training.settings import TuneSettings
from softprompt.training.weights.live import LiveModel
from softprompt.training.weights.loop import Tuning, check_budget
from softprompt.training.weights.sharded import ShardedModel
from softprompt.training.weights.tuned import ModelState, TunedModel, digest_of, load_tuned


def tune_model(
    backbone: Backbone,
    run: Run,
    settings: TuneSettings,
    folder: Path | None = None,
    *,
    start: ModelState | None = None,
    keep_final: bool = False,
    resume: bool = False,
    observer: Observer | None = None,
) -> TunedModel:
    """Tune all weights on one run's data; the backbone is not touched.

    Args:
        backbone: whose weights are tuned, from what they are now or from ``start``.
        run: data, seed and validation; several parts for a mixture (multi-task model tuning's first stage).
        settings: batches are counted in tokens.
        folder: run directory; None keeps everything in memory.
        start: weights to start from.
        keep_final: keep the last weights and the optimiser's moments as well as the best checkpoint.
        resume: continue, bit for bit, what ``folder`` holds.
        observer: told of every step.

    Raises:
        UsageError: ``batch_tokens`` smaller than a row, or a folder of another run or method.
        NonFiniteError: a loss that is not finite; the best checkpoint so far is in the folder.
        Interrupted: stopped by a signal; the folder can be resumed.
    """
    opened = ShardedModel if settings.sharded else LiveModel
    return tuned_with(
        lambda: opened(backbone, dropout=settings.dropout, checkpointing=settings.checkpointing),
        backbone, run, settings, folder, method="model tuning", start=start, keep_final=keep_final, resume=resume,
        observer=observer,
    )  # fmt: skip


def tuned_with(
    make: Callable[[], LiveModel],
    backbone: Backbone,
    run: Run,
    settings: TuneSettings,
    folder: Path | None,
    *,
    method: str,
    start: ModelState | None = None,
    keep_final: bool = False,
    resume: bool = False,
    observer: Observer | None = None,
    extra_identity: Mapping[str, Any] | None = None,
) -> TunedModel:
    """The body of ``tune_model`` for whatever ``make`` opens for tuning (all weights, or adapters)."""
    directory = None
    if folder is not None:
        identity = {
            "method": method,
            "settings": settings.plain(),
            "backbone": backbone.fingerprint,
            "start": None if start is None else digest_of(start),
            "keep_final": keep_final,
            "run": run.identity(),
            **(extra_identity or {}),
        }
        directory = open_run_dir(folder, identity, resume=resume)
        if (folder / "result.json").exists():
            return load_tuned(folder)
    check_budget(run, settings)
    tuning = Tuning(backbone, make(), run, settings, folder)
    if start is not None:
        tuning.begin(start)
    if directory is not None and (state := directory.load()) is not None:
        tuning.load(*state)
    parallel.wait()
    with stop_requests() as stopped:
        train_group(tuning, directory, observer, stopped)
    return tuning.measured(keep_final)


def tune_multitask(
    backbone: Backbone,
    mixture: Run,
    targets: Sequence[Run],
    settings: TuneSettings,
    target_settings: TuneSettings,
    folder: Path | None = None,
    *,
    carry_optimizer: bool = True,
    resume: bool = False,
    observer: Observer | None = None,
) -> tuple[TunedModel, list[TunedModel]]:
    """Multi-task model tuning: on the mixture first, then on each target from the mixture's last weights.

    Args:
        mixture: the run on the mixture; a mixture of one task is plain model tuning on it.
        targets: one run a target task and seed.
        settings: of the mixture.
        target_settings: of the targets.
        carry_optimizer: whether the moments go along, as T5X restores them.

    Returns:
        The mixture's result and the targets', in order.
    """
    first = tune_model(
        backbone, mixture, settings, None if folder is None else folder / "mixture", keep_final=True, resume=resume,
        observer=observer,
    )  # fmt: skip
    assert first.last is not None
    start = first.last if carry_optimizer else ModelState(weights=first.last.weights)
    tuned = [
        tune_model(
            backbone, run, target_settings, None if folder is None else folder / artifacts.check_name(run.name),
            start=start, resume=resume, observer=observer,
        )
        for run in targets
    ]  # fmt: skip
    return first, tuned
