"""The data folder of the SmolLM2 study: every task as it stands, and Yelp validated on rows cut from its training file.

    python benchmarks/smollm2_data.py DATA OUT
    SOFTPROMPT_DATA=OUT softprompt study run smollm2 --out runs/smollm2

Yelp's validation file at hand is 96.7 % positive (4,837 of 5,000 rows), its training file 51 %: a prompt that always answers
"positive" would win there. So the last 2,000 training rows, whose texts stand nowhere before them, validate, and the others train.
The other tasks are links to their folders in DATA.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

TASK = "yelp_polarity"
HELD = 2000
"""Rows that validate."""


def write(path: Path, lines: list[str]) -> None:
    """The same lines give the same bytes."""
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tasks = args.out / "tasks"
    (tasks / TASK).mkdir(parents=True, exist_ok=True)
    for folder in sorted((args.data / "tasks").iterdir()):
        if folder.name != TASK and not (tasks / folder.name).exists():
            (tasks / folder.name).symlink_to(folder.resolve())
    with gzip.open(args.data / "tasks" / TASK / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = list(file)
    train, held = lines[:-HELD], lines[-HELD:]
    seen = {json.loads(line)["text"] for line in train}
    held = [line for line in held if json.loads(line)["text"] not in seen]
    write(tasks / TASK / "train.jsonl.gz", train)
    write(tasks / TASK / "validation.jsonl.gz", held)
    share = sum(json.loads(line)["label"] for line in held) / len(held)
    print(f"{len(train)} rows train, {len(held)} validate, {share:.1%} of them positive")


if __name__ == "__main__":
    main()
