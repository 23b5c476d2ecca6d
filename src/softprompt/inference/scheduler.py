"""Continuous batching: one thread answers, new requests join between two tokens, and whoever is done leaves.

Requests of all prompts share every forward pass. A label that is scored needs one pass; an answer that is generated
begins in a pass with the others that came, and then decodes beside all that are under way. What takes long (ranking a
library) is cut into slices that run between the tokens. Nothing here knows of the network: a job tells by callbacks,
which are called in this thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from softprompt.backbones.base import Decoding
from softprompt.errors import SoftpromptError
from softprompt.inference.engine import Engine, Prepared, Reply


class QueueFull(SoftpromptError):
    """As many requests wait as may; try again later."""


class TimedOut(SoftpromptError):
    """The answer was not there in the time a request may take."""


class Stopping(SoftpromptError):
    """The server is shutting down and takes no new requests."""


@dataclass(eq=False, kw_only=True)
class Job:
    """A row to answer, or a piece of work in slices.

    Attributes:
        row: what to answer; None for work in slices.
        slices: does a slice at each step and returns its result at the end.
        scores: whether the probabilities of the labels are wanted too.
        done: called once with the result: a Reply, (Reply, scores), what the slices gave, or an exception.
        piece: called with the text so far whenever there is more of it; None where nobody reads along.
        deadline: `time.monotonic` seconds at which it is given up.
        cancelled: set by whoever does not want it any more.
    """

    done: Callable[[Any], None]
    row: Prepared | None = None
    slices: Iterator[Any] | None = None
    scores: bool = False
    piece: Callable[[str], None] | None = None
    deadline: float = float("inf")
    cancelled: bool = False
    written: list[int] = field(default_factory=list)
    submitted: float = field(default_factory=time.monotonic)

    @property
    def by_label(self) -> bool:
        """Whether one pass over the labels is all it needs."""
        return self.row is not None and (self.scores or self.row.scored)


class Scheduler:
    """Answers jobs in one thread.

    Args:
        engine: answers.
        wait_ms: how long jobs wait at least for another one to come right behind them, milliseconds. They wait for a fortieth
            of a first pass, or for a tenth where someone was answered a moment ago and may ask again, and go on while others
            come, for half a pass at most: a pass over a few rows costs nearly what one over many does. Where those who were
            answered have mostly come back until now, and nothing is under way, they wait for them for a whole pass.
        most_waiting: jobs that may wait.
        most_active: answers under way at once.
        active_positions: positions (prompt, text, answer) whose keys and values answers under way may hold.
        watch: told of each pass: (kind, rows, tokens).
        coming: how many requests have arrived and are still being read.
    """

    def __init__(
        self, engine: Engine, *, wait_ms: float = 1.0, most_waiting: int = 1024, most_active: int = 256,
        active_positions: int = 262_144, watch: Callable[[str, int, int], None] = lambda kind, rows, tokens: None,
        coming: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.wait_s, self.most_waiting, self.most_active = wait_ms / 1000.0, most_waiting, most_active
        self.active_positions, self._watch, self._coming = active_positions, watch, coming
        self._waiting: deque[Job] = deque()
        self._slow: deque[Job] = deque()
        self._active: list[Job] = []
        self._decoding: Decoding | None = None
        self._wake = threading.Condition()
        self._open = True
        self._per_job_s = 0.02  # a running mean, for Retry-After
        self._pass_s = 0.0  # a running mean of the first passes over new rows
        self._gone, self._answered = 0, 0.0  # jobs that ended in the last round, and when the last one did
        self._came, self._left, self._returning = (
            0,
            0,
            1.0,
        )  # jobs since some ended, how many those were; a running mean of the share
        self._thread = threading.Thread(target=self._run, name="softprompt-scheduler", daemon=True)

    # -- from any thread --------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more and give up what is under way; returns at once."""
        with self._wake:
            self._open = False
            self._wake.notify()

    @property
    def alive(self) -> bool:
        """Whether it takes jobs."""
        return self._open and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return len(self._waiting) + len(self._slow)

    @property
    def active(self) -> int:
        """Answers under way."""
        return len(self._active)

    def retry_after_s(self) -> int:
        """Whole seconds until the queue has likely moved on."""
        return max(1, min(60, round(self.waiting * self._per_job_s)))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, all or none.

        Raises:
            QueueFull: they do not fit.
            Stopping: the server takes no more.
        """
        with self._wake:
            if not self._open:
                raise Stopping("the server is shutting down: ask another one, or again later.")
            if self.waiting + len(jobs) > self.most_waiting:
                raise QueueFull(
                    f"{self.waiting} requests wait and at most {self.most_waiting} may: try again in "
                    f"{self.retry_after_s()} s."
                )
            for job in jobs:
                (self._waiting if job.row is not None else self._slow).append(job)
            self._came += len(jobs)
            self._wake.notify()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                back = len(self._waiting) + self._gone
                self._count_returns()
                while self._open and not (self._waiting or self._slow or self._active):
                    self._wake.wait()
                self._gather(back)
                if not self._open:
                    break
            self._round()
        for job in (*self._waiting, *self._slow, *self._active):
            self._finish(job, Stopping("the server was shut down before the answer was there."))

    def _count_returns(self) -> None:
        """Learn how many of those who are answered ask again until others are; the lock is held."""
        if not self._gone:
            return
        if self._left:
            self._returning += 0.2 * (min(1.0, self._came / self._left) - self._returning)
        self._came, self._left, self._gone = 0, self._gone, 0

    def _few_wait(self) -> bool:
        """Whether those that wait go on doing so: a first pass stops the many under way, so it waits for more, or for as long as it takes."""
        few = 0 < len(self._waiting) < len(self._active)
        return few and time.monotonic() - self._waiting[0].submitted < self._pass_s

    def _gather(self, back: int) -> None:
        """Let jobs that wait for their first pass wait for those right behind them; the lock is held.

        Args:
            back: jobs that wait once those who were answered a moment ago have asked again.
        """
        if self._few_wait():
            return
        begun, trusted = time.monotonic(), self._returning > 0.5 and not self._active
        most = max(self.wait_s, self._pass_s / (1 if trusted else 2))
        back = back if begun - self._answered < most else 0
        trusted, first = trusted and back > len(self._waiting), len(self._waiting)
        gap = max(self.wait_s, self._pass_s / (10 if back else 40))
        while (
            self._open and 0 < len(self._waiting) < self.most_active and (left := begun + most - time.monotonic()) > 0
        ):
            before = len(self._waiting)
            if 0 < back <= before:
                break
            self._wake.wait(left if trusted and before == first else min(left, gap))
            if len(self._waiting) == before and not self._coming():
                break

    def _round(self) -> None:
        """Let new rows in, write one more token of all, do one slice."""
        self._drop()
        arrived = self._admitted()
        labelled = [job for job in arrived if job.by_label]
        for part in self._parts(labelled):
            self._apart(part, self._score)
        for part in self._parts([job for job in arrived if not job.by_label]):
            self._apart(part, self._begin)
        if self._active:
            self._apart(list(self._active), self._advance)
        if self._slow:
            self._slice(self._slow[0])

    def _drop(self) -> None:
        """Whoever does not want an answer any more, or has waited too long, leaves."""
        now = time.monotonic()
        late = TimedOut("the answer was not there within the time a request may take: try again, or ask for less.")
        for queue in (self._waiting, self._slow):
            for job in [job for job in list(queue) if job.cancelled or job.deadline < now]:
                queue.remove(job)
                self._finish(job, late)
        stay = [i for i, job in enumerate(self._active) if not job.cancelled and job.deadline >= now]
        if len(stay) < len(self._active):
            for i in sorted(set(range(len(self._active))) - set(stay)):
                self._finish(self._active[i], late)
            self._only(stay)

    def _only(self, stay: Sequence[int]) -> None:
        """Of the answers under way these alone."""
        self._active = [self._active[i] for i in stay]
        if not stay:
            self._decoding = None
        elif self._decoding is not None:
            self._decoding.keep(stay)

    def _admitted(self) -> list[Job]:
        """Waiting jobs in their order, as many as there is room for; at least one where nothing is under way."""
        if self._few_wait():
            return []
        held = sum(_held(job) for job in self._active)
        taken: list[Job] = []
        while self._waiting and len(self._active) + len(taken) < self.most_active:
            held += _held(self._waiting[0])
            if held > self.active_positions and (self._active or taken):
                break
            taken.append(self._waiting.popleft())
        return taken

    def _parts(self, jobs: list[Job]) -> list[list[Job]]:
        by_row = {id(job.row): job for job in jobs}
        parts = self.engine.parts([job.row for job in jobs if job.row is not None]) if jobs else []
        return [[by_row[id(row)] for row in part] for part in parts]

    def _apart(self, jobs: list[Job], work: Callable[[list[Job]], None]) -> None:
        """Do work on jobs together; where that fails, each job that fails alone gets the error and no other does."""
        try:
            work(jobs)
        except Exception as error:
            if work == self._advance or len(jobs) == 1:
                for job in jobs:
                    self._finish(job, error)
                if work == self._advance:
                    self._active, self._decoding = [], None
                return
            for job in jobs:
                self._apart([job], work)

    def _score(self, jobs: list[Job]) -> None:
        rows = [job.row for job in jobs if job.row is not None]
        with self._timed(len(rows)):
            found: list[Tensor] = self.engine.label_scores(rows)
        self._watch("score", len(rows), sum(row.positions + row.depth for row in rows))
        for job, row, scores in zip(jobs, rows, found, strict=True):
            answer = self.engine.most_probable(row, scores)
            self._finish(job, (answer, scores.tolist()) if job.scores else answer)

    @contextmanager
    def _timed(self, rows: int) -> Iterator[None]:
        """A pass over some rows; few of them tell little of how long one over many takes."""
        begun = time.monotonic()
        yield
        self._pass_s += 0.2 * min(1.0, rows / 16) * (time.monotonic() - begun - self._pass_s)

    def _begin(self, jobs: list[Job]) -> None:
        rows = [job.row for job in jobs if job.row is not None]
        with self._timed(len(rows)):
            decoding = self.engine.begin(rows)
        self._watch("begin", len(rows), sum(row.positions for row in rows))
        stay = self._taken(jobs, decoding.tokens)
        if not stay:
            return
        if len(stay) < len(jobs):
            decoding.keep(stay)
        if self._decoding is None:
            self._decoding = decoding
        else:
            self._decoding.join(decoding)
        self._active += [jobs[i] for i in stay]

    def _advance(self, jobs: list[Job]) -> None:
        assert self._decoding is not None
        self._decoding.advance()
        self._watch("advance", len(jobs), len(jobs))
        stay = self._taken(jobs, self._decoding.tokens)
        if len(stay) < len(jobs):
            self._only(stay)

    def _taken(self, jobs: list[Job], tokens: Sequence[int | None]) -> list[int]:
        """Give each job its newest token; the places of those that go on."""
        stay = []
        for i, (job, token) in enumerate(zip(jobs, tokens, strict=True)):
            assert job.row is not None
            if token is not None:
                job.written.append(token)
            if token is None or len(job.written) >= job.row.depth:
                (text,) = self.engine.backbone.decode([job.written])
                self._finish(job, job.row.answer(text, len(job.written)))
                continue
            stay.append(i)
            if job.piece is not None:
                job.piece(self.engine.backbone.decode([job.written])[0])
        return stay

    def _slice(self, job: Job) -> None:
        assert job.slices is not None
        try:
            next(job.slices)
            self._slow.rotate(-1)
        except StopIteration as end:
            self._slow.remove(job)
            self._finish(job, end.value)
        except Exception as error:
            self._slow.remove(job)
            self._finish(job, error)

    def _finish(self, job: Job, result: Reply | tuple[Reply, list[float]] | BaseException | Any) -> None:
        self._gone, self._answered = self._gone + 1, time.monotonic()
        took = self._answered - job.submitted
        self._per_job_s += 0.02 * (took / max(1, self.waiting + len(self._active)) - self._per_job_s)
        if not job.cancelled:
            job.done(result)


def _held(job: Job) -> int:
    return job.row.positions + job.row.depth if job.row is not None else 0
