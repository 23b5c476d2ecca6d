"""SPoT Table 1 over the studies of a ledger: longer tuning and its ablation side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from softprompt import artifacts
from softprompt.errors import UsageError
from softprompt.study.generic import joint_table
from softprompt.study.tables import Table


def benchmark_table(folder: str | Path, names: Sequence[str] = ()) -> Table:
    """GLUE and SuperGLUE averages of studies in one ledger; rows of all but the first are marked with their study.

    Args:
        folder: of the ledger.
        names: of the studies, the main one first; may be left out where the ledger holds one.

    Raises:
        UsageError: the ledger lacks a study, or their targets are not the same benchmarks'.
    """
    from softprompt.study.run import collect, facts_of, open_study

    studies = {}
    for i, name in enumerate(names or (None,)):
        study, ledger, noted = open_study(folder, name)
        mark = study.name if i else ""
        if mark in studies:
            raise UsageError(f"study {study.name} is named twice: name each once.")
        studies[mark] = collect(study, ledger, facts_of(study, noted))
    return joint_table(studies)


def write_table(table: Table, out: str | Path) -> list[Path]:
    """A table as CSV and LaTeX."""
    files = [Path(out) / f"{table.name}.{suffix}" for suffix in ("csv", "tex")]
    for path, text in zip(files, (table.to_csv(), table.to_latex()), strict=True):
        artifacts.write_bytes(path, text.encode(), durable=False)
    return files
