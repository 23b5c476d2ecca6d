"""``softprompt serve``: all prompts of a library, and SharPT artifacts, from one backbone over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, lines
from softprompt.cli.progress import say
from softprompt.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.prompts.batch import Prompter
    from softprompt.serving.engine import Resolve


@command(app, "serve")
def serve(
    library: Annotated[str | None, typer.Option("--library", help="Library whose prompts are served.")] = None,
    space: Annotated[
        list[Path] | None, typer.Option("--space", help="A SharPT space or adaptation to serve; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.", min=1, max=65535)] = 8000,
    wait_ms: Annotated[
        float, typer.Option("--wait-ms", help="How long a request waits for others to share its batch.", min=0)
    ] = 5.0,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Serve all prompts of a library from one backbone."""
    if library is None and not space:
        raise UsageError("serve needs prompts: give --library, or --space for SharPT.")
    try:
        import uvicorn

        from softprompt.serving.engine import Engine
        from softprompt.serving.http import make_app
    except ImportError as error:
        raise UsageError(f"serve needs the package {error.name}: pip install 'softprompt[serve]'.") from error
    store = o.open_library(library) if library is not None else None
    model = o.open_backbone(backbone, dtype, device, revision)
    resolve, names = _sources(model, library, space or [])
    engine = Engine(model, resolve)
    say(f"serving {len(names)} prompts of {store.location if store else 'SharPT'} on http://{host}:{port}")
    uvicorn.run(make_app(engine, lambda: names, wait_ms=wait_ms), host=host, port=port, log_level="warning")
    return Answer(data={"served": names}, show=lines("stopped"))


def _sources(backbone: Backbone, library: str | None, folders: list[Path]) -> tuple[Resolve, list[str]]:
    """Where names are looked up: SharPT artifacts first, then the library."""
    from softprompt.serving.engine import from_library

    spaces: dict[str, Prompter] = {}
    for folder in folders:
        from softprompt.sharpt.space import load_prompter

        spaces[folder.name] = load_prompter([folder], backbone)
    store = o.open_library(library) if library is not None else None
    in_library = from_library(store, backbone) if store is not None else None
    names = sorted({*spaces, *(entry.name for entry in store.list(backbone=backbone))} if store else spaces)

    def resolve(name: str) -> tuple[Prompter, int]:
        if name in spaces:
            return spaces[name], 0
        if in_library is None:
            raise UnknownNameError("prompt", name, names)
        return in_library(name)

    return resolve, names
