"""What stands between the network and the application: sizes, times, hosts and the token, all before anything is parsed.

One bad client costs one connection and no more: a head, a body or an answer that does not move on is given up after a
stated time, a body is refused by its size before it is read whole, and whoever hangs up has the work on its request ended.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/health/live", "/health/ready")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask for.

    Attributes:
        body_bytes: of a request's body.
        text_letters: of one text.
        tokens: of one row: prompt, text and answer.
        waiting: requests that may wait.
        connections: open at once.
        header_s: until a request's head has arrived, seconds.
        body_s: until its body has, seconds.
        request_s: until its answer is there, seconds.
        drain_s: how long requests under way may take when the server is stopped, seconds.
    """

    body_bytes: int = 1 << 20
    text_letters: int = 100_000
    tokens: int = 4096
    waiting: int = 1024
    connections: int = 512
    header_s: float = 10.0
    body_s: float = 15.0
    request_s: float = 60.0
    drain_s: float = 10.0


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        code: what kind of refusal, for programs.
        message: one or two sentences, for people.
        headers: further ones.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """As `schemas.Error`."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "code": self.code, "param": None}}


class Guard:
    """Middleware around an application.

    Args:
        app: what is guarded.
        limits: see there.
        token: asked for as ``Authorization: Bearer TOKEN``, but for the page and health; None for none.
        hosts: names a request may call the server by; None for any.
        refused: told the code of each request that is refused here, so before the application knows of it.
    """

    def __init__(
        self, app: App, *, limits: Limits, token: str | None = None, hosts: frozenset[str] | None = None,
        refused: Callable[[str], None] = lambda code: None,
    ) -> None:  # fmt: skip
        self._app, self._limits, self._hosts, self._refused = app, limits, hosts, refused
        self._token = token.encode() if token is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            self._admit(scope)
            body = await self._body(scope, receive)
            async with asyncio.timeout(self._limits.request_s + self._limits.body_s):
                await self._watched(scope, body, receive, watched)
        except Refused as refused:
            await self._refuse(send, refused)
        except TimeoutError:
            if begun:
                raise ConnectionError("the client did not read its answer in time") from None
            late = Refused(504, "timeout", "the answer was not there in time: try again, or ask for less.")
            await self._refuse(send, late)

    async def _refuse(self, send: Send, refused: Refused) -> None:
        self._refused(refused.code)
        await _send(send, refused)

    def _admit(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._hosts is not None and host_name(headers.get(b"host", b"").decode("latin-1")) not in self._hosts:
            raise Refused(
                421,
                "unknown_host",
                "the request names a host this server does not go by: start it with --allow-host NAME.",
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.split(b"://")[-1] != headers.get(b"host", b""):
            raise Refused(403, "foreign_origin", "pages of other sites may not ask this server.")
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise Refused(
                    401, "unauthorized", "this server asks for a token: send the header 'Authorization: Bearer TOKEN'.",
                    {"WWW-Authenticate": "Bearer"},
                )  # fmt: skip
        if scope["method"] == "POST" and not headers.get(b"content-type", b"").startswith(b"application/json"):
            raise Refused(415, "not_json", "the body must be JSON: send the header 'Content-Type: application/json'.")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, refused as soon as it is known to be too large."""
        most = self._limits.body_bytes
        large = Refused(413, "body_too_large", f"the body has more than {most:,} bytes: send fewer or shorter texts.")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            raise large
        parts, held = [], 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(408, "cut_off", "the client left before its request had arrived.")
                    parts.append(message.get("body", b""))
                    held += len(parts[-1])
                    if held > most:
                        raise large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(
                408, "body_timeout", f"the body had not arrived after {self._limits.body_s:g} s: send it again."
            ) from None

    async def _watched(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """The application, ended when the client hangs up."""
        gone = asyncio.Event()
        given = False

        async def once() -> Any:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        here, left, ended = asyncio.current_task(), False, False
        assert here is not None

        def leave(watching: asyncio.Future[None]) -> None:
            nonlocal left
            if ended or watching.cancelled():
                return
            watching.exception()  # whatever ended it, nobody reads an answer
            left = True
            gone.set()
            here.cancel()

        leaving = asyncio.ensure_future(_until_gone(receive))
        leaving.add_done_callback(leave)
        try:
            await self._app(scope, once, send)
        except (asyncio.CancelledError, Exception):
            if not left:
                raise
        finally:
            ended = True
            gone.set()
            leaving.cancel()
            if left:
                here.uncancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, refused: Refused) -> None:
    body = json.dumps(refused.body).encode()
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in heads_of(refused, body).items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def heads_of(refused: Refused, body: bytes) -> dict[str, str]:
    """The headers of an answer that refuses, and closes its connection."""
    length = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    return {**length, **refused.headers}


def host_name(host: str) -> str:
    """A Host header without its port, in small letters."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.rsplit(":", 1)[0] if ":" in host else host


def hosts_of(address: str, allowed: tuple[str, ...] = ()) -> frozenset[str] | None:
    """The names a server at this address may be called by; None for any (it listens to the network and names were not given)."""
    if is_loopback(address):
        return frozenset({"localhost", "127.0.0.1", "[::1]", host_name(address), *map(host_name, allowed)})
    return frozenset(map(host_name, allowed)) or None


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
