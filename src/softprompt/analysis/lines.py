"""The lines that were kept of a ledger, read as the ledger that they are of; needs neither data nor backbone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softprompt.analysis.read import collect
from softprompt.analysis.records import Results
from softprompt.errors import DataError
from softprompt.study.build import build_grid
from softprompt.study.grid import CellId, Facts, Grid, unresolved_facts
from softprompt.study.ledger import Ledger, Record
from softprompt.study.settings import Study

Line = Mapping[str, Any]


class KeptLines(Ledger):
    """The JSON lines that `benchmarks/ledger_lines.py` keeps of a ledger, one a cell, under the keys of a study's grid.

    Task embeddings (and what ranks by them) and answers are there where the lines were made with ``--answers``.

    Args:
        path: the lines.
        study: that they are of; cells that it does not have are passed over.

    Attributes:
        facts: what the lines tell of the study's data; the grid is built with these.

    Raises:
        DataError: a line that is not JSON or not of a cell; names it.
    """

    def __init__(self, path: str | Path, study: Study) -> None:
        super().__init__(path)
        lines = list(read_lines(Path(path)))
        self.facts = _facts(study, lines)
        grid = build_grid(study, self.facts)
        places, self._lines = _places(grid), dict[CellId, Line]()
        for line in lines:
            if (found := places.get((line["kind"], _name(line)))) is not None:
                self._lines[found] = line
        self._evidence = {
            of: _evidence(self._lines[cell.id]["result"], study)
            for cell in grid.of_kind("evaluation")
            if cell.id in self._lines and (of := tuple(cell.spec["of"]))
        }

    def has(self, kind: str, key: str) -> bool:
        """See `Ledger.has`."""
        return (kind, key) in self._lines

    def keys(self, kind: str) -> set[str]:
        """See `Ledger.keys`."""
        return {key for held, key in self._lines if held == kind}

    def read(self, kind: str, key: str) -> Record:
        """See `Ledger.read`."""
        told = {"evidence": self._evidence.get((kind, key), {})}
        return Record(kind=kind, key=key, identity={}, result=self._lines[kind, key]["result"], provenance=told)

    def tensors(self, kind: str, key: str) -> dict[str, Any]:
        """See `Ledger.tensors`: a task embedding, ``prompt`` [P, H], float64 of float16; nothing of other cells."""
        kept = self._lines[kind, key].get("embedding")
        if kept is None:
            return {}
        numbers = np.frombuffer(base64.b64decode(kept["float16"]), dtype="<f2")
        return {"prompt": numbers.reshape(kept["shape"]).astype(np.float64)}


def collect_lines(path: str | Path, study: Study) -> Results:
    """A study's records from the lines that were kept of its ledger; see `KeptLines`."""
    lines = KeptLines(path, study)
    return collect(study, lines, lines.facts)


def read_lines(path: Path) -> Iterator[Line]:
    """The cells of a file of lines; task embeddings whose numbers were not kept are passed over.

    Raises:
        DataError: a line that is not JSON or not of a cell; names it.
    """
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            if not isinstance(line["kind"], str) or not isinstance(line["cell"], str):
                raise TypeError("names are texts")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} line {number} is no cell of a ledger: it needs a kind, a cell and a result."
            ) from error
        if line["kind"] != "embedding" or "embedding" in line:  # without its numbers it says nothing
            yield line


def _facts(study: Study, lines: list[Line]) -> Facts:
    """Facts with the fingerprints of the targets' validation rows."""
    facts = unresolved_facts(study)
    held = {one["task"]: one["validation"] for line in lines if line["kind"] == "baseline" for one in line["data"]}
    data = {name: replace(one, validation=held.get(name, one.validation)) for name, one in facts.data.items()}
    return replace(facts, data=data)


def _places(grid: Grid) -> dict[tuple[str, str], CellId]:
    """Cells by kind and name. What was made on a training's way goes by the training's name."""
    found = {(cell.kind, cell.name): cell.id for cell in grid.cells.values()}
    for cell in grid.of_kind("evaluation", "further_evaluation"):
        found.setdefault((cell.kind, grid.cells[tuple(cell.spec["of"])].name), cell.id)
    for cell in grid.of_kind("embedding"):
        found.setdefault((cell.kind, cell.name.partition(":")[2]), cell.id)
    return found


def _name(line: Line) -> str:
    """Of a line's cell; an embedding's has its step, as in ``target:cb.1@60`` or, made on the way of a training, ``cb.1@60``."""
    name = str(line["cell"])
    return f"{name}@{line['embedding']['step']}" if "embedding" in line and "@" not in name else name


def _evidence(evaluation: Mapping[str, Any], study: Study) -> dict[str, int]:
    """How many rows chose checkpoints and measured the best one: by the halves and the settings."""
    select, report = (int(n) for n in evaluation["rows"])
    return {"select_rows": min(select, study.target.eval_rows or select), "report_rows": select + report}
