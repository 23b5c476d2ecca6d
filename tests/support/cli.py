"""For tests of the command line: call it in this process, and small tasks to call it on."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import pytest

from softprompt.cli import app

TEXTS = ("good film", "bad film", "great story", "poor plot", "the actor likes music", "not a great film", "bad music")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line."""
    code = app.run(arguments)
    captured = capsys.readouterr()
    check_next(captured.err)
    return code, captured.out, captured.err


ENDS = {"submission check"}
"""What a command may name as the only next one."""


def check_next(err: str) -> None:
    """What a command names as next is two or three commands, ready to paste but for a text and what only the user knows."""
    _, _, told = err.partition("\nnext:\n")
    found = [shlex.split(line) for line in told.splitlines() if line.startswith("  softprompt ")]
    if not found:
        return
    assert 2 <= len(found) <= 3 or " ".join(found[0][1:3]) in ENDS, told
    for words in found:
        assert not {"TASK", "LIBRARY", "DIR", "FOLDER", "None", ""} & set(words), words


def make_tasks(folder: Path, *names: str) -> None:
    """Tasks of 12 training and 8 validation rows, labels positive and negative, as csv files below ``folder``."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for split, rows in (("train", 12), ("validation", 8)):
            with (folder / name / f"{split}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["text", "label"])
                writer.writerows([f"{TEXTS[i % 7]} {name}", ("positive", "negative")[i % 2]] for i in range(rows))
