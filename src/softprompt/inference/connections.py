"""Connections of the server: how many, how long a request's head may take and be, and what is no HTTP. Needs uvicorn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from softprompt.inference.guard import App, Limits, Refused, heads_of

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Base
else:
    _Base = object  # uvicorn's class comes behind, where it is loaded

HEAD_BYTES = 64 * 1024
"""Of a request's line and headers together."""
_BUSY = Refused(503, "busy", "too many connections are open: try again.", {"Retry-After": "1"})
_NOT_HTTP = Refused(400, "not_http", "this is no HTTP request: see /docs.")
_LONG_HEAD = Refused(431, "head_too_large", f"the request's line and headers have more than {HEAD_BYTES:,} bytes.")


def server(app: App, limits: Limits, refused: Callable[[str], None] = lambda code: None, **more: Any) -> Any:
    """A `uvicorn.Server` with a time and a size for a request's head and a number of connections.

    It sets up no logging, which would close every handler of the process, with the streams other packages write to.

    Args:
        app: what answers.
        limits: see there.
        refused: told the code of each connection that is refused: ``busy``, ``head_timeout``, ``head_too_large``, ``not_http``.
        more: further settings of `uvicorn.Config`.
    """
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    guarded = type("Guarded", (_Guarded, HttpToolsProtocol), {"limits": limits, "refused": staticmethod(refused)})
    config = uvicorn.Config(
        app, http=guarded, log_level="critical", log_config=None, ws="none", access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=max(1, round(limits.drain_s)), **more,
    )  # fmt: skip
    return uvicorn.Server(config)


class _Guarded(_Base):
    limits: Limits
    refused: Callable[[str], None]
    _head: asyncio.TimerHandle | None = None
    _head_begun = False
    _head_bytes = 0
    _wrong = _NOT_HTTP

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._turn_away(_BUSY)
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._head_begun else 0
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._turn_away(_LONG_HEAD)
        if self.cycle is None or self.cycle.response_complete:  # no request is under way: its head must come
            self._arm()
        else:
            self._disarm()

    def on_message_begin(self) -> None:
        self._head_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_begun = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._wrong = _LONG_HEAD
            raise ValueError("the head is too long")  # the parser stops, and calls send_400_response
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._turn_away(self._wrong)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _turn_away(self, found: Refused) -> None:
        """Answer before any request is known, and close the connection."""
        self.refused(found.code)
        body = json.dumps(found.body).encode()
        lines = [f"HTTP/1.1 {found.status} {HTTPStatus(found.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in heads_of(found, body).items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()

    def _arm(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.limits.header_s, self._late)

    def _late(self) -> None:
        self.refused("head_timeout")
        self.transport.abort()

    def _disarm(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
