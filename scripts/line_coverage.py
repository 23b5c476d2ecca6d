"""Coverage of lines over the tests, in pieces that can be stopped and go on; processes that tests start are counted.

    python scripts/line_coverage.py                     # pieces that were not measured yet, then the sums
    python scripts/line_coverage.py --minutes 8         # begin no piece after 8 minutes
    python scripts/line_coverage.py --report            # the sums of what was measured
    python scripts/line_coverage.py --all               # the tests marked slow as well

A piece is a folder or file of tests. Data lie in ``build/coverage``; the sums by room are written to
``benchmarks/results/coverage.json``, with the pieces that they rest on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "build" / "coverage"
RECORD = ROOT / "benchmarks" / "results" / "coverage.json"


def pieces() -> list[str]:
    """Folders of tests one below ``tests/unit``, the files beside them, and the other folders of tests."""
    unit = ROOT / "tests" / "unit"
    found = [path for path in sorted(unit.iterdir()) if path.is_dir() or path.name.startswith("test_")]
    found += [ROOT / "tests" / name for name in ("fault", "golden", "parity", "real", "recipes")]
    return [str(path.relative_to(ROOT)) for path in found if path.name != "__pycache__"]


def measure(piece: str, *, slow: bool) -> int:
    """Run a piece; its data and then its mark are kept."""
    folder = DATA / piece.replace("/", ".")
    folder.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join(str(ROOT / name) for name in ("src", ".", "recipes"))
    environment = {
        **os.environ,
        "COVERAGE_FILE": str(folder / "data"),
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    words = [
        sys.executable,
        "-m",
        "coverage",
        "run",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *([] if slow else ["-m", "not slow"]),
        piece,
    ]
    code = subprocess.run(words, cwd=ROOT, env=environment).returncode
    (folder / "done").write_text(f"{code}\n")
    return code


def report() -> None:
    """Combine, sum by room, write and print."""
    done = sorted(path.parent for path in DATA.glob("*/done"))
    whole = DATA / "combined"
    environment = {**os.environ, "COVERAGE_FILE": str(whole)}
    run = [sys.executable, "-m", "coverage"]
    subprocess.run(
        [*run, "combine", "--keep", "--quiet", *(str(f) for folder in done for f in folder.glob("data.*"))],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    subprocess.run([*run, "json", "--quiet", "-o", str(DATA / "coverage.json")], cwd=ROOT, env=environment, check=True)
    rooms: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, told in json.loads((DATA / "coverage.json").read_text())["files"].items():
        inner = name.rpartition("softprompt/")[2]
        room = inner.partition("/")[0] if "/" in inner else "top"
        for key in (room, "all"):
            rooms[key][0] += told["summary"]["covered_lines"]
            rooms[key][1] += told["summary"]["num_statements"]
    table = {
        room: {"covered": c, "lines": n, "percent": round(100 * c / max(1, n), 1)}
        for room, (c, n) in sorted(rooms.items())
    }
    record = {
        "rooms": table,
        "pieces": [path.name for path in done],
        "of": len(pieces()),
        "command": "python scripts/line_coverage.py",
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    for room, told in table.items():
        print(f"{room:12} {told['covered']:6} of {told['lines']:6} lines  {told['percent']:5} %")


def main() -> int:
    """Measure what is asked for; 1 where tests failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no piece after this time")
    parser.add_argument("--piece", action="append", help="only this one, again (may be repeated)")
    parser.add_argument("--all", action="store_true", help="run the tests marked slow as well")
    parser.add_argument("--report", action="store_true", help="only sum up")
    args = parser.parse_args()
    begun, failed = time.monotonic(), 0
    for piece in args.piece or ([] if args.report else pieces()):
        if not args.piece and (DATA / piece.replace("/", ".") / "done").exists():
            continue
        if time.monotonic() - begun < 60 * args.minutes:
            failed |= measure(piece, slow=args.all)
    report()
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
