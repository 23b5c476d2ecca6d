"""Trackers beside the JSON lines of a run directory: plug-ins that observe a training."""

from __future__ import annotations

from pathlib import Path

from softprompt.errors import UsageError
from softprompt.training.loop import Observer, Progress


def tensorboard(folder: Path) -> Observer:
    """An observer that writes loss, score and metrics of every validation as TensorBoard scalars.

    Args:
        folder: where the event files go; one subfolder a run.

    Raises:
        UsageError: the tensorboard package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed: pip install 'softprompt[trackers]'.") from error
    writers: dict[str, SummaryWriter] = {}

    def observe(progress: Progress) -> None:
        for record in progress.records:
            name = str(record["run"])
            writer = writers.setdefault(name, SummaryWriter(str(folder / name)))
            values = {"loss": record["loss"], "score": record["score"], **record["metrics"]}
            for key, value in values.items():
                if value is not None:
                    writer.add_scalar(key, value, record["step"])
            writer.flush()

    return observe


def both(first: Observer, second: Observer) -> Observer:
    """An observer that tells two."""

    def observe(progress: Progress) -> None:
        first(progress)
        second(progress)

    return observe
