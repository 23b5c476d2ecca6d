"""A small study with an analytic trainer: its settings, its run, its cells."""

from __future__ import annotations

import json
from pathlib import Path

from softprompt.study.run import run_study
from softprompt.study.settings import Study, study_of

RUNNER = "tests.support.analytic:AnalyticRunner"


def made(**changes: object) -> Study:
    train = {"recipe": "spot", "steps": 12, "eval_every": 4}
    values = {
        "name": "tiny",
        "sources": ["alpha", "beta"],
        "targets": ["apple", "berry"],
        "seeds": [0, 1],
        "group": 3,
        "source": train,
        "target": {**train, "steps": 8},
        "embedding": {"step": 5},
        **changes,
    }
    return study_of(values)


def run(study: Study, folder: Path, **options: object) -> tuple[int, int]:
    """(cells made, steps taken)."""
    log = folder / "steps.log"
    folder.mkdir(exist_ok=True)
    before = len(log.read_text().splitlines()) if log.exists() else 0
    summary = run_study(study, folder, runner=RUNNER, runner_options={"log": str(log), **options})
    assert summary.complete, summary
    return summary.made, (len(log.read_text().splitlines()) if log.exists() else 0) - before


def contents(folder: Path) -> dict[str, object]:
    """Every cell's result, and the digest of its tensors, by kind and key."""
    out: dict[str, object] = {}
    for path in sorted((folder / "cells").glob("*/[!.]*/cell.json")):
        record = json.loads(path.read_text())
        out[f"{record['kind']}/{record['key']}"] = (record["result"], record["sha256"])
    return out
