"""Progress on standard error: a bar on a terminal, plain lines elsewhere, so that standard output holds results alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from softprompt import waits
from softprompt.cli.output import console, first_process
from softprompt.errors import printable

if TYPE_CHECKING:
    from softprompt.training.loop import Progress

# Plain lines come at most this often (seconds) where nothing else is worth telling.
QUIET_SECONDS = 15.0
# Up to this many runs are told one by one.
FEW_RUNS = 4
# What the phases of a transfer and of the quickstart are called.
PHASES = {
    "sources": "source prompts",
    "first": "scratch and task embeddings",
    "embeddings": "task embeddings",
    "mixture": "mixtures",
    "transfer": "transfer",
    "race": "race",
}


def say(text: str) -> None:
    """A line of progress."""
    if first_process():
        print(printable(text), file=sys.stderr, flush=True)


class _Bars:
    """Bars of what is waited for, with the time that is left: there as long as something is."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._shown: dict[str, Any] = {}

    def __call__(self, title: str, done: int, total: int) -> None:
        if title in self._shown:
            self._bar.update(self._shown[title], completed=done, total=total)
        elif done < total:
            if self._bar is None:
                self._bar = self._opened()
            self._shown[title] = self._bar.add_task(title, completed=done, total=total)
        if done >= total and title in self._shown:
            self._bar.remove_task(self._shown.pop(title))
            if not self._shown:
                self.close()

    def close(self) -> None:
        """Take the bars away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._shown.clear()

    @staticmethod
    def _opened() -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        class Patient(Progress):
            """Shows what has been waited for a moment."""

            def get_renderables(self) -> Iterator[Any]:
                if long := [task for task in self.tasks if (task.elapsed or 0.0) >= waits.DELAY]:
                    yield self.make_tasks_table(long)

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Patient(*columns, console=console(stderr=True), transient=True)
        bar.start()
        return bar


class _Lines:
    """The same as a line now and then, where no terminal shows bars."""

    def __init__(self) -> None:
        self._last: float | None = None

    def __call__(self, title: str, done: int, total: int) -> None:
        if self._last is None:  # what came before, such as imports, was no wait of this kind
            self._last = time.monotonic()
        if done < total and time.monotonic() - self._last >= QUIET_SECONDS:
            self._last = time.monotonic()
            say(f"{title}: {done:,} of {total:,}")

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def waiting() -> Iterator[None]:
    """Shows the waits of the code inside; a command runs in it."""
    show = _Bars() if sys.stderr.isatty() and first_process() else _Lines()
    try:
        with waits.heard(show):
            yield
    finally:
        show.close()


@contextmanager
def training(title: str) -> Iterator[Callable[[Progress], None]]:
    """An observer for `train_prompts`: the step as a wait, each validation as a line."""
    total = 0

    def observe(progress: Progress) -> None:
        nonlocal total
        total = progress.steps
        waits.tell(title, progress.step, total)
        if progress.records:
            say(f"{title}: step {progress.step} of {progress.steps}, {validation_line(progress.records)}")

    try:
        yield observe
    finally:  # it may end early
        waits.tell(title, total, total)


def validation_line(records: Sequence[Mapping[str, Any]]) -> str:
    """The validation of one step in words: each run where there are few, else their means and ranges."""
    if len(records) <= FEW_RUNS:
        return "; ".join(f"{record['run']} {_loss(record)}score {record['score']:.1f}" for record in records)
    scores = [record["score"] for record in records]
    losses = [record["loss"] for record in records if record.get("loss") is not None]
    loss = f"mean loss {sum(losses) / len(losses):.3f}, " if losses else ""
    mean = sum(scores) / len(scores)
    return f"{len(records)} runs: {loss}mean score {mean:.1f} ({min(scores):.1f} to {max(scores):.1f})"


def _loss(record: Mapping[str, Any]) -> str:
    return "" if record.get("loss") is None else f"loss {record['loss']:.3f} "


@contextmanager
def phases() -> Iterator[Callable[[str, int], Callable[[Progress], None]]]:
    """A function that opens the bar of a phase (its name, its number of runs) and closes the one before it."""
    with ExitStack() as opened:

        def begin(phase: str, runs: int) -> Callable[[Progress], None]:
            opened.close()
            title = PHASES.get(phase, phase)
            say(f"{title}: {runs} run(s) in one batch")
            return opened.enter_context(training(title))

        yield begin
