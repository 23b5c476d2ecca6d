"""The cells of a study's ledger as JSON lines, to keep beside a report: result, data, settings' key and how to repeat it.

    python benchmarks/ledger_lines.py runs/small --command "softprompt study run small --out runs/small" > cells.jsonl

Answers, tensors and what names a machine are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from softprompt import artifacts


def line(cell: dict[str, Any], command: str) -> dict[str, Any]:
    """What is kept of one cell."""
    told = cell["provenance"]
    result = {name: value for name, value in cell["result"].items() if name not in ("predictions", "relations")}
    data = cell["identity"].get("data")
    return {
        "cell": told.get("cell"), "kind": cell["kind"], "key": cell["key"], "seed": cell["identity"].get("seed"),
        "backbone": cell["identity"].get("backbone"), "data": data, "result": result, "seconds": told.get("seconds"),
        "command": command,
    }  # fmt: skip


def main() -> None:
    """Print a line a cell, by kind and name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--command", required=True, help="that makes these cells")
    parser.add_argument("--kinds", default="", help="commas between; all where not given")
    args = parser.parse_args()
    kinds = args.kinds.split(",") if args.kinds else sorted(p.name for p in (args.ledger / "cells").iterdir())
    for kind in kinds:
        cells = [artifacts.read_json(path) for path in (args.ledger / "cells" / kind).glob("*/cell.json")]
        for cell in sorted(cells, key=lambda c: (str(c["provenance"].get("cell")), c["key"])):
            print(json.dumps(line(cell, args.command)))


if __name__ == "__main__":
    main()
