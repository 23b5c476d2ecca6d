"""The files that people have, and those that somebody made to do harm: each is read, or gets one sentence."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from softprompt.errors import DataError, UsageError
from softprompt.tasks.catalog import load_task, names_in_folder
from softprompt.tasks.readers import read_rows
from softprompt.tasks.rows import BadRows
from softprompt.tasks.show import describe

ROWS = [f"film number {i}{{0}}{'ab'[i % 2]}" for i in range(20)]


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_task(str(path)).split("train")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("sign", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_csv_with_another_separator_is_read_and_named(tmp_path: Path, sign: str, word: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text{sign}label\n" + "".join(row.format(sign) + "\n" for row in ROWS))
    task = load_task(str(path))
    assert task.labels == ("a", "b")
    assert task.source.describe()["fields"] == f"separated by {word}"
    assert f"fields are separated by {word}" in task.note
    path.write_text(path.read_text() + f"a{sign}b{sign}c\n")
    assert f"has 3 fields where the header names 2, taking {word} to separate them" in refused(path)


def test_a_file_without_a_header_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("".join(row.format(",") + "\n" for row in ["a fine film", *ROWS][1:] + ROWS))
    assert "put a line of names in front, e.g. text,label" in refused(path)
    path.write_text("good,good\n" + "".join(row.format(",") + "\n" for row in ROWS))
    assert "if this is a row, put a line with the columns' names in front" in refused(path)


def test_byte_order_marks_and_utf16(tmp_path: Path) -> None:
    text = "text,label\n" + "".join(row.format(",") + "\n" for row in ROWS)
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_task(str(path)).labels == ("a", "b")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        path.write_bytes(text.encode(encoding))
        assert "is UTF-16, not UTF-8: save it as UTF-8" in refused(path)


def test_a_json_array_is_read_whole(tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": "ab"[i % 2]} for i in range(20)]
    (tmp_path / "train.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "validation.json").write_text(json.dumps(rows[:4]))
    task = load_task(f"{tmp_path}/")
    assert (len(task.split("train")), len(task.split("validation"))) == (20, 4)
    (tmp_path / "train.json").write_text(json.dumps(rows)[:-9])
    assert "is not a JSON array" in refused(tmp_path / "train.json")
    (tmp_path / "train.jsonl").write_text(json.dumps(rows) + "\n")
    assert "an array belongs into a file named .json" in refused(tmp_path / "train.jsonl")


def test_names_in_front_of_the_split(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("validation", 6)):
        rows = "".join(json.dumps({"text": f"{split} {i}", "label": "ab"[i % 2]}) + "\n" for i in range(count))
        (tmp_path / f"reviews.{split}.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    for task in (
        load_task(str(tmp_path / "reviews.train.jsonl.gz")), load_task("reviews", tmp_path), load_task(f"{tmp_path}/"),
    ):  # fmt: skip
        assert (len(task.split("train")), len(task.split("validation"))) == (20, 6)
    assert names_in_folder(tmp_path) == ["reviews"]
    (tmp_path / "other.train.csv").write_text("text,label\na,b\n")
    assert "holds the training files of other, reviews; name one" in refused(tmp_path)


def test_an_excel_sheet_is_read_where_its_reader_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK nothing")
    openpyxl = pytest.importorskip("openpyxl")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "openpyxl", None)
        assert "reading Excel needs the packages pandas and openpyxl: install softprompt[excel]" in refused(path)
    assert "is not a whole Excel workbook" in refused(path)
    book = openpyxl.Workbook()
    for row in [("text", "label"), *(tuple(row.format(";").split(";")) for row in ROWS)]:
        book.active.append(row)
    book.save(path)
    assert load_task(str(path)).labels == ("a", "b")


def test_empty_texts_are_counted(tmp_path: Path) -> None:
    from softprompt.tasks.check import check_task

    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{'' if i % 5 == 0 else f'film {i}'},{'ab'[i % 2]}\n" for i in range(40)))
    task = load_task(str(path))
    rows = [e for name in ("train", "validation") for e in task.split(name).examples]
    assert sum(task.is_empty(e) for e in rows) == 8
    natural = task.worded("natural")
    assert sum(natural.is_empty(e) for name in ("train", "validation") for e in natural.split(name).examples) == 8
    assert any("8 examples have empty inputs" in note for note in check_task(task)["notes"])
    assert describe(task)["columns"] == ["text"]


def test_doubtful_labels_are_told(tmp_path: Path) -> None:
    from softprompt.tasks.check import check_task, label_doubts

    def notes(rows: str) -> list[str]:
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / "train.csv").write_text("text,label\n" + rows)
        (tmp_path / "t" / "validation.csv").write_text("text,label\nx,a\ny,b\n")
        report = check_task(load_task(str(tmp_path / "t")))
        assert report["ok"]
        return list(report["notes"])

    assert notes("one,a\ntwo,b\n") == []
    assert notes("one,a\ntwo,b\nthree,A\n") == [
        "labels 'A', 'a' count as different ones: spell them alike if they mean the same."
    ]
    assert notes("one,a\ntwo,b\none,b\n") == ["train: 1 input(s) have more than one label; 'text: one' has 'a', 'b'."]
    assert notes("one,a\ntwo,b\nthree,-1\nfour,1\n") == []  # a sign is no spelling
    assert notes("one,a\ntwo,b\nthree,\n") == ["train: 1 rows have no gold label and are left out of training."]
    task = load_task(str(tmp_path / "t"))
    assert label_doubts(task, {"train": task.split("train").examples[:1]}) == ["train: no row has the label 'b'."]


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/passwd", "a/../../x.csv", "link.csv", "nul\x00.csv"])
def test_a_toml_names_files_of_its_own_folder_alone(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "secret.jsonl").write_text('{"text": "x", "label": "a"}\n')
    (folder / "link.csv").symlink_to(tmp_path / "secret.jsonl")
    (folder / "task.toml").write_text(f"train = {json.dumps(name)}\n")
    assert "which is not in its folder" in refused(folder)


@pytest.mark.parametrize("body", ["a = " + "[" * 30_000, "x = 1\n" * 20_000, "[" + ".".join("a" * 20_000) + "]\n"])
def test_a_deep_or_huge_toml_is_one_sentence(tmp_path: Path, body: str) -> None:
    (tmp_path / "task.toml").write_text(body)
    assert "task.toml" in refused(tmp_path)


@pytest.mark.parametrize("form", [pytest.param("gz", marks=pytest.mark.slow), "zst"])
def test_a_packed_file_that_fills_the_memory_is_refused(tmp_path: Path, form: str) -> None:
    zstandard = pytest.importorskip("zstandard")
    raw = b'{"text": "' + b"a" * 1000 + b'", "label": 1}\n'
    body = raw * 200_000  # 200 MB
    path = tmp_path / f"a.jsonl.{form}"
    path.write_bytes(gzip.compress(body, 9) if form == "gz" else zstandard.compress(body))
    del body
    with pytest.raises(DataError, match="200 times its own size") as caught:
        for _ in read_rows(path, BadRows()):
            pass
    assert "\n" not in str(caught.value)


def test_a_long_zst_is_read_to_its_end(tmp_path: Path) -> None:
    """A reader whose time grows with the square of the length does not come back from this file."""
    zstandard = pytest.importorskip("zstandard")
    body = "".join(json.dumps({"text": "word " * 190 + str(i * 7919)}) + "\n" for i in range(60_000))
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(body.encode(), 1))
    assert sum(1 for _ in read_rows(path, BadRows())) == 60_000


HOSTILE = """
import resource, sys
import pyarrow
from pathlib import Path
from softprompt.errors import DataError
from softprompt.tasks.readers import read_rows
from softprompt.tasks.rows import BadRows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    kept = [values for _, values in read_rows(Path(sys.argv[1]), BadRows())]
    print("read")
except DataError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", ["texts", "lists"])
def test_a_small_parquet_that_unpacks_to_gigabytes_is_refused_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    if kind == "texts":
        table = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 4_800), pa.array(["x" * 1_000_000]))})
    else:
        offsets = pa.array(range(0, 100_000_001, 1_000_000), pa.int32())
        table = pa.table({"text": pa.ListArray.from_arrays(offsets, pa.nulls(100_000_000, pa.int8()))})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1_000_000
    found = subprocess.run([sys.executable, "-c", HOSTILE, str(path)], capture_output=True, text=True, check=True)
    said, megabytes = found.stdout.splitlines()
    assert "200 times its own size" in said
    assert int(megabytes) < 700


def test_a_line_of_a_hundred_megabytes_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        file.write('{"text": "')
        for _ in range(100):
            file.write("x" * 1_000_000)
        file.write('"}\n{"text": "short"}\n')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bad = BadRows(1)
    assert [values for _, values in read_rows(path, bad)] == [{"text": "short"}]
    assert bad.count == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000  # KiB
