"""Progress on standard error: a bar on a terminal, plain lines elsewhere, so that standard output holds results alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

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


@contextmanager
def counts() -> Iterator[Callable[[str, int, int], None]]:
    """A function to be called with (title, done, total): a bar a title, or a line now and then."""
    if sys.stderr.isatty() and first_process():
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console(stderr=True), transient=True) as bar:
            shown: dict[str, Any] = {}

            def show(title: str, done: int, total: int) -> None:
                if title not in shown:
                    shown[title] = bar.add_task(title, total=total)
                bar.update(shown[title], completed=done, total=total, visible=done < total)

            yield show
        return
    last = time.monotonic()

    def tell(title: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            say(f"{title}: {done} of {total}")

    yield tell


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be called with (done, total), shown as a bar or as a line now and then."""
    with counts() as count:
        yield partial(count, title)


@contextmanager
def training(title: str) -> Iterator[Callable[[Progress], None]]:
    """An observer for `train_prompts`: the step as a bar, a second one while answers are scored, each validation as a line."""
    with counts() as count:

        def observe(progress: Progress) -> None:
            if progress.rows is not None:
                count(f"{title}: scoring rows", *progress.rows)
                return
            count(title, progress.step, progress.steps)
            if progress.records:
                say(f"{title}: step {progress.step} of {progress.steps}, {validation_line(progress.records)}")

        yield observe


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
