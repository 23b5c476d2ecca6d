"""``softprompt serve`` as a process: it answers, bad clients stop nobody, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.support.cli import call
from tests.support.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.inference.connections import server as server_of
from softprompt.inference.guard import Limits
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone, and a run folder whose library has two prompts for it."""
    root = tmp_path_factory.mktemp("serve")
    save_tiny("t5", root / "t5", width=16, layers=1)
    backbone = load_backbone(str(root / "t5"), dtype="float32")
    for seed in (1, 2):
        record = PromptRecord(
            task="films", prompt=torch.randn(3, 16), backbone_name="t5", backbone_fingerprint=backbone.fingerprint,
            backbone_kind="t5", seed=seed,
        )  # fmt: skip
        Library(root / "run" / "library").add(record)
    (root / "run" / "run.json").write_text("{}")
    (root / "run" / "results").mkdir()
    curve = [{"step": 5, "score": 60.0, "loss": 1.0}, {"step": 9, "score": 71.5, "loss": 0.5}]
    (root / "run" / "results" / "films-1.json").write_text(json.dumps({"name": "films-1", "curve": curve}))
    return root


@contextmanager
def server(place: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [
        sys.executable,
        "-m",
        "softprompt",
        "serve",
        "--library",
        "run",
        "--backbone",
        "t5",
        "--dtype",
        "float32",
    ]
    process = subprocess.Popen(
        [*command, "--port", "0", *options], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = line = ""
        for line in process.stderr:
            if found := re.search(r"2 prompt\(s\) of run/library at (http://\S+);", line):
                address = found[1]
            if "prompt(s) of" in line:
                break
        assert address, line
        yield process, address
    finally:
        process.kill()
        process.communicate()


def ask(address: str, path: str = "/v1/completions", **body: object) -> dict[str, object]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address + path, data=json.dumps(body).encode() if body else None, headers=headers)
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)  # type: ignore[no-any-return]


def connected(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


@pytest.mark.slow
def test_bad_clients_stop_nobody_and_not_the_end(place: Path) -> None:
    with server(place, "--drain", "2", "--max-body-kb", "64") as (process, address):
        assert process.stderr is not None
        line = process.stderr.readline()
        assert f"curl {address}/v1/completions" in line
        assert '"model": "films@1"' in line
        half_body, half_head, silent = (connected(address) for _ in range(3))
        half_body.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        half_head.sendall(b"GET /v1/models HT")
        with connected(address) as huge:
            huge.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 20000000\r\n\r\n"
            )
            assert huge.recv(100).startswith(b"HTTP/1.1 413")
        with connected(address) as broken:
            broken.sendall(b"\x00\x01nonsense\r\n\r\n")
            assert broken.recv(100).startswith(b"HTTP/1.1 400")
        answers = ask(address, model="films@1", prompt=["good film", "bad film"], max_tokens=3)["choices"]
        assert len(answers) == 2  # type: ignore[arg-type]
        points = ask(address, "/v1/explorer")["prompts"]
        assert points[0]["curve"] == [[5, 60.0], [9, 71.5]]  # type: ignore[index]
        with urllib.request.urlopen(address + "/metrics", timeout=60) as reply:
            told = reply.read().decode()
        for code in ("body_too_large", "not_http"):
            assert f'softprompt_refused_total{{code="{code}"}} 1.0' in told
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert time.monotonic() - begun < 30  # two seconds to drain, and a crowded machine
        assert process.returncode in (0, -signal.SIGTERM), err
        assert "Traceback" not in err
        for client in (half_body, half_head, silent):
            client.close()


async def with_protocol(limits: Limits, tried: Callable[[int, list[str]], Awaitable[None]]) -> None:
    """Run something against a server that answers nothing, given its port and the codes of what it refused."""

    async def app(scope: object, receive: object, send: Callable[[object], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    codes: list[str] = []
    running = server_of(app, limits, codes.append, port=0, lifespan="off")
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    await tried(running.servers[0].sockets[0].getsockname()[1], codes)
    running.should_exit = True
    await task


def test_a_head_that_does_not_come_is_given_up() -> None:
    async def tried(port: int, codes: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTT")
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        refused = await asyncio.wait_for(others[1][0].read(), 20)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 20)
        for one in (writer, *(w for _, w in others)):
            one.close()
        assert refused.startswith(b"HTTP/1.1 503")
        assert codes[:2] == ["busy", "head_timeout"]  # and the silent one's, where it is that late

    asyncio.run(with_protocol(Limits(header_s=0.3, connections=2), tried))


def test_a_second_head_must_come_in_time_too() -> None:
    async def tried(port: int, codes: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        for piece in (b"\r\n", b"GE", b"T"):  # each one says that the client lives
            writer.write(piece)
            await asyncio.sleep(0.02)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 20)
        writer.close()
        assert codes == ["head_timeout"]

    asyncio.run(with_protocol(Limits(header_s=0.3), tried))


@pytest.mark.parametrize(
    "line", [b"GET /" + b"a" * 2000, b"GET / HTTP/1.1\r\nX: " + b"a" * 2000, b"GET / HTTP/1.1\r\nX: a\r\n"]
)
def test_a_head_without_end_is_refused(line: bytes) -> None:
    async def tried(port: int, codes: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(line)
        for _ in range(100):
            if writer.is_closing() or codes:
                break
            writer.write(b"b: c\r\n" * 200 if line.endswith(b"\n") else b"b" * 1200)
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 431")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "head_too_large"
        assert codes == ["head_too_large"]

    asyncio.run(with_protocol(Limits(), tried))


def test_a_long_head_that_comes_at_once_is_refused_too() -> None:
    async def tried(port: int, codes: list[str]) -> None:
        for head in (b"GET /%s HTTP/1.1" % (b"a" * 70_000), b"GET / HTTP/1.1\r\nX: %s" % (b"a" * 70_000)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + b"\r\nHost: a\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 431")
            writer.close()
        assert codes == ["head_too_large"] * 2

    asyncio.run(with_protocol(Limits(), tried))


def test_what_is_no_http_is_told_so_in_json() -> None:
    async def tried(port: int, codes: list[str]) -> None:
        for sent in (
            b"GARBAGE\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 400"), sent
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "not_http"
        assert codes == ["not_http"] * 3

    asyncio.run(with_protocol(Limits(), tried))


def test_a_taken_port_is_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = call(capsys, "serve", "--library", "run", "--backbone", "t5", "--port", port)
    assert code == 2
    assert port in err
    assert "--port" in err


def test_an_empty_token_file_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "token").write_text("\n")
    code, _, err = call(capsys, "serve", "--library", "run", "--backbone", "t5", "--token-file", "token")
    assert code == 2
    assert "holds no token" in err
