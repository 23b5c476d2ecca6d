"""The campaign: what docs/reliability.md promises, as rows of numbered cases that can be counted, repeated and resumed.

A row tries one promise. Its cases have numbers: case 17 is the same everywhere, drawn from the number alone. `run_piece` runs
some of them and gives a record; records are lines of ``benchmarks/results/campaign.jsonl``, and the page's table is their sum.
Every check runs a short form of each row (``test_campaign.py``); ``python scripts/campaign.py`` runs the long form.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "campaign.jsonl"
NAMES = ("training", "saves", "files", "names", "code", "library", "locks", "study", "server", "numerics", "api")


@dataclass
class Tally:
    """What came of some cases.

    Attributes:
        counts: how often what happened, e.g. ``refused``; for people.
        failures: a sentence for each broken promise, with the case's number.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.counts += other.counts
        self.failures += other.failures


@dataclass(frozen=True, kw_only=True)
class Row:
    """One promise.

    Attributes:
        name: of the row and its module.
        promise: as the page says it.
        tried: what a case does, for the page.
        cases: of the long form.
        short: the cases of the short form.
        piece: cases of a record.
        run: runs cases in a folder of their own.
    """

    name: str
    promise: str
    tried: str
    cases: int
    short: Sequence[int]
    piece: int
    run: Callable[[Sequence[int], Path], Tally]


def row_of(name: str) -> Row:
    """The row of a name, from the module ``tests.fault.<name>``."""
    row: Row = import_module(f"tests.fault.{name}").ROW
    return row


def run_cases(row: Row, cases: Sequence[int]) -> Tally:
    """Run cases in a temporary folder."""
    _import_once()
    folder = Path(tempfile.mkdtemp(prefix=f"campaign-{row.name}-"))
    try:
        return row.run(cases, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _import_once() -> None:
    """Import what cases use before they fork: each would take seconds over it again."""
    import torch
    from tests.support.models import tiny_backbone
    from tests.support.small_tasks import small_data

    torch.set_num_threads(1)
    small_data(tiny_backbone("t5"), "animals")
    for name in (
        "inference.http",
        "inference.predict",
        "library",
        "methods.sharpt.train",
        "study.run",
        "training.weights.tune",
    ):
        import_module(f"softprompt.{name}")


def run_piece(row: Row, first: int, end: int) -> dict[str, Any]:
    """Cases ``first`` to ``end`` (left out) as a record."""
    begun = time.monotonic()
    tally = run_cases(row, range(first, end))
    return {
        "row": row.name, "first": first, "end": end, "failures": tally.failures, "counts": dict(sorted(tally.counts.items())),
        "seconds": round(time.monotonic() - begun, 1), "source": source_digest(),
        "command": f"python scripts/campaign.py --row {row.name} --cases {first}-{end}",
    }  # fmt: skip


def source_digest() -> str:
    """12 hex digits of the program and of the campaign."""
    found = hashlib.sha256()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests" / "fault").glob("*.py")]):
        found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:12]


def read_records(path: Path = RECORD) -> list[dict[str, Any]]:
    """All records, in the order they were made."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summed(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Cases, failures, counts and seconds of each row; of a piece that was run twice the last time counts."""
    last = {(r["row"], r["first"], r["end"]): r for r in records}
    sums: dict[str, dict[str, Any]] = {}
    for record in last.values():
        found = sums.setdefault(record["row"], {"cases": 0, "failures": 0, "counts": Counter(), "seconds": 0.0})
        found["cases"] += record["end"] - record["first"]
        found["failures"] += len(record["failures"])
        found["counts"] += Counter(record["counts"])
        found["seconds"] += record["seconds"]
    return sums


def table(records: Iterable[dict[str, Any]]) -> str:
    """The table of docs/reliability.md."""
    sums = summed(records)
    lines = ["| promise | what is tried | cases | broken | what happened |", "|---|---|---|---|---|"]
    for name in NAMES:
        row, found = row_of(name), sums.get(name)
        if found is None:
            lines.append(f"| {row.promise} | {row.tried} | 0 of {row.cases:,} | | |")
            continue
        told = ", ".join(f"{count:,} {what}" for what, count in sorted(found["counts"].items()))
        of = "" if found["cases"] == row.cases else f" of {row.cases:,}"
        lines.append(f"| {row.promise} | {row.tried} | {found['cases']:,}{of} | {found['failures']:,} | {told} |")
    return "\n".join(lines)


def mutants_table() -> str:
    """Mutation scores: of each module the last record."""
    last = {record["module"]: record for record in read_records(RECORD.with_name("mutants.jsonl"))}
    lines = ["| module | mutants | tried | killed | score |", "|---|---|---|---|---|"]
    for name, r in last.items():
        score = f"{100 * r['killed'] / max(1, r['tried']):.0f} %"
        lines.append(f"| {name} | {r['mutants']} | {r['tried']} | {r['killed']} | {score} |")
    return "\n".join(lines)


def coverage_table() -> str:
    """Covered lines by room."""
    path = RECORD.with_name("coverage.json")
    if not path.exists():
        return "Not measured yet."
    told = json.loads(path.read_text())
    lines = [
        f"{len(told['pieces'])} of {told['of']} pieces of the tests were run.",
        "",
        "| room | lines | covered |",
        "|---|---|---|",
    ]
    lines += [f"| {room} | {r['lines']:,} | {r['percent']} % |" for room, r in told["rooms"].items()]
    return "\n".join(lines)


def filled(page: str) -> str:
    """docs/reliability.md with the tables of the records."""
    made = {"campaign": table(read_records()), "mutants": mutants_table(), "coverage": coverage_table()}
    for name, text in made.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        page = mark.sub(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page)  # type: ignore[misc]
    return page
