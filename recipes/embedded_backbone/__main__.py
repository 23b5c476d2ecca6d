"""``python recipes/embedded_backbone``: every field of ``PretrainSettings`` as a flag."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from embedded_backbone.settings import PretrainSettings
from softprompt.errors import SoftpromptError


def parser() -> argparse.ArgumentParser:
    """Flags by the names of the settings."""
    made = argparse.ArgumentParser(
        prog="python recipes/embedded_backbone", description="Pre-train a backbone on plain text."
    )
    hints = typing.get_type_hints(PretrainSettings)
    for field in dataclasses.fields(PretrainSettings):
        flag, required = "--" + field.name.replace("_", "-"), field.default is dataclasses.MISSING
        hint = hints[field.name]
        if hint is bool:
            made.add_argument(flag, action="store_true", default=field.default)
        elif field.name == "names":
            made.add_argument(flag, nargs="*", default=())
        else:
            kind: Any = Path if "Path" in str(hint) else int if "int" in str(hint) else float if hint is float else str
            made.add_argument(flag, type=kind, required=required, default=None if required else field.default)
    made.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's own choice")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one pre-training; prints a JSON line for every measurement."""
    options = vars(parser().parse_args(argv))
    threads = options.pop("threads")
    import torch

    if threads:
        torch.set_num_threads(threads)
    from embedded_backbone.train import pretrain

    try:
        options["names"] = tuple(options["names"])
        folder = pretrain(PretrainSettings(**options), log=lambda line: print(json.dumps(line), flush=True))
    except SoftpromptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"model": str(folder)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
