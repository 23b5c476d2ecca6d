"""``python -m softprompt`` and the ``softprompt`` command."""

from __future__ import annotations

import gc
import sys

_OBJECTS = 50_000
"""New objects between two looks for cyclic garbage. Python's 700 look through all of torch again and again while it is imported: a sixth of a short command (five turns of `predict`, 3.0 against 3.6 s)."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    gc.set_threshold(_OBJECTS, 10, 10)
    from softprompt.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
