"""For tests of the command line: call it in this process, and small tasks to call it on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from softprompt.cli import app

TEXTS = ("good film", "bad film", "great story", "poor plot", "the actor likes music", "not a great film", "bad music")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line."""
    code = app.run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def make_tasks(folder: Path, *names: str) -> None:
    """Tasks of 12 training and 8 validation rows, labels positive and negative, as csv files below ``folder``."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for split, rows in (("train", 12), ("validation", 8)):
            with (folder / name / f"{split}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["text", "label"])
                writer.writerows([f"{TEXTS[i % 7]} {name}", ("positive", "negative")[i % 2]] for i in range(rows))
