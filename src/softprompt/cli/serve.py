"""``softprompt serve``: many prompts on one backbone over HTTP."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from softprompt.cli import opening, places
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import Flags, flag
from softprompt.cli.output import Answer, asked, lines
from softprompt.cli.progress import say
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.inference.engine import Served
    from softprompt.inference.guard import Limits
    from softprompt.library.store import Library

TOKEN = "SOFTPROMPT_TOKEN"


BATCHING, LIMITS = "Batching", "Limits"


@dataclass(frozen=True, kw_only=True)
class DoorFlags(Flags):
    """Who may ask."""

    host: Annotated[str, flag("--host", "Address to listen on; the default is this machine alone.")] = "127.0.0.1"
    port: Annotated[int, flag("--port", "Port; 0 takes a free one.", min=0, max=65535)] = 8000
    token_file: Annotated[
        Path | None, flag("--token-file", f"File with the bearer token clients must send; or {TOKEN}.")
    ] = None
    allow_host: Annotated[str | None, flag("--allow-host", "Further names the server goes by, commas between.")] = None


@dataclass(frozen=True, kw_only=True)
class BatchingFlags(Flags):
    """How requests share a pass."""

    wait_ms: Annotated[float, flag("--wait-ms", "How long a request waits for others.", BATCHING, min=0.0)] = 1.0
    batch_tokens: Annotated[int, flag("--batch-tokens", "Padded positions in one pass.", BATCHING, min=1)] = 8192
    prompt_mb: Annotated[
        int, flag("--prompt-mb", "Memory for prompts, and again for their keys and values, MB.", BATCHING, min=1)
    ] = 1024


@dataclass(frozen=True, kw_only=True)
class RequestLimitFlags(Flags):
    """What one client may ask for."""

    max_tokens: Annotated[
        int, flag("--max-tokens", "Most tokens of a row: prompt, text and answer.", LIMITS, min=1)
    ] = 4096
    max_body_kb: Annotated[int, flag("--max-body-kb", "Largest body of a request, KB.", LIMITS, min=1)] = 1024
    queue: Annotated[int, flag("--queue", "Texts that may wait; further ones get 429.", LIMITS, min=1)] = 1024
    connections: Annotated[int, flag("--connections", "Connections open at once.", LIMITS, min=1)] = 512
    timeout: Annotated[float, flag("--timeout", "Longest time of a request, seconds.", LIMITS, min=0.1)] = 60.0
    drain: Annotated[
        float, flag("--drain", "Time for requests under way when it is stopped, seconds.", LIMITS, min=0.0)
    ] = 10.0

    def limits(self) -> Limits:
        """As the server takes them."""
        from softprompt.inference.guard import Limits

        return Limits(
            body_bytes=self.max_body_kb * 1024, tokens=self.max_tokens, waiting=self.queue,
            connections=self.connections, request_s=self.timeout, drain_s=self.drain,
        )  # fmt: skip


@command(
    app, "serve", "softprompt serve runs/my",
    "softprompt serve --library prompts --sharpt runs/sharpt-adapt/cb-seed0 --host 0.0.0.0 --token-file token.txt",
)  # fmt: skip
def serve(
    place: o.GivenPlace = None,
    *,
    library: Annotated[
        str | None, flag("--library", "Prompt library or run folder: a folder, a URL (s3://, hf://), or `released`.")
    ] = None,
    sharpt: Annotated[
        str | None,
        flag("--sharpt", "Folders of `sharpt adapt`, commas between; each asked for by its name, e.g. cb-seed0."),
    ] = None,
    model: o.PromptBackboneFlags,
    door: DoorFlags,
    batching: BatchingFlags,
    most: RequestLimitFlags,
) -> Answer:
    """Answer requests for different prompts in one batch (HTTP)."""
    from softprompt.doctor import EXTRAS

    missing = [name for name in EXTRAS["serve"][0] if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {' and '.join(missing)}: pip install 'softprompt[serve]'.")
    from softprompt.inference.connections import server

    library, _ = places.prompts_asked(place, library, ())
    if library is None and sharpt is None:
        raise UsageError("serve needs prompts: give --library, --sharpt with folders of `sharpt adapt`, or both.")
    limits = most.limits()
    folders = [Path(word) for word in opening.words(sharpt, "--sharpt")] if sharpt is not None else []
    store, run = _library(library) if library is not None else (None, None)
    token = _token(door.token_file)
    with _listen(door.host, door.port) as listener:
        backbone = model.open(library)
        if hasattr(backbone, "prompt_cache_bytes"):
            backbone.prompt_cache_bytes = batching.prompt_mb << 20
        site = _site(backbone, (store, run, folders), door, token, limits, batching)
        address = f"http://{door.host}:{listener.getsockname()[1]}"
        told = [*([store.location] if store is not None else []), *map(str, folders)]
        known = site.site.catalogue.names()
        say(f"{len(known)} prompt(s) of {', '.join(told)} at {address}; Ctrl-C stops")
        _greet(address, known, token)
        server(site, limits, site.site.metrics.refused).run(sockets=[listener])
    after = [("serve", *asked[1:])]
    if library is not None and known:
        after.insert(0, ("predict", library, "--prompt", known[0], "TEXT"))
    return Answer(data={"address": address, "stopped": True}, show=lines("stopped"), next=after)


def _site(
    backbone: Backbone,
    prompts: tuple[Library | None, Path | None, Sequence[Path]],
    door: DoorFlags,
    token: str | None,
    limits: Limits,
    batching: BatchingFlags,
) -> Any:
    """The application over what can be asked for."""
    from softprompt.inference.catalogue import Catalogue
    from softprompt.inference.engine import Engine
    from softprompt.inference.guard import hosts_of
    from softprompt.inference.http import make_app

    store, run, folders = prompts
    catalogue = Catalogue(backbone, store, _generated(store, folders, backbone), run)
    engine = Engine(
        backbone, catalogue.resolve, version=catalogue.version, batch_tokens=batching.batch_tokens,
        prompt_bytes=batching.prompt_mb << 20,
    )  # fmt: skip
    names = opening.words(door.allow_host, "--allow-host") if door.allow_host is not None else ()
    hosts = hosts_of(door.host, names)
    return make_app(engine, catalogue, limits=limits, wait_ms=batching.wait_ms, token=token, hosts=hosts)


def _greet(address: str, known: Sequence[str], token: str | None) -> None:
    """A line to try it with."""
    name = known[0] if known else "NAME"
    bearer = f" -H 'Authorization: Bearer ${TOKEN}'" if token is not None else ""
    say(
        f"try: curl {address}/v1/completions -H 'Content-Type: application/json'{bearer} "
        f'-d \'{{"model": "{name}", "prompt": "a text"}}\''
    )
    say(f"prompts to look at: {address}/   requests: {address}/docs")


def _token(file: Path | None) -> str | None:
    """The bearer token, from a file or the environment.

    Raises:
        UsageError: the file holds none.
    """
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token cannot be read from {file} ({error}): name a text file.") from None
    if not token or not token.isascii() or not token.isprintable():
        raise UsageError(f"{file} holds no token: write one line of printable ASCII.")
    return token


def _library(place: str) -> tuple[Library, Path | None]:
    """A library, and the folder of the training that made it where it lies in one; a run folder stands for its library."""
    folder = Path(place).expanduser()
    if (folder / "run.json").is_file():
        return opening.open_library(str(folder / "library")), folder
    return opening.open_library(place), folder.parent if (folder.parent / "run.json").is_file() else None


def _generated(store: Library | None, folders: Sequence[Path], backbone: Backbone) -> dict[str, Served]:
    """SharPT's prompts by name, from their folders.

    Raises:
        UsageError: a name stands for two prompts.
    """
    from softprompt.inference.engine import served

    generated: dict[str, Served] = {}
    if folders:
        from softprompt.methods.sharpt.space import load_prompters, load_space

        prompters = load_prompters(folders, backbone)
        for space in map(load_space, folders):
            generated[space.name] = served(prompters[space.name], space, backbone, space.name)
    taken = sorted(set(generated) & set(store.names())) if store is not None else []
    if taken and store is not None:
        raise UsageError(f"{taken[0]} is a prompt of {store.location} and of --sharpt: leave one of them out.")
    return generated


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before the backbone is loaded so that a taken port is known at once."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --port or --host."
        ) from error
