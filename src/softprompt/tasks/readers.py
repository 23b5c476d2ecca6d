"""Files as rows: jsonl, json, csv, tsv, parquet and xlsx; each bad one is a sentence that names file and line.

Text files may be packed (.gz, .zst). A csv may separate its fields by ``;``, ``|`` or tabs: its header says which.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from softprompt import waits
from softprompt.errors import DataError
from softprompt.tasks.rows import BadRows
from softprompt.tasks.unpacking import check_unpacked, open_file, place_in

MAX_LINE_BYTES = 10_000_000
"""A longer line is taken for a damaged file."""

MOST_ARRAY_BYTES = 200_000_000
"""A JSON array is read whole; a larger one should be jsonl."""

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


TOLD_LINES = 20_000
"""A longer file tells how far its reading is, at so many lines each."""


@contextmanager
def _told(path: Path) -> Iterator[Callable[[int], None]]:
    """A function that tells how many bytes of a file are read; a wait that was told ends with the reading."""
    title, size, begun = f"reading {path.name} (MB)", int(path.stat().st_size / 1e6) + 1, False

    def tell(place: int) -> None:
        nonlocal begun
        begun = True
        waits.tell(title, int(place / 1e6), size)

    try:
        yield tell
    finally:
        if begun:
            waits.tell(title, size, size)


def format_of(path: Path) -> str | None:
    """The format a file's name says, compression left out; None for none that holds rows."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    return next((kind for kind in FORMATS if name.endswith(kind)), None)


def read_rows(path: Path, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based line, columns) of the rows of one file; unreadable rows go to ``bad``.

    Raises:
        DataError: where the file is missing, of an unknown format, damaged, or a bad row exceeds the budget.
    """
    if not os.path.isfile(path):  # False for a name that no file can have, too
        raise DataError(f"{path}: no such file.")
    kind = format_of(path)
    if kind in (".jsonl", ".json"):
        return _array(path) if kind == ".json" and _first_sign(path) == "[" else _jsonl(path, bad)
    if kind in (".csv", ".tsv"):
        return _table(path, bad, separator(path))
    if kind == ".parquet":
        return _parquet(path)
    if kind == ".xlsx":
        return _sheet(path)
    raise DataError(f"{path}: unknown format; use {', '.join(FORMATS)}; texts plain or with .gz or .zst.")


def separator(path: Path) -> str:
    """What stands between the fields of a csv or tsv: tabs in a tsv; in a csv what its header holds, commas first."""
    if format_of(path) == ".tsv":
        return "\t"
    _, head = next(_lines(path, BadRows()), (1, ""))
    counts = {sign: head.count(sign) for sign in SEPARATORS}
    return "," if counts[","] else max(counts, key=lambda sign: counts[sign])


def _first_sign(path: Path) -> str:
    """The first character of a file that is no blank; empty where there is none."""
    with open_file(path) as stream:
        try:
            head = stream.read(4096)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, 1, error) from error
    return head.decode("utf-8-sig", "replace").lstrip()[:1]


def _damaged(path: Path, line: int, error: Exception) -> DataError:
    if isinstance(error, gzip.BadGzipFile) and line == 1:
        return DataError(f"{path}: is not a gzip file; rename it or compress it again.")
    if isinstance(error, EOFError):
        return DataError(f"{path}, line {line}: the compressed file is cut short; fetch it again.")
    return DataError(f"{path}, line {line}: cannot be read ({error or type(error).__name__}); fetch the file again.")


def _lines(path: Path, bad: BadRows) -> Iterator[tuple[int, str]]:
    """(1-based number, text) of the lines of a text file, ends of line kept."""
    number = 0
    with open_file(path) as stream, _told(path) as tell:
        while True:
            number += 1
            if number % TOLD_LINES == 0:
                tell(place_in(stream))
            try:
                raw = stream.readline(MAX_LINE_BYTES + 1)
                whole = raw.endswith(b"\n") or len(raw) <= MAX_LINE_BYTES
                while not whole:
                    rest = stream.readline(MAX_LINE_BYTES)
                    if rest.endswith(b"\n") or not rest:
                        break
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(path, number, error) from error
            if not raw:
                return
            if number == 1 and (raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in raw[:4]):
                raise DataError(
                    f"{path}: is UTF-16, not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8; else iconv -f UTF-16 -t UTF-8)."
                )
            if not whole:
                bad.record(DataError(f"{path}, line {number}: longer than {MAX_LINE_BYTES:,} bytes; cut it."))
                continue
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                at = f"byte {error.start + 1} of the line is 0x{raw[error.start]:02x}"
                bad.record(DataError(f"{path}, line {number}: not UTF-8 ({at}); convert the file to UTF-8."))


def _jsonl(path: Path, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in _lines(path, bad):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
            if "\\u" in text:  # an escape may stand for half a character, which no tokenizer takes
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            what = _json_problem(error)
            if number == 1 and text.strip() == "[":
                raise DataError(f"{path}: holds a JSON array, not one object a line: name it .json.") from None
            cut = "" if text.endswith("\n") else " and the line has no end: the file may be cut short"
            bad.record(DataError(f"{path}, line {number}: is not one JSON object ({what}){cut}."))
            continue
        if not isinstance(value, dict):
            array = "; an array belongs into a file named .json" if isinstance(value, list) else ""
            bad.record(DataError(f"{path}, line {number}: holds a {type(value).__name__}, not a JSON object{array}."))
            continue
        yield number, value


def _array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based number, columns) of the objects of one JSON array."""
    with open_file(path) as stream, _told(path):
        try:
            raw = stream.read(MOST_ARRAY_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, 1, error) from error
    if len(raw) > MOST_ARRAY_BYTES:
        raise DataError(
            f"{path}: is an array of more than {MOST_ARRAY_BYTES:,} bytes: write one object a line (.jsonl)."
        )
    try:
        text = raw.decode("utf-8-sig")
        values = json.loads(text)
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{where}: is not a JSON array ({_json_problem(error)}).") from None
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"{path}, item {number}: holds a {type(value).__name__}, not a JSON object.")
        yield number, value


def _json_problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    if isinstance(error, UnicodeEncodeError):
        return "an escape like \\ud83d stands for half a character"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"


def _table(path: Path, bad: BadRows, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """csv (quotes as in RFC 4180) or tsv (no quotes, as GLUE ships it); the first line names the columns."""
    csv.field_size_limit(MAX_LINE_BYTES)
    texts = (text for _, text in _lines(path, bad))
    if format_of(path) == ".csv":
        reader = csv.reader(texts, delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(texts, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cut = " (a quote is not closed: the file may be cut short)" if "end of data" in str(error) else ""
            bad.record(DataError(f"{path}, line {start}: is not valid {path.suffixes[0][1:]}: {error}{cut}."))
            continue
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
            if len(set(header)) != len(header) or "" in header:
                raise DataError(
                    f"{path}, line 1: column names are empty or repeat: {', '.join(header)}; if this is a row, put a line "
                    "with the columns' names in front (text,label)."
                )
            continue
        if len(fields) != len(header):
            apart = "" if delimiter == "," else f", taking {SEPARATORS[delimiter]} to separate them"
            bad.record(
                DataError(
                    f"{path}, line {start}: has {len(fields)} fields where the header names {len(header)}{apart}."
                )
            )
            continue
        yield start, dict(zip(header, fields, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path}: reading parquet needs the package pyarrow; install softprompt[data].") from None
    number, unpacked, size = 0, 0, path.stat().st_size
    try:
        file = pq.ParquetFile(path)
        _check_parquet(path, size, file)
        rows = file.metadata.num_rows
        texts = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        # Repeated texts stay one text each until a few rows of them are made: a small file may repeat a large one.
        for batch in pq.ParquetFile(path, read_dictionary=texts).iter_batches(batch_size=256):
            waits.tell(f"reading {path.name} (rows)", min(number + batch.num_rows, rows), rows)
            for start in range(0, batch.num_rows, 16):
                for values in batch.slice(start, 16).to_pylist():
                    number += 1
                    unpacked += _text_bytes(values)
                    check_unpacked(path, size, unpacked)
                    yield number, values
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: texts that are not UTF-8
        reason = str(error).split("\n")[0]
        raise DataError(f"{path}, row {number + 1}: is not a whole parquet file ({reason}).") from error


_VALUES_OF_PARQUET = """
import sys, pyarrow.parquet as pq
told = pq.ParquetFile(sys.argv[1]).metadata
print(sum(group.column(i).num_values for group in map(told.row_group, range(told.num_row_groups)) for i in range(group.num_columns)))
"""


def _check_parquet(path: Path, size: int, file: Any) -> None:
    """What a parquet file says of itself, before any of it is unpacked: the bytes of its groups, and 8 for each value."""
    import pyarrow as pa

    told = file.metadata
    groups = [told.row_group(g) for g in range(told.num_row_groups)]
    values: int | None = told.num_columns * sum(group.num_rows for group in groups)
    if any(pa.types.is_nested(field.type) for field in file.schema_arrow):  # a row may hold any number of values
        values = _values_of_parquet(os.path.abspath(path), size, path.stat().st_mtime_ns)
    if values is None:
        raise ValueError("its metadata cannot be read")
    for found in (8 * values, *(group.total_byte_size for group in groups)):
        check_unpacked(path, size, found)


@lru_cache(maxsize=64)
def _values_of_parquet(path: str, size: int, changed: int) -> int | None:
    """Values of all columns, or None where the file cannot say; ``size`` and ``changed`` say that it is the same as before.

    A process of its own asks: where a column's metadata is damaged, pyarrow ends the process that asks for it.
    """
    asked = [sys.executable, "-I", "-c", _VALUES_OF_PARQUET, path]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    return int(ended.stdout) if ended.returncode == 0 and ended.stdout.strip().isdigit() else None


def _text_bytes(value: Any) -> int:
    """Bytes of a row's values: of texts what they hold, and at least 8 of any value."""
    if isinstance(value, str | bytes):
        return max(8, len(value))
    if isinstance(value, dict):
        return sum(map(_text_bytes, value.values()))
    return sum(map(_text_bytes, value)) if isinstance(value, list) else 8


def _sheet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The first sheet of a workbook, by pandas; an empty cell is a missing value."""
    try:
        openpyxl, pandas = import_module("openpyxl"), import_module("pandas")
    except ImportError:
        raise DataError(
            f"{path}: reading Excel needs the packages pandas and openpyxl: install softprompt[excel], or save the sheet as CSV UTF-8."
        ) from None
    try:
        with zipfile.ZipFile(path) as packed:
            check_unpacked(path, path.stat().st_size, sum(item.file_size for item in packed.infolist()))
        with _told(path) as tell:
            tell(0)
            frame = pandas.read_excel(path, engine=openpyxl.__name__)
    except DataError:
        raise
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise DataError(f"{path}: is not a whole Excel workbook ({reason}).") from error
    for number, values in enumerate(frame.to_dict("records"), start=2):
        yield number, {str(name): None if _missing(value) else value for name, value in values.items()}


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
