"""Text folders as a source of passages: read once, split lazily, drawn with the caller's generator.

A corpus file holds one document a line, plain (``.txt``) or packed (``.xz``, ``.gz``, ``.zst``). One document
in ``HELD_OUT_EVERY`` never trains: it is what the validation loss is measured on.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from softprompt.errors import DataError

SUFFIXES = (".txt", ".xz", ".gz", ".zst")
HELD_OUT_EVERY = 200
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[A-Z\"'(])")
_WORD_RANGE = (4, 20)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    """One corpus file and the sha256 of its bytes as they lie on the disk."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """The file's name without its folder: the only part that goes into a card."""
        return self.path.name


def text_files(folder: Path, names: Sequence[str] = ()) -> list[TextFile]:
    """The corpus files of ``folder``, sorted by name.

    Args:
        folder: where the files lie.
        names: keep only files whose name up to the first dot is one of these; empty keeps all.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES and path.is_file())
    chosen = [path for path in paths if not names or path.name.split(".")[0] in names]
    missing = set(names) - {path.name.split(".")[0] for path in chosen}
    if missing or not chosen:
        what = ", ".join(sorted(missing)) or "a text file"
        raise DataError(f"{folder} has no {what}: name a folder of {', '.join(SUFFIXES)} files, one document a line.")
    return [TextFile(path=path, sha256=_sha256(path)) for path in chosen]


def read_documents(path: Path) -> Iterator[str]:
    """The documents of one file, one a line, empty lines left out."""
    try:
        with _open(path) as lines:
            for line in lines:
                text = line.strip()
                if text:
                    yield text
    except (OSError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text, one document a line: {error}.") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """Consecutive sentences of one document; ``origin`` is the index of the file they come from."""

    sentences: tuple[str, ...]
    origin: int


@dataclass(kw_only=True)
class Corpus:
    """Documents in memory, split into a part that trains and a part that is held out."""

    files: list[TextFile]
    documents: list[tuple[str, int]] = field(default_factory=list)

    @classmethod
    def load(cls, files: list[TextFile], *, held_out: bool = False, limit: int | None = None) -> Corpus:
        """Read ``files``; ``limit`` caps the documents taken from each."""
        corpus = cls(files=files)
        for origin, file in enumerate(files):
            for index, text in enumerate(read_documents(file.path)):
                if limit is not None and index >= limit:
                    break
                if (index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out:
                    corpus.documents.append((text, origin))
        if not corpus.documents:
            raise DataError(f"{', '.join(file.name for file in files)} hold too few documents to pre-train on.")
        return corpus

    def text(self, rng: random.Random) -> str:
        """One whole document."""
        return self.documents[int(rng.random() * len(self.documents))][0]

    def passage(self, rng: random.Random, *, at_least: int = 3, at_most: int = 8) -> Passage:
        """Consecutive sentences of one document, at least ``at_least`` of them (fewer after 50 vain draws)."""
        found = Passage(sentences=("The text is empty here.",), origin=0)
        for _ in range(50):
            text, origin = self.documents[int(rng.random() * len(self.documents))]
            start = int(rng.random() * max(1, len(text) - 1500))
            sentences = split_sentences(text[start : start + 2500], drop_ends=True)
            if len(sentences) > len(found.sentences):
                found = Passage(sentences=tuple(sentences[:at_most]), origin=origin)
            if len(found.sentences) >= at_least:
                break
        return found


def split_sentences(text: str, *, drop_ends: bool = False) -> list[str]:
    """Sentences of four to 20 words; ``drop_ends`` leaves out the first and last, which a cut may have broken."""
    parts = _SENTENCE_END.split(text)
    if drop_ends:
        parts = parts[1:-1]
    low, high = _WORD_RANGE
    return [part for part in parts if low <= part.count(" ") + 1 <= high]


def _open(path: Path) -> IO[str]:
    if path.suffix == ".xz":
        return cast("IO[str]", lzma.open(path, "rt", encoding="utf-8"))
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8"))
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise DataError(
                f"{path.name} is packed with Zstandard: pip install zstandard, or use .xz or .gz."
            ) from error
        return io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(path.open("rb")), encoding="utf-8")
    return path.open(encoding="utf-8")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
