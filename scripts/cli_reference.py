"""Write docs/cli.md from the commands' own help: ``python scripts/cli_reference.py``. A test holds the two together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from softprompt.cli.app import load_commands

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Commands

Written by `python scripts/cli_reference.py` from the commands' own help.

- `--json` prints one JSON document on standard output; progress and errors go to standard error.
- `--debug` adds the traceback to an error. Exit codes are in [Errors](errors.md).
- Settings of a training have flags of their own or go through `--set NAME=VALUE`; an unknown name is refused with the
  nearest ones.
"""


def paths(program: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, the program itself first."""
    program = program or typer.main.get_command(load_commands())
    yield path
    for name, inner in getattr(program, "commands", {}).items():
        yield from paths(inner, (*path, name))


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for path in paths():
        result = subprocess.run(
            [sys.executable, "-m", "softprompt", *path, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "120", "TERMINAL_WIDTH": "120"},
        )
        heading = "#" * (min(len(path), 2) + 2)
        parts.append(f"{heading} {' '.join(('softprompt', *path))}\n\n```text\n{result.stdout.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
