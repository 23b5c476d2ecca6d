"""The campaign in its long form: every promise of docs/reliability.md, tried as often as the page says.

    python scripts/campaign.py                          # what the record lacks, row by row; can be stopped and goes on
    python scripts/campaign.py --row saves --minutes 8  # one row, no new piece after 8 minutes
    python scripts/campaign.py --row files --cases 20000-30000
    python scripts/campaign.py --case files 20417       # one case again, with what it says
    python scripts/campaign.py --table                  # the page's table from the record; --write puts it there

Each piece of a row becomes a line of benchmarks/results/campaign.jsonl. Exit code 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "recipes")]
for name, value in (("OMP_NUM_THREADS", "1"), ("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
    os.environ.setdefault(name, value)

from tests.fault.campaign import NAMES, RECORD, Row, filled, read_records, row_of, run_cases, run_piece, table  # noqa: E402

from softprompt import artifacts  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"


def main() -> int:
    """Run what is asked for; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=NAMES, action="append", help="only this row (may be repeated)")
    parser.add_argument("--cases", help="FIRST-END of one row, END left out, instead of what the record lacks")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no piece after this time")
    parser.add_argument("--case", nargs=2, metavar=("ROW", "NUMBER"), help="run one case and say what came of it")
    parser.add_argument("--table", action="store_true", help="print the table of docs/reliability.md")
    parser.add_argument("--write", action="store_true", help="put the tables of the records into docs/reliability.md")
    args = parser.parse_args()
    if args.table or args.write:
        if args.write:
            artifacts.write_bytes(PAGE, filled(PAGE.read_text()).encode())
        print(table(read_records()))
        return 0
    if args.case:
        tally = run_cases(row_of(args.case[0]), [int(args.case[1])])
        print(dict(tally.counts), *tally.failures, sep="\n")
        return int(bool(tally.failures))
    if args.cases:
        first, end = map(int, args.cases.split("-"))
        return int(tried(row_of((args.row or NAMES)[0]), first, end))
    begun, broken = time.monotonic(), False
    todo = {name: missing(row_of(name)) for name in args.row or NAMES}
    while any(todo.values()):  # a piece of each row in turn, so that a run that is stopped has tried them all
        for name, pieces in todo.items():
            if pieces and time.monotonic() - begun < 60 * args.minutes:
                broken |= tried(row_of(name), *pieces.pop(0))
        if time.monotonic() - begun >= 60 * args.minutes:
            break
    return int(broken)


def missing(row: Row) -> list[tuple[int, int]]:
    """The cases of a row that the record lacks, in pieces."""
    pieces, at = [], 0
    done = sorted((r["first"], r["end"]) for r in read_records() if r["row"] == row.name)
    for first, end in [*done, (row.cases, row.cases)]:
        pieces += [(start, min(start + row.piece, first)) for start in range(at, first, row.piece)]
        at = max(at, end)
    return pieces


def tried(row: Row, first: int, end: int) -> bool:
    """Run a piece, record it and say what came of it; whether a promise was broken."""
    record = run_piece(row, first, end)
    artifacts.append_json_line(RECORD, record)
    print(
        f"{row.name} {first} to {end}: {len(record['failures'])} broken, {record['counts']}, {record['seconds']} s",
        flush=True,
    )
    for failure in record["failures"][:5]:
        print(failure, flush=True)
    return bool(record["failures"])


if __name__ == "__main__":
    sys.exit(main())
