"""The cells of a study's ledger as JSON lines, to keep beside a report: result, data, settings' key and how to repeat it.

    python benchmarks/ledger_lines.py runs/small --command "softprompt study run small --out runs/small" > cells.jsonl

Answers, tensors and what names a machine are left out. With ``--answers`` the answer to every row is kept, and task embeddings as
float16: then `softprompt.analysis.lines.collect_lines` gives all that a report needs, comparisons row by row among it.
"""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any

from softprompt import artifacts


def line(cell: dict[str, Any], command: str, folder: Path | None = None, made_on: str = "") -> dict[str, Any]:
    """What is kept of one cell.

    Args:
        cell: as the ledger has it.
        command: that makes it again.
        folder: of the cell, where answers and task embeddings are kept too.
        made_on: the processor, where the cell does not say.
    """
    told = cell["provenance"]
    dropped = ("relations",) if folder is not None else ("predictions", "relations")
    result = {name: value for name, value in cell["result"].items() if name not in dropped}
    data = cell["identity"].get("data")
    kept = {
        "cell": told.get("cell"), "kind": cell["kind"], "key": cell["key"], "seed": cell["identity"].get("seed"),
        "backbone": cell["identity"].get("backbone"), "data": data, "result": result, "seconds": told.get("seconds"),
        "command": command, "processor": told.get("processor", made_on),
    }  # fmt: skip
    if folder is not None and cell["kind"] == "embedding":
        from safetensors.numpy import load_file

        prompt = load_file(folder / "tensors.safetensors")["prompt"]
        text = base64.b64encode(prompt.astype("<f2").tobytes()).decode()
        kept["embedding"] = {"step": cell["identity"]["step"], "shape": list(prompt.shape), "float16": text}
    return kept


def main() -> None:
    """Print a line a cell, by kind and name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--command", required=True, help="that makes these cells")
    parser.add_argument("--kinds", default="", help="commas between; all where not given")
    parser.add_argument("--answers", action="store_true", help="keep the answers to every row, and task embeddings")
    parser.add_argument("--processor", default="", help="of cells that do not name theirs (those of earlier versions)")
    args = parser.parse_args()
    kinds = args.kinds.split(",") if args.kinds else sorted(p.name for p in (args.ledger / "cells").iterdir())
    for kind in kinds:
        found = [
            (artifacts.read_json(path), path.parent) for path in (args.ledger / "cells" / kind).glob("*/cell.json")
        ]
        for cell, folder in sorted(found, key=lambda c: (str(c[0]["provenance"].get("cell")), c[0]["key"])):
            print(json.dumps(line(cell, args.command, folder if args.answers else None, args.processor)))


if __name__ == "__main__":
    main()
