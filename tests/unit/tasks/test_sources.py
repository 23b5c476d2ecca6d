"""Files of every format and every way a file can be bad: one sentence with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.errors import DataError
from softprompt.tasks import readers
from softprompt.tasks.readers import read_rows
from softprompt.tasks.rows import BadRows, Row
from softprompt.tasks.sources import FileSource, HubSource, MemorySource

ROWS = [{"text": 'good, "very" good', "label": 1}, {"text": "schön — 日本語", "label": 0}, {"text": "", "label": 1}]


def read(path: Path, allowed: int = 0) -> list[dict[str, Any]]:
    return [values for _, values in read_rows(path, BadRows(allowed))]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def message(path: Path, allowed: int = 0) -> str:
    with pytest.raises(DataError) as caught:
        read(path, allowed)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_jsonl_plain_gz_and_zst_give_the_same_rows(tmp_path: Path) -> None:
    import zstandard

    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS)))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(jsonl(ROWS)))
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "b.jsonl.gz") == read(tmp_path / "c.jsonl.zst") == ROWS


def test_csv_tsv_and_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.csv").write_text('text,label\n"good, ""very"" good",1\n"two\nlines",0\n\nlast,1\n')
    assert read(tmp_path / "a.csv") == [
        {"text": 'good, "very" good', "label": "1"},
        {"text": "two\nlines", "label": "0"},
        {"text": "last", "label": "1"},
    ]
    (tmp_path / "a.tsv").write_text('text\tlabel\nan "open quote\t1\n')
    assert read(tmp_path / "a.tsv") == [{"text": 'an "open quote', "label": "1"}]
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ROWS


def test_line_numbers_count_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",0\nlast,1\n')
    assert [line for line, _ in read_rows(tmp_path / "a.csv", BadRows())] == [2, 4]
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    assert [line for line, _ in read_rows(tmp_path / "a.jsonl", BadRows())] == [1, 3]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufefftext,label\nx,1\n".encode())
    assert read(tmp_path / "a.csv") == [{"text": "x", "label": "1"}]


def test_bad_json_names_its_line_and_a_file_cut_short_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    assert "line 2: is not one JSON object" in message(path)
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert "line 3" in message(path)
    assert "cut short" in message(path)
    path.write_text("[1]\n")
    assert "line 1: holds a list, not a JSON object" in message(path)


def test_bad_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,1\ny\n")
    assert "line 3: has 1 fields where the header names 2" in message(path)
    path.write_text('text,label\nx,1\n"y,1\n')
    assert "line 3" in message(path)
    assert "cut short" in message(path)
    path.write_text("text,text\nx,1\n")
    assert "line 1: column names are empty or repeat: text, text" in message(path)


def test_invalid_utf8_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    assert "line 2: not UTF-8 (byte 8 of the line is 0xff)" in message(path)


def test_a_line_longer_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + json.dumps({"a": "x" * 500}) + '\n{"a": 3}\n')
    assert "line 2: longer than 100 bytes" in message(path)
    assert read(path, allowed=1) == [{"a": 1}, {"a": 3}]
    exact = json.dumps({"a": "x" * 91})
    assert len(exact) == 100
    path.write_text(exact + "\n")
    assert read(path) == [json.loads(exact)]


def test_the_real_limit_is_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "x" * 10_000_001}) + "\n")
    assert "line 1: longer than 10,000,000 bytes" in message(path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_compressed_files_that_are_not_or_are_cut(tmp_path: Path, name: str) -> None:
    import zstandard

    path = tmp_path / name
    path.write_bytes(jsonl(ROWS))
    assert "is not a gzip file" in message(path) if name.endswith(".gz") else "cannot be read" in message(path)
    whole = jsonl([{"a": str(i) * 50} for i in range(2000)])
    packed = gzip.compress(whole) if name.endswith(".gz") else zstandard.compress(whole)
    path.write_bytes(packed[: len(packed) // 2])
    assert "line" in message(path)
    if name.endswith(".gz"):
        assert "cut short" in message(path)
        path.write_bytes(packed[:40] + b"\x00" * 40 + packed[80:])
        assert "fetch" in message(path)


def test_a_zst_cut_at_the_end_of_a_line_is_noticed(tmp_path: Path) -> None:
    import zstandard

    line = json.dumps({"a": "x" * 1014}) + "\n"
    assert len(line) == 1024
    compressor = zstandard.ZstdCompressor().compressobj()
    whole = b""
    for _ in range(4):
        whole += compressor.compress(line.encode() * 64) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(whole + compressor.flush())
    assert len(read(path)) == 256
    path.write_bytes(whole)
    assert "line 257: the compressed file is cut short" in message(path)
    frames = zstandard.compress(b'{"a": 1}\n') + zstandard.compress(b'{"a": 2}\n')
    path.write_bytes(frames)
    assert read(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("text", ['{"a": "\\ud83d"}', '{"a": ' + "9" * 5000 + "}", "[" * 100_000])
def test_json_that_parses_to_nothing_usable(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text + "\n")
    assert "line 1: is not one JSON object" in message(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"a": "\\ud83d\\ude00"}\n')
    assert read(tmp_path / "a.jsonl") == [{"a": "😀"}]


def whole_files() -> dict[str, bytes]:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    table, buffer = "text,label\n" + 'some "text, here",1\n' * 20, io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS * 10), buffer)
    return {
        "a.jsonl": jsonl(ROWS * 10),
        "a.csv": table.encode(),
        "a.tsv": table.replace(",", "\t").encode(),
        "a.jsonl.gz": gzip.compress(jsonl(ROWS * 10)),
        "a.csv.zst": zstandard.compress(table.encode()),
        "a.parquet": buffer.getvalue(),
    }


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.zst", "a.parquet"])
def test_a_damaged_file_gives_rows_or_one_sentence(tmp_path: Path, name: str) -> None:
    import random

    rng = random.Random(name)
    whole, path = whole_files()[name], tmp_path / name
    refused: list[str] = []
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            read(path)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(str(path) in text and "\n" not in text for text in refused)


def test_parquet_that_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 but not really")
    assert "is not a whole parquet file" in message(path)


def test_parquet_whose_metadata_ends_the_process_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"text": "a", "answers": ["b", "c"]}]), path)
    assert read(path) == [{"text": "a", "answers": ["b", "c"]}]
    readers._values_of_parquet.cache_clear()
    monkeypatch.setattr(readers, "_VALUES_OF_PARQUET", "import os; os.abort()")
    assert "is not a whole parquet file (its metadata cannot be read)" in message(path)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "a.jsonl")
    (tmp_path / "a.xml").write_text("<a/>")
    assert "unknown format" in message(tmp_path / "a.xml")


def test_bad_rows_are_skipped_up_to_the_budget_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\nnot json\n{"a": "\xff"}\n{"a": 4}\n')
    bad = BadRows(2)
    assert [v for _, v in read_rows(path, bad)] == [{"a": 1}, {"a": 4}]
    assert bad.count == 2
    assert "More than the 1 bad rows that may be skipped" in message(path, allowed=1)


def test_a_folder_finds_its_splits_and_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(jsonl(ROWS))
    (tmp_path / "dev.csv").write_text("text,label\nx,1\n")
    source = FileSource(folder=tmp_path)
    assert len(list(source.rows("train", BadRows()))) == 3
    assert next(iter(source.rows("validation", BadRows()))).values == {"text": "x", "label": "1"}
    with pytest.raises(DataError, match=r"no file for split 'test'.*it holds dev.csv, train.jsonl"):
        list(source.rows("test", BadRows()))
    with pytest.raises(DataError, match="empty or missing"):
        list(FileSource(folder=tmp_path / "nowhere").rows("train", BadRows()))


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"train.jsonl: has no rows"):
        list(FileSource(folder=tmp_path).rows("train", BadRows()))


def test_rows_are_renamed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"a": 1, "b": 1}\n{"a": 2, "b": 0}\n')
    source = FileSource(folder=tmp_path, keep=lambda row: bool(row["b"]), rename={"a": "c"})
    assert [(r.line, dict(r.values)) for r in source.rows("train", BadRows())] == [(1, {"c": 1, "b": 1})]


def row(**values: Any) -> Row:
    return Row(values=values, line=7, where="f.jsonl")


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (1, 1),
        ("1", 1),
        (True, 1),
        (1.0, 1),
        ("yes", 1),
        ("YES", 1),
        (0, 0),
        (-1, None),
        ("-1", None),
        (None, None),
        ("", None),
    ],
)
def test_labels_are_cast_to_their_index(value: object, index: int | None) -> None:
    assert row(label=value).label(("no", "yes")) == index


@pytest.mark.parametrize("value", [2, "2", 0.5, "maybe", -2, [1]])
def test_an_unknown_label_names_file_line_and_words(value: object) -> None:
    with pytest.raises(DataError, match=r"f.jsonl, line 7: label .* is none of no, yes \(or 0..1\)"):
        row(label=value).label(("no", "yes"))


def test_a_label_word_that_is_a_number_is_the_word() -> None:
    assert row(label="1").label(("1", "2")) == 0


def test_a_missing_column_names_those_there_are() -> None:
    with pytest.raises(DataError, match=r"line 7: no column 'premise'; it has hypothesis, label"):
        row(hypothesis="x", label=1).text("premise")
    with pytest.raises(DataError, match=r"no column 'label'"):
        row(text="x").label(("a", "b"))
    assert Row(values={"text": "x"}, line=1, where="f", labelled=False).label(("a", "b")) is None


@pytest.mark.parametrize(("value", "kind"), [(None, "null"), ({"a": 1}, "a dict"), ([1], "a list"), (True, "a bool")])
def test_text_columns_hold_text(value: object, kind: str) -> None:
    with pytest.raises(DataError, match=f"should hold text, found {kind}"):
        row(text=value).text("text")
    assert row(text=3).text("text") == "3"


def test_memory_source() -> None:
    source = MemorySource(splits={"train": ROWS, "validation": lambda: iter(ROWS[:1])}, what="made up")
    assert [r.line for r in source.rows("train", BadRows())] == [1, 2, 3]
    assert len(list(source.rows("validation", BadRows()))) == 1
    with pytest.raises(DataError, match="made up: no split 'test'"):
        list(source.rows("test", BadRows()))


class FakeHub:
    """Stands for the hub: remembers what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...] = ()) -> None:
        import datasets
        import huggingface_hub

        self.asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hub = self

        class Api:
            def dataset_info(self, repo: str, revision: str) -> Any:
                return type("Info", (), {"sha": "c" * 40})()

            def list_repo_files(self, repo: str, **settings: Any) -> list[str]:
                return list(files)

        def load_dataset(*args: Any, **settings: Any) -> list[dict[str, Any]]:
            hub.asked.append((args, settings))
            return [{"text": "x", "label": 1}]

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(huggingface_hub, "HfApi", Api)


def test_the_hub_is_read_at_its_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub(monkeypatch)
    source = HubSource(
        repo="a/b", config="c", revision="d" * 40, splits={"validation": ("dev_r1", "dev_r2")}, tag="round"
    )
    rows = list(source.rows("validation", BadRows()))
    assert [r.values["round"] for r in rows] == ["dev_r1", "dev_r2"]
    assert [r.line for r in rows] == [1, 2]
    assert hub.asked[0] == (("a/b", "c"), {"split": "dev_r1", "revision": "d" * 40, "streaming": False})


def test_an_unpinned_hub_commit_is_looked_up_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub = FakeHub(monkeypatch, files=("default/train/0000.parquet", "default/test/0000.parquet"))
    source = HubSource(repo="a/b", config="plain", branch="refs/convert/parquet")
    assert len(list(source.rows("train", BadRows()))) == 1
    assert source.describe()["revision"] == "c" * 40
    ((args, settings),) = hub.asked
    assert args == ("parquet", None)
    assert settings["data_files"] == {"rows": f"hf://datasets/a/b@{'c' * 40}/default/train/*.parquet"}


def test_a_hub_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def broken(*args: Any, **settings: Any) -> None:
        raise ConnectionError("no network\nand a trace")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(
        DataError, match=r"split 'train' of 'a/b' could not be read \(ConnectionError: no network\); check"
    ):
        list(HubSource(repo="a/b").rows("train", BadRows()))


def test_a_hub_that_breaks_off_half_way_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows() -> Any:
        yield {"text": "x"}
        raise ConnectionError("reset")

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **settings: rows())
    with pytest.raises(DataError, match=r"'train' of 'a/b' could not be read \(ConnectionError: reset\)"):
        list(HubSource(repo="a/b").rows("train", BadRows()))


@pytest.mark.parametrize("streamed", [False, True])
def test_the_datasets_library_gives_the_same_rows_as_the_file(tmp_path: Path, streamed: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"text": "a", "label": 1, "answers": {"text": ["x", "y"]}, "idx": {"paragraph": 1, "question": 2}}]
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "train.parquet")
    source = HubSource(repo=str(tmp_path / "set"), streamed=streamed)
    assert [dict(r.values) for r in source.rows("train", BadRows())] == rows
    assert [dict(r.values) for r in FileSource(folder=tmp_path / "set").rows("train", BadRows())] == rows
    with pytest.raises(DataError, match=r"split 'test' of .* could not be read"):
        list(source.rows("test", BadRows()))


def test_a_damaged_zst_array_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.json.zst").write_bytes(b"\x00")
    with pytest.raises(DataError, match="line 1: cannot be read"):
        list(read_rows(tmp_path / "a.json.zst", BadRows()))


@pytest.mark.parametrize("name", ["[S", "a{", "}", "a}b"])
def test_a_column_that_no_template_can_name_is_one_sentence(tmp_path: Path, name: str) -> None:
    from softprompt.tasks.user import load_user_task

    rows = [{name: f"text {i}", "label": ("yes", "no")[i % 2]} for i in range(8)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="means something to templates: rename it"):
        load_user_task(tmp_path / "a.jsonl")
