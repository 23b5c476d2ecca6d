"""Files as rows: jsonl, csv, tsv and parquet, plain, gz or zst; each bad one is a sentence that names file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from softprompt.errors import DataError
from softprompt.tasks.rows import BadRows

MAX_LINE_BYTES = 10_000_000
"""A longer line is taken for a damaged file."""

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = ("", ".gz", ".zst")


def read_rows(path: Path, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based line, columns) of the rows of one file; unreadable rows go to ``bad``.

    Raises:
        DataError: where the file is missing, of an unknown format, damaged, or a bad row exceeds the budget.
    """
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if name.endswith((".jsonl", ".json")):
        return _jsonl(path, bad)
    if name.endswith(".csv"):
        return _table(path, bad, ",")
    if name.endswith(".tsv"):
        return _table(path, bad, "\t")
    if name.endswith(".parquet"):
        return _parquet(path)
    raise DataError(f"{path}: unknown format; use {', '.join(FORMATS)}, plain or with .gz or .zst.")


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.name.endswith(".zst"):
        try:
            import zstandard
        except ImportError:
            raise DataError(f"{path}: reading .zst needs the package zstandard; install softprompt[data].") from None
        return io.BufferedReader(_ZstdFile(path.open("rb"), zstandard.ZstdDecompressor()))
    return path.open("rb")


class _ZstdFile(io.RawIOBase):
    """A zst file that says where it is cut short, as gzip does; zstandard's own reader ends silently."""

    def __init__(self, file: IO[bytes], decompressor: Any) -> None:
        self._file = file
        self._decompressor = decompressor
        self._frame: Any = None
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            packed = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            packed = packed or self._file.read(io.DEFAULT_BUFFER_SIZE)
            if not packed:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._left = self._frame.decompress(packed)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _damaged(path: Path, line: int, error: Exception) -> DataError:
    if isinstance(error, gzip.BadGzipFile) and line == 1:
        return DataError(f"{path}: is not a gzip file; rename it or compress it again.")
    if isinstance(error, EOFError):
        return DataError(f"{path}, line {line}: the compressed file is cut short; fetch it again.")
    return DataError(f"{path}, line {line}: cannot be read ({error or type(error).__name__}); fetch the file again.")


def _lines(path: Path, bad: BadRows) -> Iterator[tuple[int, str]]:
    """(1-based number, text) of the lines of a text file, ends of line kept."""
    try:
        stream = _open(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}).") from error
    number = 0
    with stream:
        while True:
            number += 1
            try:
                raw = stream.readline(MAX_LINE_BYTES + 1)
                whole = raw.endswith(b"\n") or len(raw) <= MAX_LINE_BYTES
                while not whole:
                    rest = stream.readline(MAX_LINE_BYTES)
                    if rest.endswith(b"\n") or not rest:
                        break
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(path, number, error) from error
            except Exception as error:  # zstandard's own error class, which is not importable without the package
                if type(error).__name__ != "ZstdError":
                    raise
                raise _damaged(path, number, error) from error
            if not raw:
                return
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
            cut = "" if text.endswith("\n") else " and the line has no end: the file may be cut short"
            bad.record(DataError(f"{path}, line {number}: is not one JSON object ({what}){cut}."))
            continue
        if not isinstance(value, dict):
            bad.record(DataError(f"{path}, line {number}: holds a {type(value).__name__}, not a JSON object."))
            continue
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
    if delimiter == ",":
        reader = csv.reader(texts, strict=True)
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
                raise DataError(f"{path}, line 1: column names are empty or repeat: {', '.join(header)}.")
            continue
        if len(fields) != len(header):
            bad.record(
                DataError(f"{path}, line {start}: has {len(fields)} fields where the header names {len(header)}.")
            )
            continue
        yield start, dict(zip(header, fields, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path}: reading parquet needs the package pyarrow; install softprompt[data].") from None
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4096):
            for values in batch.to_pylist():
                number += 1
                yield number, values
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: texts that are not UTF-8
        reason = str(error).split("\n")[0]
        raise DataError(f"{path}, row {number + 1}: is not a whole parquet file ({reason}).") from error
