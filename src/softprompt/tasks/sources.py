"""Where rows come from: local files (jsonl, csv, tsv, parquet; plain, gz or zst), the Hugging Face hub, memory.

Every bad input is one sentence that names file and line; nothing is guessed around.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from softprompt.errors import DataError
from softprompt.tasks.rows import BadRows, Row

MAX_LINE_BYTES = 10_000_000
"""A longer line is taken for a damaged file."""

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = ("", ".gz", ".zst")

SPLIT_FILES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "validation_matched", "valid", "val", "dev"),
    "test": ("test", "test_matched"),
}
"""File stems that may hold a split, in order of preference."""


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


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Rows from ``<folder>/<split>.<format>``.

    Attributes:
        folder: holds one file a split.
        keep: the rows to use; all where None.
        rename: file column -> column of the task.
        files: split -> file, for files named otherwise; ``SPLIT_FILES`` in the folder where not given.
    """

    folder: Path
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def find(self, split: str) -> Path | None:
        """The file of a split; None where there is none."""
        if self.files:
            return self.files.get(split)
        for stem in SPLIT_FILES.get(split, (split,)):
            for kind in FORMATS:
                for compression in COMPRESSIONS:
                    path = self.folder / f"{stem}{kind}{compression}"
                    if path.is_file():
                        return path
        return None

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        path = self.find(split)
        if path is None:
            there = sorted(p.name for p in self.folder.iterdir())[:8] if self.folder.is_dir() else []
            holds = f"it holds {', '.join(there)}" if there else "it is empty or missing"
            raise DataError(
                f"{self.folder}: no file for split {split!r} (looked for {split}.jsonl, .csv, .tsv, .parquet, "
                f"plain or .gz or .zst); {holds}."
            )
        where, found = str(path), False
        for number, values in read_rows(path, bad):
            found = True
            if self.keep is not None and not self.keep(values):
                continue
            if self.rename:
                values = {self.rename.get(name, name): value for name, value in values.items()}
            yield Row(values=values, line=number, where=where, train=split == "train", labelled=split != "test")
        if not found and not bad.count:
            raise DataError(f"{path}: has no rows; give it at least one.")

    def describe(self) -> dict[str, Any]:
        return {"kind": "files", "folder": str(self.folder), "files": self._found()}

    def _found(self) -> dict[str, str]:
        paths = {split: self.find(split) for split in SPLIT_FILES}
        return {split: path.name for split, path in paths.items() if path is not None}


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Rows that a program holds or makes.

    Attributes:
        splits: split name -> rows, or a function that gives them.
        what: how `tasks show` names the source.
    """

    splits: Mapping[str, Sequence[Mapping[str, Any]] | Callable[[], Iterable[Mapping[str, Any]]]]
    what: str = "memory"

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        if split not in self.splits:
            raise DataError(f"{self.what}: no split {split!r}; it has {', '.join(self.splits)}.")
        held = self.splits[split]
        for i, values in enumerate(held() if callable(held) else held):
            yield Row(
                values=values,
                line=i + 1,
                where=f"{self.what}, split {split}",
                train=split == "train",
                labelled=split != "test",
            )

    def describe(self) -> dict[str, Any]:
        return {"kind": self.what, "splits": list(self.splits)}


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Rows of a parquet data set on the Hugging Face hub; no code of the hub is run.

    Attributes:
        repo: ``owner/name``.
        config: its configuration; None for the only one.
        branch: ``main``, or ``refs/convert/parquet`` where only the hub's own conversion of a script is parquet.
        revision: a commit to read; None reads the newest of ``branch``, and records it in `resolved`.
        splits: split -> the hub's split names, several of them read one after the other.
        rename: hub column -> column of the task.
        keep: the rows to use; all where None.
        tag: a column to add that names the hub split a row came from; none where empty.
        streamed: read over the network as needed, without a download of the whole.
    """

    repo: str
    config: str | None = None
    branch: str = "main"
    revision: str | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    tag: str = ""
    streamed: bool = False
    resolved: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        number = 0
        for name in self.splits.get(split, (split,)):
            for values in self._load(name):
                number += 1
                if self.keep is not None and not self.keep(values):
                    continue
                if self.rename:
                    values = {self.rename.get(column, column): value for column, value in values.items()}
                if self.tag:
                    values = {**values, self.tag: name}
                yield Row(
                    values=values,
                    line=number,
                    where=f"hf://datasets/{self.repo}, split {name}",
                    train=split == "train",
                    labelled=split != "test",
                )

    def pin(self) -> str | None:
        """The commit that is read, looked up once; None where the hub cannot be asked (offline)."""
        if self.revision is not None:
            return self.revision
        if "revision" not in self.resolved and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0"):
            from huggingface_hub import HfApi

            try:
                sha = HfApi().dataset_info(self.repo, revision=self.branch).sha
            except Exception as error:
                raise DataError(
                    f"data set {self.repo!r} could not be found on the hub ({type(error).__name__}); check the network, "
                    "set HF_HUB_OFFLINE=1 to read the cache, or give local files with --data."
                ) from error
            if sha:
                self.resolved["revision"] = sha
        return self.resolved.get("revision")

    def _load(self, name: str) -> Iterable[Mapping[str, Any]]:
        try:
            import datasets
        except ImportError:
            raise DataError(
                f"reading {self.repo!r} from the hub needs the package datasets; install softprompt[data]."
            ) from None
        revision = self.pin()
        try:
            if self.branch == "main":
                return datasets.load_dataset(  # type: ignore[no-any-return]
                    self.repo, self.config, split=name, revision=revision, streaming=self.streamed
                )
            at = revision or self.branch.replace("/", "%2F")
            folder = self._converted_folder(name, revision)
            files = f"hf://datasets/{self.repo}@{at}/{folder}/{name}/*.parquet"
            return datasets.load_dataset("parquet", data_files={"rows": files}, split="rows")  # type: ignore[no-any-return]
        except DataError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise DataError(
                f"split {name!r} of {self.repo!r} could not be read ({type(error).__name__}: {reason}); check the "
                "network and the name, or give local files with --data."
            ) from error

    def _converted_folder(self, name: str, revision: str | None) -> str:
        """The folder of the configuration in the hub's conversion, which sometimes names it ``default``."""
        wanted = self.config or "default"
        if revision is None:
            return wanted
        from huggingface_hub import HfApi

        paths = HfApi().list_repo_files(self.repo, repo_type="dataset", revision=revision)
        folders = sorted({p.split("/")[0] for p in paths if f"/{name}/" in p and p.endswith(".parquet")})
        if wanted in folders:
            return wanted
        if "default" in folders or len(folders) == 1:
            return "default" if "default" in folders else folders[0]
        raise DataError(
            f"{self.repo!r} has no parquet for {wanted!r}, split {name!r}; it has {', '.join(folders) or 'none'}."
        )

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "hub",
            "repo": self.repo,
            "config": self.config,
            "branch": self.branch,
            "revision": self.revision or self.resolved.get("revision"),
            "splits": {k: list(v) for k, v in self.splits.items()},
        }


@dataclass(frozen=True, kw_only=True)
class MissingSource:
    """A task whose data is neither here nor on the hub; says how to get it when it is read."""

    remedy: str

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        raise DataError(self.remedy)

    def describe(self) -> dict[str, Any]:
        return {"kind": "missing", "remedy": self.remedy}
