"""Write docs/cli.md from the commands' own help: ``python scripts/cli_reference.py``. A test holds the two together."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softprompt.cli.app import parser, run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Commands

Written by `python scripts/cli_reference.py` from the commands' own help.

- `--json` prints one JSON document on standard output; progress and errors go to standard error.
- `--debug` adds the traceback to an error. Exit codes are in [Errors](errors.md).
- Settings of a training have flags of their own or go through `--set NAME=VALUE`; an unknown name is refused with the
  nearest ones.
- `--help` shows the flags that most need, `--help-all` every flag, as below. `softprompt --install-completion` completes
  commands, flags, tasks, backbones, recipes and studies in your shell.
"""


def paths(program: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every command and group, the program itself first, and whether it is a group."""
    program = program or parser()
    inner = getattr(program, "commands", {})
    yield path, bool(inner)
    for name, command in inner.items():
        yield from paths(command, (*path, name))


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    with _width("120"):
        for path, grouped in paths():
            heading = "#" * (min(len(path), 2) + 2)
            parts.append(
                f"{heading} {' '.join(('softprompt', *path))}\n\n```text\n{_help(path, grouped=grouped)}\n```\n"
            )
    return "\n".join(parts)


def _help(path: tuple[str, ...], *, grouped: bool) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run([*path, "--help" if grouped else "--help-all"])
    return out.getvalue().strip()


@contextlib.contextmanager
def _width(columns: str) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = columns
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
