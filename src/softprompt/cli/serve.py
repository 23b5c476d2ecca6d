"""``softprompt serve``: many prompts on one backbone over HTTP."""

from __future__ import annotations

import importlib.util
import socket
from typing import Annotated

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, lines
from softprompt.cli.progress import say
from softprompt.errors import UsageError


@command(app, "serve")
def serve(
    library: o.LibraryPlace,
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

    from softprompt.serving.engine import Engine, from_library
    from softprompt.serving.http import make_app

    store = o.open_library(library)
    listener = _listen(host, port)
    model = o.open_backbone(backbone, dtype, device, revision)

    def names() -> list[str]:
        return [entry.name for entry in store.list(backbone=model)]

    engine = Engine(model, from_library(store, model), batch_tokens=batch_tokens)
    address = f"http://{host}:{listener.getsockname()[1]}"
    say(f"{len(names())} prompt(s) of {store.location} at {address}; Ctrl-C stops")
    server = uvicorn.Server(uvicorn.Config(make_app(engine, names, wait_ms=wait_ms), log_level="warning"))
    server.run(sockets=[listener])
    return Answer(data={"address": address, "stopped": True}, show=lines("stopped"))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before the backbone is loaded so that a taken port is known at once."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --port or --host."
        ) from error
