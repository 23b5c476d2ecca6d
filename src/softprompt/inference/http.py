"""A thin HTTP server over the engine: requests that arrive together are answered in one batch.

POST /v1/predict   {"prompt": "sst2@1", "inputs": ["..."], "max_new_tokens": 16} -> {"outputs": [...], "labels": [...]}
                   inputs are texts, or objects of the columns the prompt reads; "as_is": true for texts worded already
GET  /v1/prompts   names of the prompts that can be asked for
GET  /healthz      the backbone and its fingerprint
GET  /metrics      Prometheus text
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from softprompt.errors import SoftpromptError, UsageError
from softprompt.inference.engine import Answer, Engine, Request

MOST_INPUTS = 1024


class Batcher:
    """Collects requests for a moment and answers them together, one batch at a time, off the event loop.

    Args:
        engine: answers.
        wait_ms: how long the first request of a batch waits for others, milliseconds.
        most: requests in one batch.
    """

    def __init__(self, engine: Engine, *, wait_ms: float = 5.0, most: int = 256) -> None:
        self.engine = engine
        self.wait_s = wait_ms / 1000.0
        self.most = most
        self.batches = 0
        self.answered = 0
        self._queue: asyncio.Queue[tuple[Request, asyncio.Future[Answer]]] = asyncio.Queue()

    async def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in order; the same refusals as ``Engine.check``."""
        futures = []
        for request in requests:
            self.engine.check(request)
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            await self._queue.put((request, future))
            futures.append(future)
        return list(await asyncio.gather(*futures))

    async def run(self) -> None:
        """Answers for ever; one task of the server."""
        while True:
            waiting = [await self._queue.get()]
            await asyncio.sleep(self.wait_s)
            while len(waiting) < self.most and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            try:
                answers = await asyncio.to_thread(self.engine.answer, [request for request, _ in waiting])
            except Exception as error:
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(error)
                continue
            self.batches += 1
            self.answered += len(answers)
            for (_, future), answer in zip(waiting, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def make_app(engine: Engine, names: Callable[[], Sequence[str]], *, wait_ms: float = 5.0) -> Any:
    """A FastAPI application.

    Args:
        engine: answers.
        names: lists the prompts that can be asked for.
        wait_ms: see ``Batcher``.
    """
    from fastapi import Body, FastAPI
    from fastapi.responses import JSONResponse, PlainTextResponse

    batcher = Batcher(engine, wait_ms=wait_ms)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    app = FastAPI(title="softprompt", lifespan=lifespan)

    @app.exception_handler(SoftpromptError)
    async def refused(_: Any, error: SoftpromptError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400 if isinstance(error, UsageError) else 409)

    @app.post("/v1/predict")
    async def predict(body: dict[str, Any] = Body(...)) -> dict[str, Any]:  # noqa: B008
        answers = await batcher.answer(requests_of(body))
        return {
            "outputs": [a.text for a in answers],
            "labels": [a.label for a in answers],
            "prompt": body.get("prompt"),
            "tokens": [a.tokens for a in answers],
        }

    @app.get("/v1/prompts")
    async def prompts() -> dict[str, Any]:
        return {"prompts": list(names())}

    @app.get("/healthz")
    async def health() -> dict[str, Any]:
        return {"backbone": engine.backbone.name, "fingerprint": engine.backbone.fingerprint}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(
            "# TYPE softprompt_answers_total counter\n"
            f"softprompt_answers_total {batcher.answered}\n"
            "# TYPE softprompt_batches_total counter\n"
            f"softprompt_batches_total {batcher.batches}\n"
        )

    return app


def requests_of(body: dict[str, Any]) -> list[Request]:
    """The requests of a JSON body.

    Raises:
        UsageError: a field is missing, unknown or of the wrong kind.
    """
    unknown = sorted(set(body) - {"prompt", "inputs", "max_new_tokens", "as_is"})
    if unknown:
        raise UsageError(f"unknown field {unknown[0]!r}: give prompt, inputs, max_new_tokens and as_is.")
    inputs, prompt, most = body.get("inputs"), body.get("prompt"), body.get("max_new_tokens", 64)
    if not isinstance(inputs, list) or not inputs or not all(isinstance(text, str | dict) for text in inputs):
        raise UsageError("inputs must be a list of at least one text, or of objects with the prompt's columns.")
    if len(inputs) > MOST_INPUTS:
        raise UsageError(
            f"{len(inputs)} inputs were given, at most {MOST_INPUTS} are taken at once: split the request."
        )
    if prompt is not None and not isinstance(prompt, str):
        raise UsageError("prompt must be the name of a prompt, or null for the bare backbone.")
    if not isinstance(most, int) or isinstance(most, bool):
        raise UsageError("max_new_tokens must be a whole number.")
    as_is = body.get("as_is", False)
    if not isinstance(as_is, bool):
        raise UsageError("as_is must be true or false.")
    return [Request(prompt=prompt, text=text, max_new_tokens=most, as_is=as_is) for text in inputs]
