"""Opening a study that was run in a ledger: its settings and facts; needs neither data nor backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprompt.errors import UsageError
from softprompt.study.grid import DataFacts, Facts
from softprompt.study.ledger import Ledger
from softprompt.study.settings import Study, study_of


def open_study(folder: str | Path, name: str | None = None) -> tuple[Study, Ledger, Mapping[str, Any]]:
    """A study that was run in a ledger, with its facts.

    Args:
        folder: of the ledger.
        name: of the study; may be left out where the ledger holds one.

    Raises:
        UsageError: there is none, or several and no name was given.
    """
    ledger = Ledger(folder)
    names = ledger.studies()
    if not names:
        raise UsageError(f"{folder} holds no study: run one there first (`softprompt study run STUDY --out {folder}`).")
    if name is None and len(names) > 1:
        raise UsageError(f"{folder} holds the studies {', '.join(names)}: say which one.")
    chosen = name or names[0]
    plain, facts = ledger.noted(chosen, "study"), ledger.noted(chosen, "facts")
    if plain is None or facts is None:
        raise UsageError(f"{folder} holds no study '{chosen}'; it holds {', '.join(names)}.")
    return study_of(plain, f"study '{chosen}'"), ledger, facts


def facts_of(study: Study, noted: Mapping[str, Any]) -> Facts:
    """The facts a study was run with, from its ledger, so that a report needs neither data nor backbone."""
    data = {
        name: DataFacts(**{**row, "metrics": tuple(row["metrics"]), "labels": tuple(row["labels"])})
        for name, row in noted["data"].items()
    }
    return Facts(
        backbone=noted["backbone"],
        fingerprint=noted["fingerprint"],
        dtype=noted["dtype"],
        parameters=int(noted.get("parameters", 0)),
        kind=str(noted.get("kind", "")),
        data=data,
        contamination=tuple((t, s, int(n)) for t, s, n in noted["contamination"]),
    )
