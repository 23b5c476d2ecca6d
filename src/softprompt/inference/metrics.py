"""What `/metrics` tells, through prometheus_client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from softprompt.inference.scheduler import Scheduler

Found = TypeVar("Found", bound=Sequence[Any])
_MOST_NAMES = 1000  # prompts told apart; further ones count as one, so that a scrape stays small
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Queue, batches, tokens, refusals, and latency by prompt, in a registry of one server's own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry, "namespace": "softprompt"}
        self._names: set[str] = set()
        self._waiting = Gauge("queue_waiting", "Requests that wait for their turn.", **own)
        self._active = Gauge("answers_active", "Answers under way.", **own)
        self._answers = Counter("answers", "Texts answered.", ["prompt"], **own)
        self._refused = Counter("refused", "Requests refused, by code.", ["code"], **own)
        self._passes = Counter("batches", "Forward passes, by kind.", ["kind"], **own)
        self._tokens = Counter("tokens", "Positions that passed, by kind of pass.", ["kind"], **own)
        self._rows = Histogram(
            "batch_rows", "Rows of a forward pass.", ["kind"], buckets=[2.0**i for i in range(10)], **own
        )
        self._seconds = Histogram("request_seconds", "Time to the whole answer.", ["prompt"], buckets=_SECONDS, **own)

    def follow(self, scheduler: Scheduler) -> None:
        """Read the queue's gauges from a scheduler."""
        self._waiting.set_function(lambda: scheduler.waiting)
        self._active.set_function(lambda: scheduler.active)

    def passed(self, kind: str, rows: int, tokens: int) -> None:
        """Count a forward pass."""
        self._passes.labels(kind).inc()
        self._tokens.labels(kind).inc(tokens)
        self._rows.labels(kind).observe(rows)

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._refused.labels(code).inc()

    @contextmanager
    def timed(self, prompt: str, texts: int) -> Iterator[Callable[[Found], Found]]:
        """Time a request; what it yields is called with the answers when they are there."""
        begun, done = time.perf_counter(), False

        def record(found: Found) -> Found:
            nonlocal done
            done = True
            return found

        yield record
        if done:
            name = self._name(prompt)
            self._answers.labels(name).inc(texts)
            self._seconds.labels(name).observe(time.perf_counter() - begun)

    def _name(self, prompt: str) -> str:
        if prompt not in self._names and len(self._names) >= _MOST_NAMES:
            return "others"
        self._names.add(prompt)
        return prompt

    def text(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST
