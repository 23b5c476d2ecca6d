"""A server on a bad day: 64 clients, a fifth of whose requests are malformed, unknown, cut off or slow, while prompts change.

Every right request must be answered as the engine answers it alone, every wrong one with a sentence of its own, none with a
500; memory stays bounded, a body of 1 GB is not taken, half-open connections are given up, and SIGTERM under load lets the
requests end that are under way.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tests.fault.apart import apart, start
from tests.fault.campaign import Row, Tally

CLIENTS = 64
TEXTS = tuple(
    f"{word} film about the {thing}" for word in ("good", "bad", "great", "poor") for thing in ("cat", "river", "house")
)
MEMORY = 300 << 10  # KB more than after the first requests


def _library(folder: Path) -> tuple[Any, Any]:
    from tests.support.models import tiny_backbone

    from softprompt.library.store import Library

    backbone = tiny_backbone("t5", width=16, layers=1)
    library = Library(folder)
    for name in ("films", "books", "hot"):
        _add(library, backbone, name, 0)
    return backbone, library


def _add(library: Any, backbone: Any, name: str, version: int) -> None:
    from softprompt.library.record import PromptRecord
    from softprompt.tasks.wording import Wording

    wording = Wording(
        task=name, form="template", template="review: {text}", columns=("text",), label_column="label",
        labels=("neg", "pos"), answers=("bad film", "good"), metrics=("accuracy",),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(sum(name.encode()) + 7 * version)
    prompt = torch.randn(4, backbone.hidden_size, generator=generator) * 3
    record = PromptRecord(
        task=name, prompt=prompt, backbone_name=backbone.name, backbone_fingerprint=backbone.fingerprint,
        backbone_kind=backbone.kind, wording=wording.record(), name=name, versions={},
    )  # fmt: skip
    library.add(record, replace=True)


def _app(backbone: Any, library: Any) -> Any:
    from softprompt.inference.catalogue import Catalogue
    from softprompt.inference.engine import Engine
    from softprompt.inference.guard import Limits, hosts_of
    from softprompt.inference.http import make_app

    catalogue = Catalogue(backbone, library)
    limits = Limits(header_s=3.0, body_s=3.0, request_s=60.0)
    engine = Engine(backbone, catalogue.resolve, version=catalogue.version)
    return make_app(engine, catalogue, limits=limits, hosts=hosts_of("127.0.0.1")), limits


def _serve(listener: socket.socket, folder: Path) -> Any:
    from softprompt.inference.connections import server

    torch.set_num_threads(1)
    app, limits = _app(*_library(folder))
    server(app, limits, app.site.metrics.refused).run(sockets=[listener])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _expected(folder: Path) -> Any:
    """Probabilities of the first label, by prompt, version and text, of requests asked alone."""
    from fastapi.testclient import TestClient

    torch.set_num_threads(1)
    backbone, library = _library(folder)
    found: dict[str, list[list[float]]] = {}
    with TestClient(_app(backbone, library)[0], base_url="http://127.0.0.1") as client:
        for name in ("films", "books", "hot"):
            found[name] = []
            for version in (0, 1) if name == "hot" else (0,):
                _add(library, backbone, name, version)
                answers = [client.post("/v1/classify", json={"model": name, "input": text}).json() for text in TEXTS]
                found[name].append([answer["data"][0]["probabilities"]["pos"] for answer in answers])
    return found


class Client:
    """One client over one connection, opened anew where a request ends it."""

    def __init__(self, port: int, expected: Any, tally: Tally) -> None:
        self.port, self.expected, self.tally = port, expected, tally
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.reader is None or self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self.reader, self.writer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def answer(self) -> tuple[int, Any]:
        assert self.reader is not None
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        lengths = [int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length")]
        # What is no HTTP at all is answered in plain text, and the connection closed behind it.
        body = await (self.reader.readexactly(lengths[0]) if lengths else self.reader.read())
        if "connection: close" in head or not lengths:
            self.close()
        return int(head.split()[1]), json.loads(body) if lengths else body.decode()

    @staticmethod
    def request(body: bytes, path: str = "/v1/classify", length: int | None = None) -> bytes:
        size = len(body) if length is None else length
        return (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        ).encode() + body

    async def case(self, number: int) -> None:
        draw = random.Random(number)
        share = draw.random()
        if share < 0.05:
            await self.malformed(draw)
        elif share < 0.10:
            await self.unknown(draw)
        elif share < 0.15:
            await self.cut_off(draw)
        else:
            await self.right(draw, slow=share < 0.20)

    async def right(self, draw: random.Random, *, slow: bool) -> None:
        name, texts = (
            draw.choice(("films", "books", "hot")),
            [draw.randrange(len(TEXTS)) for _ in range(draw.choice((1, 1, 1, 3)))],
        )
        body = json.dumps({"model": name, "input": [TEXTS[t] for t in texts]}).encode()
        _, writer = await self.open()
        data = self.request(body)
        if slow:
            for at in range(0, len(data), 60):
                writer.write(data[at : at + 60])
                await asyncio.sleep(0.02)
        else:
            writer.write(data)
        status, answer = await self.answer()
        if status != 200:
            raise AssertionError(f"a right request was answered {status}: {answer}")
        found = [item["probabilities"]["pos"] for item in answer["data"]]
        known = [[version[t] for t in texts] for version in self.expected[name]]
        if not any(all(abs(f - k) < 2e-4 for f, k in zip(found, row, strict=True)) for row in known):
            raise AssertionError(f"a wrong answer of {name}: {found}, not one of {known}")
        self.tally.counts["right, slow" if slow else "right"] += 1

    async def malformed(self, draw: random.Random) -> None:
        _, writer = await self.open()
        data = draw.choice((
            self.request(b"{"), self.request(b'{"model": 5}'), self.request(b"\xff\xfe"), self.request(b"[" * 5000),
            self.request(b'{"model": "films", "input": []}'), self.request(b'{"model": "films", "input": "\\ud800"}'),
            self.request(b'{"model": "films", "input": {"text": {"a": 1}}}'), self.request(b"{}", "/v1/completions"),
            b"GARBAGE\r\n\r\n", b"POST /v1/classify HTTP/9.9\r\n\r\n", self.request(b"{}").replace(b"application/json", b"text/plain"),
            self.request(b"{}").replace(b"127.0.0.1", b"evil.example"),
        ))  # fmt: skip
        writer.write(data)
        try:
            head = (await asyncio.wait_for(self.answer(), 60))[0]
        except (asyncio.IncompleteReadError, ConnectionError):
            head = 400  # closed
            self.close()
        if not 400 <= head < 500:
            raise AssertionError(f"a malformed request was answered {head}: {data[-60:]!r}")
        self.tally.counts["malformed, refused"] += 1

    async def unknown(self, draw: random.Random) -> None:
        _, writer = await self.open()
        name = draw.choice(("nobody", "../films", "films\x00", "\u202e", "x" * 3000, ""))
        path = draw.choice(("/v1/classify", "/v1/nothing", "/v1/../films"))
        writer.write(self.request(json.dumps({"model": name, "input": "a"}).encode(), path))
        status, _ = await self.answer()
        if not 400 <= status < 500:
            raise AssertionError(f"unknown {name!r} at {path} was answered {status}")
        self.tally.counts["unknown, refused"] += 1

    async def cut_off(self, draw: random.Random) -> None:
        _, writer = await self.open()
        data = self.request(json.dumps({"model": "films", "input": list(TEXTS)}).encode())
        writer.write(data[: draw.randrange(1, len(data) + 1)])
        await writer.drain()
        await asyncio.sleep(draw.random() * 0.01)
        self.close()
        self.tally.counts["cut off"] += 1


async def _load(port: int, cases: Sequence[int], expected: Any, tally: Tally) -> None:
    queue = list(cases)[::-1]

    async def client() -> None:
        one = Client(port, expected, tally)
        while queue:
            case = queue.pop()
            try:
                await asyncio.wait_for(one.case(case), 120)
            except TimeoutError:
                tally.failures.append(f"case {case}: no answer in 120 s")
                one.close()
            except (AssertionError, OSError, asyncio.IncompleteReadError, ValueError) as error:
                tally.failures.append(f"case {case}: {type(error).__name__}: {error}")
                one.close()
        one.close()

    await asyncio.gather(*(client() for _ in range(min(CLIENTS, len(cases)))))


async def _heavy(port: int, tally: Tally) -> None:
    """A body of 1 GB, told and untold, and connections that say nothing or stop in the middle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(Client.request(b"", length=1 << 30))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)
    if b"413" not in head:
        tally.failures.append(f"1 GB was answered {head!r}")
    writer.transport.abort()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    sent, head = 0, b""
    try:
        while sent < 1 << 30:
            writer.write(b"10000\r\n" + b"a" * 65536 + b"\r\n")
            sent += 65536
            await writer.drain()
            if reader._buffer:  # type: ignore[attr-defined]
                break
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)
    except (ConnectionError, asyncio.IncompleteReadError):
        head = head or b"413 (hung up)"
    if b"413" not in head or sent > 64 << 20:
        tally.failures.append(f"an endless body was answered {head!r} after {sent:,} bytes")
    writer.transport.abort()
    tally.counts["bodies of 1 GB refused"] += 2
    for said in (b"", b"POST /v1/cl", Client.request(b'{"model"', length=100)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        try:
            await asyncio.wait_for(reader.read(), 30)
            tally.counts["half-open connections given up"] += 1
        except TimeoutError:
            tally.failures.append(f"a connection that stopped after {len(said)} bytes was held for 30 s")
        writer.transport.abort()


def _rss(pid: int) -> int:
    return next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )


async def _day(port: int, pid: int, folder: Path, cases: Sequence[int], expected: Any, tally: Tally) -> None:
    """The load, with a prompt that is replaced all along, and at the end SIGTERM under load."""
    from tests.support.models import tiny_backbone

    from softprompt.library.store import Library

    first = max(1, len(cases) // 10)
    await _load(port, cases[:first], expected, tally)
    before, stop = _rss(pid), False
    backbone, library = tiny_backbone("t5", width=16, layers=1), Library(folder)

    async def reload() -> None:
        version = 0
        while not stop:
            version = 1 - version
            _add(library, backbone, "hot", version)
            tally.counts["prompts replaced meanwhile"] += 1
            await asyncio.sleep(0.2)

    async def everything() -> None:
        nonlocal stop
        await asyncio.gather(
            _load(port, cases[first:], expected, tally), *([_heavy(port, tally)] if len(cases) >= 1000 else [])
        )
        stop = True

    await asyncio.gather(everything(), reload())
    if (grown := _rss(pid) - before) > MEMORY:
        tally.failures.append(f"cases {cases[0]} to {cases[-1]}: the server grew by {grown >> 10} MB")
    last = Tally()
    under_load = asyncio.ensure_future(_load(port, range(10**9, 10**9 + 200), expected, last))
    await asyncio.sleep(0.2)
    os.kill(pid, signal.SIGTERM)
    await under_load
    wrong = [f for f in last.failures if "wrong answer" in f or " 500" in f or "no answer" in f]
    tally.failures += [f"at SIGTERM: {f}" for f in wrong]


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: a request, drawn from i; the cases share one server and 64 clients."""
    tally = Tally()
    ended = apart(_expected, folder / "expected", seconds=120)
    assert ended.value is not None, ended.error
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    end, pid = start(_serve, listener, folder / "library")
    port = listener.getsockname()[1]
    listener.close()
    try:
        asyncio.run(_day(port, pid, folder / "library", list(cases), ended.value, tally))
        deadline = time.monotonic() + 30
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if time.monotonic() >= deadline:
            tally.failures.append("the server had not ended 30 s after SIGTERM")
            os.kill(pid, signal.SIGKILL)
        else:
            tally.counts["stops under load"] += 1
    finally:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(end, "rb") as pipe:
            if b"Traceback" in (told := pipe.read()):
                tally.failures.append(told.decode()[-800:])
        os.waitpid(pid, 0)
    return tally


ROW = Row(
    name="server", promise="A server on a bad day answers right, and stays up",
    tried="requests of 64 clients, 5 % each malformed, unknown, cut off and slow; hot reload, 1 GB bodies, half-open clients, SIGTERM",
    cases=640_000, short=range(250), piece=20_000, run=run,
)  # fmt: skip
