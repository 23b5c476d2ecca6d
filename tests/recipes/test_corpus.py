"""Text folders: every packing, the held-out part, refusals."""

from __future__ import annotations

import gzip
import lzma
import random
from pathlib import Path

import pytest

from embedded_backbone.corpus import HELD_OUT_EVERY, Corpus, read_documents, split_sentences, text_files
from softprompt.errors import DataError

LINE = "The river was high in the spring of that year. Nobody crossed it before the summer came. The bridge was built later on. A ferry ran every day."


def test_reads_plain_and_packed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"three\n"))
    (tmp_path / "c.txt.xz").write_bytes(lzma.compress(b"four\n"))
    found = [text for file in text_files(tmp_path) for text in read_documents(file.path)]
    assert found == ["one", "two", "three", "four"]
    assert [file.name for file in text_files(tmp_path, ["c"])] == ["c.txt.xz"]


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no a text file"):
        text_files(tmp_path)
    (tmp_path / "bad.txt.xz").write_bytes(b"not packed")
    with pytest.raises(DataError, match=r"bad\.txt\.xz"):
        list(read_documents(tmp_path / "bad.txt.xz"))
    with pytest.raises(DataError, match="absent"):
        text_files(tmp_path, ["absent"])


def test_held_out_documents_never_train(tmp_path: Path) -> None:
    lines = [f"{at} {LINE}" for at in range(2 * HELD_OUT_EVERY)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    files = text_files(tmp_path)
    train, held = Corpus.load(files), Corpus.load(files, held_out=True)
    assert len(held.documents) == 2
    assert len(train.documents) == 2 * HELD_OUT_EVERY - 2
    assert not set(train.documents) & set(held.documents)


def test_passages_follow_the_generator(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "\n".join(f"{LINE} {LINE} Number {at} ends here now." for at in range(20)), encoding="utf-8"
    )
    corpus = Corpus.load(text_files(tmp_path))
    first = [corpus.passage(random.Random(7)) for _ in range(2)]
    assert first[0] == first[1]
    assert len(first[0].sentences) >= 3


def test_split_sentences_drops_what_a_cut_broke() -> None:
    assert split_sentences(LINE, drop_ends=True) == [
        "Nobody crossed it before the summer came.",
        "The bridge was built later on.",
    ]
