"""``softprompt serve``: many prompts on one backbone over HTTP."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, lines
from softprompt.cli.progress import say
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.inference.engine import Resolve
    from softprompt.library.store import Library


@command(app, "serve")
def serve(
    library: Annotated[
        str | None, typer.Option("--library", help="Prompt library: a folder, a URL (s3://, hf://), or `released`.")
    ] = None,
    sharpt: Annotated[
        str | None,
        typer.Option(
            "--sharpt", help="Folders of `sharpt adapt`, commas between; each asked for by its name, e.g. cb-seed0."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    wait_ms: Annotated[float, typer.Option("--wait-ms", help="How long a request waits for others.", min=0.0)] = 5.0,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", help="Padded positions in one pass.", min=1)] = 8192,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Answer requests for different prompts in one batch (HTTP)."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {' and '.join(missing)}: pip install 'softprompt[serve]'.")
    import uvicorn

    from softprompt.inference.engine import Engine
    from softprompt.inference.http import make_app

    if library is None and sharpt is None:
        raise UsageError("serve needs prompts: give --library, --sharpt with folders of `sharpt adapt`, or both.")
    folders = [Path(word) for word in o.words(sharpt, "--sharpt")] if sharpt is not None else []
    store = o.open_library(library) if library is not None else None
    with _listen(host, port) as listener:
        model = o.open_backbone(backbone, dtype, device, revision)
        names, resolve = _prompts(store, folders, model)
        engine = Engine(model, resolve, batch_tokens=batch_tokens)
        address = f"http://{host}:{listener.getsockname()[1]}"
        places = [*([store.location] if store is not None else []), *map(str, folders)]
        say(f"{len(names())} prompt(s) of {', '.join(places)} at {address}; Ctrl-C stops")
        # No logging set-up of the server's: it would close every handler of the process, with the streams other packages write to.
        site = make_app(engine, names, wait_ms=wait_ms)
        server = uvicorn.Server(uvicorn.Config(site, log_level="warning", log_config=None))
        server.run(sockets=[listener])
    return Answer(data={"address": address, "stopped": True}, show=lines("stopped"))


def _prompts(
    store: Library | None, folders: Sequence[Path], backbone: Backbone
) -> tuple[Callable[[], list[str]], Resolve]:
    """What can be asked for now, and what a name stands for: prompts of a library, and SharPT's from their folders.

    Raises:
        UsageError: a name stands for two prompts.
    """
    from softprompt.inference.engine import Served, first_of, from_library, served

    generated: dict[str, Served] = {}
    if folders:
        from softprompt.methods.sharpt.space import load_prompters, load_space

        prompters = load_prompters(folders, backbone)
        for space in map(load_space, folders):
            generated[space.name] = served(prompters[space.name], space, backbone)
    if store is None:
        return lambda: list(generated), first_of(generated)
    taken = sorted(set(generated) & {entry.name for entry in store.list()})
    if taken:
        raise UsageError(f"{taken[0]} is a prompt of {store.location} and of --sharpt: leave one of them out.")

    def names() -> list[str]:
        return [*(entry.name for entry in store.list(backbone=backbone)), *generated]

    return names, first_of(generated, from_library(store, backbone))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before the backbone is loaded so that a taken port is known at once."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --port or --host."
        ) from error
