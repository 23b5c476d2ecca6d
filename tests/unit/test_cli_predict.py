"""``predict``: rows of a file by column, written back in order; texts worded as in training; nothing steers a terminal."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import call, make_tasks
from tests.support.models import save_tiny

from softprompt.cli.training import texts_of
from softprompt.errors import printable

SMALL = ("--steps", "2", "--batch-size", "2", "--prompt-length", "2", "--set", "eval_every=2", "--set", "embedding_step=2",
         "--set", "eval_rows=4", "--dtype", "float32")  # fmt: skip
ROWS = [{"id": str(9 - i), "text": f"good film {i}\u2028still film {i}", "seen": f"day, {i}"} for i in range(7)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predict")
    save_tiny("t5", root / "t5", width=16, layers=1)
    make_tasks(root / "data", "films")
    return root


@pytest.fixture
def library(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, ...]:
    monkeypatch.chdir(place)
    if not Path("lib").exists():
        asked = ("train", "--task", "films", "--data", "data", "--backbone", "t5", "--library", "lib", "--out", "run")
        code, _, err = call(capsys, *asked, *SMALL)
        assert code == 0, err
        assert "task films: inputs from text; label from label (negative, positive)" in err
        assert "task films: first example: 'text: " in err
    return ("--prompt", "films@1", "--library", "lib", "--backbone", "t5", "--dtype", "float32")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".tsv":
        path.write_text("\t".join(rows[0]) + "\n" + "".join("\t".join(row.values()) + "\n" for row in rows), "utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def read(path: Path) -> list[dict[str, Any]]:
    from softprompt.tasks.readers import read_rows
    from softprompt.tasks.rows import BadRows

    return [values for _, values in read_rows(path, BadRows())]


@pytest.mark.parametrize(("kind", "out"), [("csv", "csv"), ("tsv", "jsonl"), ("jsonl", "tsv"), ("parquet", "parquet")])
def test_rows_come_back_in_order_with_their_columns(
    library: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, out: str
) -> None:
    write(tmp_path / f"in.{kind}", ROWS)
    target = tmp_path / f"out.{out}"
    code, _, err = call(capsys, "predict", "--file", str(tmp_path / f"in.{kind}"), "--out", str(target), *library)
    assert code == 0, err
    found = read(target)
    assert [{k: v for k, v in row.items() if k != "prediction"} for row in found] == ROWS
    single = call(capsys, "predict", ROWS[3]["text"], *library, "--json")[1]
    one = json.loads(single)["predictions"][0]
    assert found[3]["prediction"] == one.get("label", one["output"])


def test_without_ray_it_says_what_to_install(
    library: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write(tmp_path / "in.csv", ROWS)
    asked = ("predict", "--file", str(tmp_path / "in.csv"), *library, "--executor")
    code, _, err = call(capsys, *asked, "ray")
    assert (code, "pip install 'softprompt[ray]'" in err) == (2, True)
    code, _, err = call(capsys, *asked, "serial", "--workers", "2")
    assert (code, "takes no option" in err) == (2, True)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning")
def test_ray_answers_as_this_process_does(
    library: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    write(tmp_path / "in.csv", [{"text": f"good film {i}"} for i in range(600)])
    found = []
    for name, how in (("serial", ()), ("ray", ("--workers", "2", "--executor-option", "cpus=0.5"))):
        out = tmp_path / f"{name}.jsonl"
        file = ("--file", str(tmp_path / "in.csv"), "--out", str(out), "--executor", name, *how)
        code, _, err = call(capsys, "predict", *file, *library)
        assert code == 0, err
        found.append(read(out))
    assert found[0] == found[1]
    write(tmp_path / "wrong.csv", [{"title": "x"}])
    code, _, err = call(capsys, "predict", "--file", str(tmp_path / "wrong.csv"), "--executor", "ray", *library)
    assert (code, "no column 'text'" in err) == (2, True), "a worker's own sentence"


def test_columns_of_other_names(library: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"Review Text": row["text"], "prediction": "x"} for row in ROWS]
    write(tmp_path / "in.csv", rows)
    asked = ("predict", "--file", str(tmp_path / "in.csv"), *library)
    code, _, err = call(capsys, *asked)
    assert code == 2
    assert "has a column 'prediction' already: name another one with --answer-column" in err
    code, _, err = call(capsys, *asked, "--answer-column", "answer")
    assert code == 2
    assert "no column 'text'; it has Review Text" in err
    code, out, _ = call(capsys, *asked, "--answer-column", "answer", "--text-column", "Review Text")
    assert code == 0
    assert out.splitlines()[0] == "Review Text,prediction,answer"
    code, _, err = call(capsys, *asked, "--answer-column", "answer", "--text-column", "Review Text,prediction")
    assert code == 2
    assert "names Review Text, prediction, and the prompt reads 1 columns, text" in err


def test_a_file_that_is_read_is_not_written_over(
    library: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in.csv", ROWS)
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    splits = sorted(path for path in Path("data").rglob("*.*") if path.is_file())
    before = {path: path.read_bytes() for path in (tmp_path / "in.csv", *splits)}
    asked = [
        ("predict", "--file", str(tmp_path / "in.csv"), "--out", str(tmp_path / name))
        for name in ("in.csv", "link.csv")
    ]
    asked += [("eval", "--task", "films", "--data", "data", "--predictions", str(path)) for path in splits]
    assert len(asked) > 2
    for command in asked:
        code, _, err = call(capsys, *command, *library)
        assert code == 2
        assert "is the file that the rows are read from: choose another name." in err
    assert {path: path.read_bytes() for path in before} == before


def test_predict_answers_a_split_as_eval_does(library: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("eval", "--task", "films", "--data", "data", "--predictions", "all.jsonl", *library)
    assert call(capsys, *asked)[0] == 0
    evaluated = [json.loads(line)["prediction"] for line in Path("all.jsonl").read_text().splitlines()]
    file = ("--file", "data/films/validation.csv", "--json")
    code, out, err = call(capsys, "predict", *file, *library)
    assert code == 0, err
    assert [row["prediction"] for row in json.loads(out)["predictions"]] == evaluated


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes("\ufefffirst\u2028still\x0cfirst\r\n\nlast".encode())
    assert texts_of(None, path) == ["first\u2028still\x0cfirst", "", "last"]


def test_what_could_steer_a_terminal_is_spelled_out(
    library: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a\x1b[2J\x9b31m\u202eb\x07"
    assert printable(evil) == "a\\x1b[2J\\x9b31m\\u202eb\\x07"
    assert printable("plain\ttext\n— 日本語") == "plain\ttext\n— 日本語"
    rows = [{"text": f"{evil} film {i}", "label": f"{evil}{i % 2}", evil: "x"} for i in range(20)]
    write(tmp_path / "evil.jsonl", rows)
    write(tmp_path / "in.csv", [{"text": evil, "note": evil}])
    path = str(tmp_path / "evil.jsonl")
    common = ("--backbone", "t5", "--out", str(tmp_path / "run"), *SMALL)
    for asked in (
        ("tasks", "show", path), ("tasks", "check", path), ("tasks", "show", path, "--json"),
        ("tasks", "check", path, "--label-column", evil), ("train", "--task", path, *common),
        ("predict", "--file", str(tmp_path / "in.csv"), *library), ("predict", "--prompt", evil, "x", *library[2:]),
        ("predict", evil, "--json", *library), ("eval", "--task", path, *library),
    ):  # fmt: skip
        _, out, err = call(capsys, *asked)
        assert not set("\x1b\x9b\u202e\x07") & {*out, *err}, asked


@pytest.mark.parametrize("text", ["good film " * 60, "a\0b", "good\nfilm", "~nobody/film"])
def test_a_text_is_no_folder_however_long_or_strange(text: str) -> None:
    from softprompt.cli.places import is_place

    assert not is_place(text)


@pytest.mark.parametrize("name", ["released", "released-smollm2"])
def test_a_library_that_ships_is_a_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `library ls` prints as the next command names it by its word; a folder of that name comes first."""
    from softprompt.cli.places import is_place, prompts_asked

    monkeypatch.chdir(tmp_path)
    assert is_place(name)
    assert prompts_asked(name, None, ("gen_sentiment_film@1",), one=True) == (name, ("gen_sentiment_film@1",))
    (tmp_path / name).mkdir()
    assert not is_place(name)
