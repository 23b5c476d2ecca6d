"""The HTTP server over the engine: OpenAI's shape, a model a prompt. docs/http.md is the page for who asks it.

A request's life: `guard.Guard` admits it and reads its body; pydantic reads the body; one thread looks its prompt up, words
and tokenises its texts; the scheduler's thread answers; the answer goes back through the event loop, which itself does
nothing that takes long.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from softprompt.errors import SoftpromptError, printable
from softprompt.inference import schemas as s
from softprompt.inference.catalogue import Catalogue
from softprompt.inference.engine import Engine, Prepared, Reply
from softprompt.inference.guard import App, Guard, Limits, Receive, Refused, Scope, Send
from softprompt.inference.site import Site, refused_of

Answerer = Callable[[Any], Awaitable[Any]]
Failed = Callable[[Any, Any], Awaitable[Any]]

PAGE = Path(__file__).parent / "explorer.html"


def used(rows: Sequence[Prepared], answers: Sequence[Reply]) -> s.Usage:
    """Tokens of some answers; of scored labels the chosen one's."""
    given = sum(row.positions for row in rows)
    written = sum(_written(row, answer) for row, answer in zip(rows, answers, strict=True))
    return s.Usage(prompt_tokens=given, completion_tokens=written, total_tokens=given + written)


def _written(row: Prepared, answer: Reply) -> int:
    if row.scored and row.served is not None:
        return len(row.served.candidates[list(row.served.texts).index(answer.text)])
    return answer.tokens - row.positions


def _reason(row: Prepared, answer: Reply) -> Any:
    closed = row.served is not None and bool(row.served.candidates)
    return "stop" if closed or answer.tokens - row.positions < row.depth else "length"


def _choice(row: Prepared, answer: Reply, index: int) -> s.CompletionChoice:
    return s.CompletionChoice(index=index, text=answer.text, label=answer.label, finish_reason=_reason(row, answer))


def make_app(
    engine: Engine,
    catalogue: Catalogue,
    *,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    wait_ms: float = 1.0,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
) -> Application:
    """The ASGI application, guarded.

    Args:
        engine: answers; its ``version`` should be the catalogue's.
        catalogue: what can be asked for.
        limits: what a client may ask for.
        wait_ms: see `Scheduler`.
        token: see `Guard`.
        hosts: see `Guard`.
    """
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    site = Site(engine, catalogue, limits=limits, wait_ms=wait_ms)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        site.start()
        yield
        site.stop()

    app = FastAPI(title="softprompt", summary="Soft prompts of many tasks on one frozen model.", lifespan=lifespan)

    async def failed(asked: Any, error: Any) -> Any:
        found = _refused(asked, error)
        site.metrics.refused(found.code)
        return JSONResponse(found.body, status_code=found.status, headers=found.headers)

    for kind in (SoftpromptError, Refused, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, failed)
    direct = Direct(app, answers=_add_answers(app, site), failed=failed)
    _add_rest(app, site)
    guard = Guard(direct, limits=limits, token=token, hosts=hosts, refused=site.metrics.refused)
    return Application(site=site, api=app, guard=guard)


@dataclass(frozen=True, kw_only=True, eq=False)
class Application:
    """What a server runs, as ASGI.

    Attributes:
        site: answers.
        api: FastAPI's application, which describes all paths; not guarded.
        guard: what stands before it.
    """

    site: Site
    api: Any
    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.guard(scope, receive, send)


class Direct:
    """The paths that answer texts, without the way through FastAPI, which takes most of a request's time and describes them.

    Args:
        app: FastAPI's application, for all else.
        answers: by path, the schema of a body and what answers it with a response.
        failed: gives the response to a request and an error.
    """

    def __init__(self, app: App, *, answers: Mapping[str, tuple[Any, Answerer]], failed: Failed) -> None:
        self._app, self._answers, self._failed = app, answers, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._answers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        schema, answer = found
        try:
            response = await answer(_read(schema, (await receive())["body"]))
        except (SoftpromptError, Refused) as error:
            response = await self._failed(None, error)
        except Exception as error:
            await (await self._failed(None, error))(scope, receive, send)
            raise  # for the log
        await response(scope, receive, send)


def _read(schema: Any, body: bytes) -> Any:
    """A body by its schema; what is wrong with it is the client's error, and nothing else is."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def _refused(asked: Any, error: Any) -> Refused:
    """What went wrong with a request, as an answer."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    if isinstance(error, RequestValidationError):
        return invalid(error)
    if isinstance(error, HTTPException):
        code = "no_such_path" if error.status_code == 404 else "wrong_method"
        place = printable(f"{asked.method} {asked.url.path}")
        return Refused(error.status_code, code, f"there is no {place}: see /docs.", dict(error.headers or {}))
    return refused_of(error)


def invalid(error: Any) -> Refused:
    """What pydantic found wrong with a body, in one sentence."""
    told = []
    for one in error.errors()[:3]:
        place = ".".join(str(part) for part in one["loc"] if part != "body") or "the body"
        told.append(f"{place!r}: {one['msg']}")
    return Refused(400, "invalid", printable(f"the request cannot be read ({'; '.join(told)}): see /docs."))


def _add_answers(app: Any, site: Site) -> dict[str, tuple[Any, Answerer]]:
    """The paths that answer texts, described to FastAPI; for `Direct`."""

    async def completions(asked: s.CompletionRequest) -> Any:
        rows = await site.beside(lambda: site.prepared(asked.model, asked.prompt, asked.raw, asked.max_tokens))
        head: dict[str, Any] = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
        if asked.stream:
            return _events(site, asked.model, _streamed(site, rows, head))
        with site.metrics.timed(asked.model, len(rows)) as record:
            answers = record(await site.answers(rows))
        choices = [_choice(row, a, i) for i, (row, a) in enumerate(zip(rows, answers, strict=True))]
        return _json(s.Completion(**head, choices=choices, usage=used(rows, answers)))

    async def chat(asked: s.ChatRequest) -> Any:
        def prepare() -> list[Prepared]:
            text, worded = site.chat_text(asked)
            return site.prepared(asked.model, text, worded, asked.max_completion_tokens or asked.max_tokens)

        rows = await site.beside(prepare)
        head: dict[str, Any] = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
        if asked.stream:
            return _events(site, asked.model, _streamed(site, rows, head, chat=True))
        with site.metrics.timed(asked.model, 1) as record:
            (answer,) = record(await site.answers(rows))
        message = s.Message(role="assistant", content=answer.text)
        choice = s.ChatChoice(message=message, finish_reason=_reason(rows[0], answer), label=answer.label)
        return _json(s.ChatCompletion(**head, choices=[choice], usage=used(rows, [answer])))

    async def classify(asked: s.ClassifyRequest) -> Any:
        rows = await site.beside(lambda: _to_score(site, asked))
        with site.metrics.timed(asked.model, len(rows)) as record:
            found = await site.answers(rows, scores=True)
            record([answer for answer, _ in found])
        labels = rows[0].served.labels if rows[0].served is not None else ()
        data = [_classified(i, labels or (), scores) for i, (_, scores) in enumerate(found)]
        given = sum(row.positions for row in rows)
        usage = s.Usage(prompt_tokens=given, completion_tokens=0, total_tokens=given)
        return _json(s.Classification(model=asked.model, data=data, usage=usage))

    async def search(asked: s.SearchRequest) -> Any:
        return _json(await site.ranking(asked))

    ways: dict[str, tuple[Any, Answerer, Any, str]] = {
        "/v1/completions": (s.CompletionRequest, completions, s.Completion, "Answer texts"),
        "/v1/chat/completions": (s.ChatRequest, chat, s.ChatCompletion, "Answer a conversation"),
        "/v1/classify": (s.ClassifyRequest, classify, s.Classification, "How probable each label is"),
        "/v1/search": (s.SearchRequest, search, s.Ranking, "Which prompt suits these labelled rows"),
    }
    add = partial(app.add_api_route, methods=["POST"], responses=s.ERRORS)
    for path, (_, answer, found, summary) in ways.items():
        add(path, answer, response_model=found, summary=summary)
    return {path: (asked, answer) for path, (asked, answer, _, _) in ways.items()}


def _to_score(site: Site, asked: s.ClassifyRequest) -> list[Prepared]:
    """The rows of a request for probabilities, with room for all labels."""
    rows = site.prepared(asked.model, asked.input, asked.raw, None)
    if rows[0].served is None or not rows[0].served.candidates:
        raise Refused(400, "no_labels", f"model {asked.model!r} has no labels: use /v1/completions.")
    depth = sum(map(len, rows[0].served.candidates))
    rows = [replace(row, depth=depth) for row in rows]
    for row in rows:
        site.engine.check_fits(row)
    return rows


def _classified(index: int, labels: Sequence[str], scores: Sequence[float]) -> s.Classified:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    shares = {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}
    return s.Classified(index=index, label=labels[list(scores).index(top)], probabilities=shares)


def _add_rest(app: Any, site: Site) -> None:
    """Listings, health, metrics and the page."""
    from fastapi.responses import HTMLResponse, JSONResponse, Response

    async def models() -> Any:
        return _json(await site.beside(site.catalogue.models))

    async def explorer() -> Any:
        return _json(await site.beside(site.catalogue.explorer))

    def health(ready: bool) -> Any:
        backbone = site.engine.backbone
        status = "ok" if ready else "stopping"
        found = s.Health(status=status, backbone=backbone.name, fingerprint=backbone.fingerprint)  # type: ignore[arg-type]
        return JSONResponse(found.model_dump(), status_code=200 if ready else 503)

    async def live() -> Any:
        return health(True)

    async def ready() -> Any:
        return health(site.scheduler.alive)

    async def metrics() -> Any:
        text, kind = site.metrics.text()
        return Response(text, media_type=kind)

    async def page() -> Any:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=PAGE_HEADERS)

    add = partial(app.add_api_route, methods=["GET"])
    add("/v1/models", models, response_model=s.Models, summary="Prompts that can be asked for now")
    add("/v1/explorer", explorer, response_model=s.Explorer, summary="What the page at / draws")
    add("/health/live", live, response_model=s.Health, summary="Whether the process lives")
    add("/health/ready", ready, response_model=s.Health, summary="Whether it takes requests")
    add("/metrics", metrics, response_class=Response, summary="Prometheus text")
    add("/", page, include_in_schema=False)


PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _json(found: Any) -> Any:
    from fastapi.responses import Response

    return Response(found.model_dump_json(), media_type="application/json")


def _events(site: Site, model: str, parts: AsyncIterator[dict[str, Any]]) -> Any:
    """Server-sent events: what comes, an error where one comes, and [DONE]."""
    from fastapi.responses import StreamingResponse

    async def lines() -> AsyncIterator[str]:
        try:
            with site.metrics.timed(model, 1) as record:
                async for part in parts:
                    yield f"data: {json.dumps(part)}\n\n"
                record([])
        except (SoftpromptError, Refused) as error:
            yield f"data: {json.dumps(refused_of(error).body)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _streamed(
    site: Site, rows: Sequence[Prepared], head: dict[str, Any], *, chat: bool = False
) -> AsyncIterator[dict[str, Any]]:
    """The answers of all rows as they are written."""
    kind = "chat.completion.chunk" if chat else "text_completion"
    for index, row in enumerate(rows):
        async for found in site.pieces(row):
            text, reason, label = (
                (found, None, None) if isinstance(found, str) else ("", _reason(row, found), found.label)
            )
            choice: dict[str, Any] = {"index": index, "finish_reason": reason, "label": label}
            choice |= {"delta": {"role": "assistant", "content": text} if text else {}} if chat else {"text": text}
            yield {**head, "object": kind, "choices": [choice]}
