"""Long waits, told where they happen and shown where somebody looks.

What takes long calls `tell`, or goes through its items with `each`; it need not know who shows it. The command line shows
waits as its bars, Python's verbs as tqdm's (``progress=False`` shows none). Where nobody listens, nothing happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Tell = Callable[[str, int, int], None]
"""Called with what is waited for, how much of it is done, and how much there is."""

PAUSE = 0.05
"""Seconds between what is told of items: a bar takes longer to draw than a row to read."""
DELAY = 0.3
"""Seconds after which a wait is long enough for a bar."""

Item = TypeVar("Item")

_listener: ContextVar[Tell | None] = ContextVar("listener", default=None)


@contextmanager
def heard(by: Tell) -> Iterator[None]:
    """The waits of the code inside are told to ``by``."""
    token = _listener.set(by)
    try:
        yield
    finally:
        _listener.reset(token)


def listened() -> bool:
    """Whether somebody is told."""
    return _listener.get() is not None


def tell(title: str, done: int, total: int) -> None:
    """``done`` of ``total`` are done; the last call has both equal."""
    listener = _listener.get()
    if listener is not None:
        listener(title, done, total)


def each(title: str, items: Sequence[Item]) -> Iterator[Item]:
    """The items, one by one; told at the start, now and then, and at the end, also where that comes early."""
    total, last = len(items), time.monotonic()
    if not total:
        return
    tell(title, 0, total)
    try:
        for done, item in enumerate(items, start=1):
            yield item
            if (now := time.monotonic()) - last >= PAUSE and done < total:
                last = now
                tell(title, done, total)
    finally:
        tell(title, total, total)


@contextmanager
def shown(wanted: bool = True) -> Iterator[None]:
    """The waits of the code inside as tqdm's bars, on standard error or in a notebook.

    Args:
        wanted: False shows none. Where somebody listens already, nothing is shown twice.
    """
    if not wanted or listened():
        yield
        return
    bars: dict[str, Any] = {}

    def show(title: str, done: int, total: int) -> None:
        from tqdm.auto import tqdm

        bar = bars.get(title)
        if bar is None:
            if done >= total:  # it did not take long
                return
            bar = bars[title] = tqdm(total=total, desc=title, leave=False, delay=DELAY)
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bars.pop(title).close()

    try:
        with heard(show):
            yield
    finally:
        for bar in bars.values():
            bar.close()
