"""Bars of trainings in Python: tqdm's, in a terminal or a notebook, on standard error. Other waits: `softprompt.waits`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softprompt.training.loop import Progress


@contextmanager
def training(title: str, shown: bool = True) -> Iterator[Callable[[Progress], None]]:
    """An observer of training: a bar over the steps with the newest validation score."""
    if not shown:
        yield lambda progress: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=0, desc=title, leave=False, unit="step") as bar:

        def observe(progress: Progress) -> None:
            bar.total = progress.steps
            bar.update(progress.step - bar.n)
            if progress.records:
                scores = [record["score"] for record in progress.records]
                bar.set_postfix(score=f"{sum(scores) / len(scores):.1f}")

        yield observe


@contextmanager
def phases(shown: bool = True) -> Iterator[Callable[[str, int], Any]]:
    """A function that opens the bar of a phase (its name, its number of runs) and closes the one before it."""
    with ExitStack() as opened:

        def begin(phase: str, runs: int) -> Any:
            opened.close()
            return opened.enter_context(training(f"{phase} ({runs} runs)", shown))

        yield begin
