"""Makes the rows of the built-in tasks, and says whether they are those that the package holds.

PYTHONPATH=recipes python -m generated_tasks            # compare
PYTHONPATH=recipes python -m generated_tasks --write    # make the package's files anew: another grammar, other tasks
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator

from generated_tasks.draw import GeneratedRow, rows
from generated_tasks.makers import MAKERS
from softprompt.tasks.generated import FOLDER, TASKS, VALIDATION_ROWS


def made(name: str, split: str) -> Iterator[GeneratedRow]:
    """The rows of ``train`` or ``validation``; the same in every process."""
    count = TASKS[name]["train_rows"] if split == "train" else VALIDATION_ROWS
    labels = tuple(TASKS[name].get("labels", ())) or None
    return rows(name, split != "train", count, labels, MAKERS[name])


def lines(name: str) -> bytes:
    """A task's file, unpacked: a row a line, those of validation last."""
    both = (row for split in ("train", "validation") for row in made(name, split))
    return "".join(json.dumps({**row.fields, "label": row.target}) + "\n" for row in both).encode()


def main() -> None:
    """Compare or write every task."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="put the rows into the package")
    write = options.parse_args().write
    for name in MAKERS:
        path, told = FOLDER / "rows" / f"{name}.jsonl.xz", lines(name)
        same = path.is_file() and lzma.decompress(path.read_bytes()) == told
        if write and not same:
            path.write_bytes(lzma.compress(told, preset=9 | lzma.PRESET_EXTREME))
        print(f"{name}: {'same' if same else 'written' if write else 'DIFFERS'}")


if __name__ == "__main__":
    main()
