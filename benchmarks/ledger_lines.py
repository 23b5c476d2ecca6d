"""The cells of a study's ledger as JSON lines, to keep beside a report: result, data, settings' key and how to repeat it.

    python benchmarks/ledger_lines.py runs/small --command "softprompt study run small --out runs/small" > cells.jsonl

Answers, tensors and what names a machine are left out. A ledger that several studies share needs ``--study`` too, since cells of two
studies may have one name. With ``--answers`` the answer to every row is kept, source prompts as float32 and task embeddings as
float16: then `softprompt.analysis.lines.collect_lines` gives all that a report needs, comparisons row by row among it, and a study
goes on from the lines where its ledger is gone:

    python benchmarks/ledger_lines.py runs/smollm2 --restore cells.jsonl --study smollm2
    softprompt study run smollm2 --out runs/smollm2
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softprompt import artifacts
from softprompt.errors import SoftpromptError
from softprompt.study.grid import Facts, Grid
from softprompt.study.settings import Study, load_study


def line(cell: dict[str, Any], command: str, folder: Path | None = None, made_on: str = "") -> dict[str, Any]:
    """What is kept of one cell.

    Args:
        cell: as the ledger has it.
        command: that makes it again.
        folder: of the cell, where answers, source prompts and task embeddings are kept too.
        made_on: the processor, where the cell does not say.
    """
    told = cell["provenance"]
    dropped = ("relations",) if folder is not None else ("predictions", "relations")
    result = {name: value for name, value in cell["result"].items() if name not in dropped}
    data = cell["identity"].get("data")
    kept = {
        "cell": told.get("cell"), "kind": cell["kind"], "key": cell["key"], "seed": cell["identity"].get("seed"),
        "backbone": cell["identity"].get("backbone"), "data": data, "result": result, "seconds": told.get("seconds"),
        "command": command, "processor": _processor(told, made_on),
    }  # fmt: skip
    if folder is not None and cell["kind"] in ("embedding", "source"):
        from safetensors.numpy import load_file

        held = load_file(folder / "tensors.safetensors")
        if cell["kind"] == "embedding":
            kept["embedding"] = {"step": cell["identity"]["step"], **_text(held["prompt"], "float16")}
        else:
            kept["prompt"] = _text(held["best"] if "best" in held else held["final"], "float32")
    if folder is not None and (space := folder / "space" / "manifest.json").is_file():
        kept["skill_use"] = artifacts.read_json(space)["training"].get("skill_use")
    return kept


def _processor(told: Mapping[str, Any], made_on: str) -> str:
    """With the level of instructions, where the cell tells it: a name alone does not tell whether there were matrix tiles."""
    name = str(told.get("processor", made_on))
    return f"{name}, {told['level']}" if told.get("level") else name


def _text(numbers: np.ndarray[Any, Any], dtype: str) -> dict[str, Any]:
    plain = numbers.astype(np.dtype(dtype).newbyteorder("<"))
    return {"shape": list(numbers.shape), dtype: base64.b64encode(plain.tobytes()).decode()}


def _numbers(kept: Mapping[str, Any], dtype: str) -> np.ndarray[Any, Any]:
    """float32, as `_text` was given it."""
    raw = np.frombuffer(base64.b64decode(kept[dtype]), dtype=np.dtype(dtype).newbyteorder("<"))
    return raw.reshape(kept["shape"]).astype(np.float32)


def grid_of(study: Study) -> tuple[Grid, Facts]:
    """The cells of a study as it would run here now, and what they rest on."""
    from softprompt.study.build import build_grid
    from softprompt.study.runner import DEFAULT_RUNNER, make_runner

    facts = make_runner(DEFAULT_RUNNER).facts(study)
    return build_grid(study, facts), facts


def restore(lines: Path, study: Study, folder: Path) -> tuple[int, int]:
    """Record the cells of kept lines in a ledger, under the keys of the study as it would run here now.

    A cell whose tensors were not kept and that a missing cell starts from is left out, and made again by the next run.

    Returns:
        cells restored, and cells of the study.
    """
    import torch

    from softprompt.analysis.lines import read_lines
    from softprompt.study.ledger import Ledger

    ledger = Ledger(folder)
    grid, facts = grid_of(study)
    kept = {(row["kind"], row["key"]): row for row in read_lines(lines)}
    wanted = {parent for cell in grid.cells.values() if cell.id not in kept for parent in cell.parents}
    restored = 0
    with ledger.lock(f"restoring {lines}"):
        ledger.claim(facts.backbone, facts.fingerprint)
        for cell in grid.cells.values():
            row = kept.get(cell.id)
            tensors = {}
            if row is not None and "embedding" in row:
                tensors = {"prompt": _numbers(row["embedding"], "float16")}
            elif row is not None and "prompt" in row:
                tensors = {"best": _numbers(row["prompt"], "float32")}
            if row is None or (cell.id in wanted and not tensors):
                continue
            told = {name: row[name] for name in ("cell", "seconds", "command", "processor")}
            held = {name: torch.from_numpy(value) for name, value in tensors.items()}
            restored += ledger.write(cell.kind, cell.key, cell.identity, row["result"], held, told)
    return restored, len(grid.cells)


def lines_of(
    ledger: Path, command: str, *, study: Study | None = None, kinds: Sequence[str] = (), answers: bool = False,
    made_on: str = "",
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """What is kept of a ledger's cells, by kind and name.

    Args:
        ledger: its folder.
        command: see `line`.
        study: the one whose cells are meant; None for all in the ledger.
        kinds: of cells; all where empty.
        answers: whether answers, source prompts and task embeddings are kept.
        made_on: see `line`.
    """
    held = None if study is None else set(grid_of(study)[0].cells)
    for kind in kinds or sorted(path.name for path in (ledger / "cells").iterdir()):
        found = [(artifacts.read_json(path), path.parent) for path in (ledger / "cells" / kind).glob("*/cell.json")]
        for cell, folder in sorted(found, key=lambda c: (str(c[0]["provenance"].get("cell")), c[0]["key"])):
            if held is None or (cell["kind"], cell["key"]) in held:
                yield line(cell, command, folder if answers else None, made_on)


def main() -> None:
    """Print a line a cell, by kind and name; or restore a ledger from such lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--command", help="that makes these cells")
    parser.add_argument("--kinds", default="", help="commas between; all where not given")
    parser.add_argument("--answers", action="store_true", help="keep answers to every row, source prompts, embeddings")
    parser.add_argument("--processor", default="", help="of cells that do not name theirs (those of earlier versions)")
    parser.add_argument("--restore", type=Path, help="lines made with --answers, to be recorded in the ledger")
    parser.add_argument("--study", help="that the lines are of, printed or restored: a file or a ready study's name")
    args = parser.parse_args()
    if args.restore is not None and args.study is None:
        parser.error("--restore needs --study: the study that the lines are of.")
    if args.restore is None and args.command is None:
        parser.error("--command is needed: it stands in every line.")
    kinds = args.kinds.split(",") if args.kinds else ()
    try:
        study = None if args.study is None else load_study(args.study)
        if args.restore is not None:
            assert study is not None
            restored, cells = restore(args.restore, study, args.ledger)
            print(f"{restored} of {cells} cells restored in {args.ledger}")
            return
        for kept in lines_of(
            args.ledger, args.command, study=study, kinds=kinds, answers=args.answers, made_on=args.processor
        ):
            print(json.dumps(kept))
    except (SoftpromptError, OSError) as error:
        sys.exit(f"ledger_lines.py: {error}")


if __name__ == "__main__":
    main()
