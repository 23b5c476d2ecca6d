"""Rows as files: csv, tsv, jsonl and parquet, written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt.errors import DataError, UsageError

WRITTEN = (".csv", ".tsv", ".jsonl", ".parquet")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows in the format the file's name says.

    Raises:
        UsageError: it says none of `WRITTEN`.
        DataError: a field holds what the format cannot (a tab in a tsv, mixed types in a column of a parquet file).
    """
    from softprompt.artifacts import write_bytes

    if path.suffix not in WRITTEN:
        raise UsageError(f"{path}: rows are written as {', '.join(WRITTEN)}; choose one of these names.")
    if path.suffix == ".parquet":
        write_bytes(path, _parquet(path, rows))
    else:
        write_bytes(path, table_text(rows, path.suffix[1:]).encode("utf-8", "surrogatepass"))


def table_text(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Rows as the text of a csv or tsv file; of a jsonl file for any other kind."""
    if kind not in ("csv", "tsv"):
        return "".join(json.dumps(dict(row), ensure_ascii=False, default=str) + "\n" for row in rows)
    text = io.StringIO()
    if kind == "csv":
        writer = csv.writer(text, lineterminator="\n")
    else:
        writer = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n", quotechar=None)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        writer.writerow(columns)
        writer.writerows([_field(row.get(name)) for name in columns] for row in rows)
    except csv.Error as error:
        raise DataError(f"a row cannot be written as {kind} ({error}): write csv or jsonl.") from None
    return text.getvalue()


def _field(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


def _parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path}: writing parquet needs the package pyarrow; install softprompt[data].") from None
    try:
        table = pa.Table.from_pylist([dict(row) for row in rows])
    except pa.ArrowException as error:
        raise DataError(f"{path}: the rows do not fit a parquet table ({error}): write jsonl.") from None
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
