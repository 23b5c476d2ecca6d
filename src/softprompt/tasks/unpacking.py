"""Files plain, gz or zst as a stream of bytes whose memory and time are bounded, whatever the file holds."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from softprompt.errors import DataError

COMPRESSIONS = ("", ".gz", ".zst")

MOST_UNPACKED = 64_000_000
"""Bytes that any file may unpack to; beyond them it may unpack to `MOST_RATIO` times its size."""

MOST_RATIO = 200
"""Texts compress 3 to 30 times; more than this is a damaged file, or one made to fill the memory."""

_PIECE = 1024  # packed bytes unpacked at a time: at most 32 MB come of them


def open_file(path: Path) -> IO[bytes]:
    """A data file as plain bytes.

    Raises:
        DataError: it cannot be opened, or its package is missing.
    """
    try:
        file = path.open("rb")
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}).") from error
    if path.name.endswith(".gz"):
        return _bounded(gzip.GzipFile(fileobj=file), path, size, file)
    if path.name.endswith(".zst"):
        try:
            import zstandard
        except ImportError:
            raise DataError(f"{path}: reading .zst needs the package zstandard; install softprompt[data].") from None
        return _bounded(_ZstdFile(file, zstandard.ZstdDecompressor()), path, size, file)
    return file


def check_unpacked(path: Path, size: int, unpacked: int) -> None:
    """Raises DataError where a file of ``size`` bytes unpacks to more than it should."""
    if unpacked > max(MOST_UNPACKED, MOST_RATIO * size):
        raise DataError(
            f"{path}: unpacks to more than {max(MOST_UNPACKED, MOST_RATIO * size):,} bytes, {MOST_RATIO} times its own "
            "size: it is damaged or made to fill the memory; unpack it yourself if it is sound."
        )


def place_in(stream: IO[bytes]) -> int:
    """Bytes of a file on the disk that have been read, of a stream of `open_file`."""
    raw = getattr(stream, "raw", None)
    return raw.file.tell() if isinstance(raw, _Counted) else stream.tell()


def _bounded(stream: Any, path: Path, size: int, file: IO[bytes]) -> IO[bytes]:
    counted = _Counted(stream, lambda unpacked: check_unpacked(path, size, unpacked), file)
    return cast(IO[bytes], io.BufferedReader(counted))


class _Counted(io.RawIOBase):
    """A stream over a packed file that counts what it gives and asks at every piece whether that is allowed."""

    def __init__(self, stream: Any, check: Callable[[int], None], file: IO[bytes]) -> None:
        self._stream, self._check, self._count, self.file = stream, check, 0, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._stream.readinto(buffer))
        self._count += count
        self._check(self._count)
        return count

    def close(self) -> None:
        self._stream.close()
        self.file.close()
        super().close()


class _ZstdFile(io.RawIOBase):
    """A zst file that says where it is cut short, as gzip does; zstandard's own reader ends silently."""

    def __init__(self, file: IO[bytes], decompressor: Any) -> None:
        self._file = file
        self._decompressor = decompressor
        self._frame: Any = None
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            packed = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            packed = packed or self._file.read(_PIECE)
            if not packed:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            try:
                self._left = memoryview(self._frame.decompress(packed))
            except Exception as error:  # zstandard's own class, which is not importable without the package
                raise OSError(str(error)) from error
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
