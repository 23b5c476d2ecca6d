"""Between the network and the scheduler: prepares requests beside the event loop and waits for their answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from softprompt.errors import SoftpromptError, UnknownNameError, UsageError, printable
from softprompt.inference import schemas as s
from softprompt.inference.catalogue import Catalogue
from softprompt.inference.engine import Engine, Prepared, Reply, Request
from softprompt.inference.guard import Limits, Refused
from softprompt.inference.metrics import Metrics
from softprompt.inference.rank import rank
from softprompt.inference.scheduler import Job, QueueFull, Scheduler, Stopping, TimedOut
from softprompt.tasks.encoded import answer_room

T = TypeVar("T")


class Site:
    """What answers: engine, catalogue, scheduler and the thread that prepares.

    Args:
        engine: answers.
        catalogue: names.
        limits: what a client may ask for.
        wait_ms: see `Scheduler`.
    """

    def __init__(self, engine: Engine, catalogue: Catalogue, *, limits: Limits, wait_ms: float = 1.0) -> None:
        self.engine, self.catalogue, self.limits = engine, catalogue, limits
        self.metrics = Metrics()
        self.scheduler = Scheduler(
            engine, wait_ms=wait_ms, most_waiting=limits.waiting, watch=self.metrics.passed, coming=lambda: self._tasks.qsize(),
        )  # fmt: skip
        self.metrics.follow(self.scheduler)
        self._tasks: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        # A thread of our own: tokenizers must not be used by two threads at once, and no exit waits for it.
        self._preparer = Thread(target=self._prepare, name="softprompt-preparer", daemon=True)

    def start(self) -> None:
        self.scheduler.start()
        self._preparer.start()

    def stop(self) -> None:
        self.scheduler.stop()
        self._tasks.put(None)

    def _prepare(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, work = task
            if future.cancelled():
                continue
            try:
                found = work()
            except BaseException as error:
                found = error
            _tell(future.get_loop(), future, found)

    async def beside(self, work: Callable[[], T]) -> T:
        """Do what takes a moment beside the event loop, one thing at a time."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._tasks.qsize() > self.limits.waiting:
            raise self._full(QueueFull("too many requests wait to be read: try again in a second."))
        self._tasks.put((future, work))
        return await future

    def _full(self, error: QueueFull) -> Refused:
        return Refused(429, "queue_full", str(error), {"Retry-After": str(self.scheduler.retry_after_s())})

    # -- answering --------------------------------------------------------------------------------------------------

    def prepared(self, model: str, inputs: s.Inputs, raw: bool, most: int | None) -> list[Prepared]:
        """Rows of a request; to be called beside the event loop.

        Raises:
            Refused: no such model, or a text is longer than is taken.
        """
        name = self._prompt(model)
        rows: list[Prepared] = []
        for given in inputs if isinstance(inputs, list) else [inputs]:
            letters = len(given) if isinstance(given, str) else len(json.dumps(given))
            if letters > self.limits.text_letters:
                raise Refused(
                    400, "text_too_long",
                    f"a text has {letters:,} letters; at most {self.limits.text_letters:,} are taken: shorten it.",
                )  # fmt: skip
            request = Request(
                prompt=name, text=given, max_new_tokens=answer_room(self.engine.backbone, most), as_is=raw
            )
            row = self.engine.prepare(request, like=rows[0] if rows else None)
            if row.positions + row.depth > self.limits.tokens:
                raise Refused(
                    400, "too_many_tokens",
                    f"prompt, text and answer take {row.positions + row.depth} tokens; at most {self.limits.tokens} are "
                    "taken: shorten the text, or ask for a shorter answer.",
                )  # fmt: skip
            rows.append(row)
        return rows

    def _prompt(self, model: str) -> str | None:
        if self.catalogue.knows(model):
            return model
        if model == self.engine.backbone.name:
            return None
        error = UnknownNameError("model", model, self.catalogue.names(), "GET /v1/models lists them.")
        raise Refused(404, "model_not_found", str(error))

    async def answers(self, rows: Sequence[Prepared], *, scores: bool = False) -> list[Any]:
        """A Reply a row, or (Reply, scores); gives the work up where the caller is cancelled."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in rows]
        deadline = time.monotonic() + self.limits.request_s
        jobs = [
            Job(row=row, scores=scores, deadline=deadline, done=partial(_tell, loop, future))
            for row, future in zip(rows, futures, strict=True)
        ]
        return await self._results(jobs, futures)

    async def ranking(self, asked: s.SearchRequest) -> s.Ranking:
        """`rank`, in slices beside the answers."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        tasks = await self.beside(lambda: {name: m.task for name, m in self.catalogue.manifests().items()})
        slices = rank(
            self.engine, tasks, asked.rows, label=asked.label_column, text=asked.text_columns, top_k=asked.top_k
        )
        deadline = time.monotonic() + self.limits.request_s
        job = Job(slices=slices, deadline=deadline, done=partial(_tell, loop, future))
        (found,) = await self._results([job], [future])
        return found  # type: ignore[no-any-return]

    async def _results(self, jobs: Sequence[Job], futures: Sequence[asyncio.Future[Any]]) -> list[Any]:
        self.submit(jobs)
        try:
            return [await futures[0]] if len(futures) == 1 else list(await asyncio.gather(*futures))
        finally:
            for job in jobs:
                job.cancelled = True

    def submit(self, jobs: Sequence[Job]) -> None:
        try:
            self.scheduler.submit(jobs)
        except QueueFull as error:
            raise self._full(error) from None

    async def pieces(self, row: Prepared) -> AsyncIterator[str | Reply]:
        """What is new of an answer, again and again, and then the Answer."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        tell = partial(_put, loop, queue)
        job = Job(row=row, done=tell, piece=tell, deadline=time.monotonic() + self.limits.request_s)
        self.submit([job])
        told = ""
        try:
            while True:
                found = await queue.get()
                if isinstance(found, BaseException):
                    raise found
                text = found.text if isinstance(found, Reply) else found
                # A sign of several tokens ends in a replacement character until it is whole.
                if (
                    text.startswith(told)
                    and len(text) > len(told)
                    and (not text.endswith("\ufffd") or isinstance(found, Reply))
                ):
                    yield text[len(told) :]
                    told = text
                if isinstance(found, Reply):
                    yield found
                    return
        finally:
            job.cancelled = True

    def chat_text(self, asked: s.ChatRequest) -> tuple[s.Input, bool]:
        """The text of a conversation, and whether it is worded already.

        Raises:
            Refused: the backbone has no chat template, or a prompt was asked more than one turn.
        """
        tokenizer = self.engine.backbone.tokenizer
        if self._prompt(asked.model) is not None and not asked.raw:
            if len(asked.messages) != 1 or asked.messages[0].role != "user":
                raise Refused(
                    400, "not_one_turn",
                    f"prompt {asked.model!r} was tuned on single texts and words them itself: send one user turn, or "
                    '"raw": true with the whole conversation.',
                )  # fmt: skip
            return asked.messages[0].content, False
        if not getattr(tokenizer, "chat_template", None):
            raise Refused(
                400, "no_chat_template", "this backbone's tokenizer has no chat template: use /v1/completions."
            )
        turns = [message.model_dump() for message in asked.messages]
        try:
            text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:
            raise UsageError(f"the chat template cannot word this conversation: {error}") from error
        begin = tokenizer.bos_token
        twice = begin and text.startswith(begin) and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
        return (text.removeprefix(begin) if twice else text), True


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any) -> None:
    def settle() -> None:
        if future.done():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    _soon(loop, settle)


def _put(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Any], found: Any) -> None:
    _soon(loop, lambda: queue.put_nowait(found))


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)


def refused_of(error: BaseException) -> Refused:
    """An error of ours as an answer."""
    message = printable(str(error))
    if isinstance(error, Refused):
        return error
    if isinstance(error, TimedOut):
        return Refused(504, "timeout", message)
    if isinstance(error, Stopping):
        return Refused(503, "stopping", message, {"Retry-After": "5"})
    if isinstance(error, UnknownNameError):
        return Refused(404, "model_not_found", message)
    if isinstance(error, UsageError):
        return Refused(400, "unusable", message)
    if isinstance(error, SoftpromptError):
        return Refused(409, "prompt_unusable", message)
    return Refused(500, "failed", "the server failed on this request; its log says how.")
