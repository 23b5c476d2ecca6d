"""Which columns are read, which is the answer, and what kind it is: one documented meaning or one sentence each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.catalog import load_task
from softprompt.tasks.check import check_task
from softprompt.tasks.task import Task


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def films(count: int = 30, **columns: Any) -> list[dict[str, Any]]:
    """Rows of a text, of a label that alternates, and of further columns given as functions of the row's number."""
    rows = [{"text": f"film number {i}", "label": "ab"[i % 2]} for i in range(count)]
    return [{**row, **{name: make(i) for name, make in columns.items()}} for i, row in enumerate(rows)]


def test_columns_are_chosen_by_name_and_order(tmp_path: Path) -> None:
    rows = [{"Review Text": f"r{i}", "title": f"t{i}", "verdict": "yn"[i % 2], "id": i} for i in range(20)]
    path = table(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        DataError, match=r"no label column among Review Text, title, verdict, id; say which .* .--label-column"
    ):
        load_task(path)
    task = load_task(path, label="verdict")
    assert task.wording is not None
    assert (task.wording.columns, task.wording.label_column) == (("Review Text", "title"), "verdict")
    assert "Columns left out: id" in task.note
    task = load_task(path, text=["title", "Review Text"], label="verdict")
    assert task.split("train").examples[0].inputs.startswith("title: t")
    assert task.worded("natural").split("train").examples[0].inputs.endswith("\nVerdict:")
    with pytest.raises(DataError, match="no column 'titel'; it has Review Text, title"):
        load_task(path, text="titel", label="verdict")
    with pytest.raises(UsageError, match="named as text and as label"):
        load_task(path, text="verdict", label="verdict")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("score", lambda i: 0.5 + 0.01 * i if i % 2 else 0.4 - 0.01 * i),  # a threshold
        ("stars", lambda i: 5 if i % 2 else 1),  # a value a label
        ("mood", lambda i: ["bad", "poor", "good", "great"][i % 2 * 2 + i // 2 % 2]),
    ],
)
def test_a_column_that_gives_the_label_away_is_refused_unless_asked_for(tmp_path: Path, name: str, make: Any) -> None:
    path = table(tmp_path / "a.jsonl", films(30, **{name: make}))
    with pytest.raises(
        UsageError, match=f"column '{name}' determines the label 'label' in all 30 rows.*--text-column text"
    ):
        load_task(path)
    assert load_task(path, text="text").split("train").examples[0].inputs.startswith("text: film")
    asked = load_task(path, text=["text", name])
    assert f"{name}: " in asked.split("train").examples[0].inputs


def test_a_column_that_only_helps_is_read(tmp_path: Path) -> None:
    rows = films(30, year=lambda i: 1990 + i * 7 % 30, place=lambda i: "xyz"[i * i % 3])
    assert load_task(table(tmp_path / "a.jsonl", rows)).wording.columns == ("text", "year", "place")  # type: ignore[union-attr]


def test_repeated_texts_are_no_column_that_gives_the_label_away(tmp_path: Path) -> None:
    rows = [{"text": f"film {i % 6}", "label": "ab"[i % 2]} for i in range(60)]
    assert load_task(table(tmp_path / "a.jsonl", rows)).labels == ("a", "b")


def test_label_text_names_the_numbers_of_label(tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": i % 2, "label_text": ["bad", "good"][i % 2]} for i in range(20)]
    task = load_task(table(tmp_path / "a.jsonl", rows))
    assert task.labels == ("bad", "good")
    assert "Columns left out: label." in task.note


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan"), "<unk>"])
def test_a_missing_label_is_left_out_of_training_and_of_scores(tmp_path: Path, missing: Any) -> None:
    rows = films(30)
    rows[3]["label"] = missing
    folder = tmp_path / "m"
    folder.mkdir()
    table(folder / "train.jsonl", rows)
    table(folder / "validation.jsonl", rows)
    task = load_task(f"{folder}/")
    train, validation = task.split("train"), task.split("validation")
    assert task.labels == ("a", "b")
    assert (len(train), train.unlabelled, len(validation)) == (29, 1, 30)
    assert validation.examples[3].targets == "<unk>"
    assert task.score([e.targets for e in validation.examples], validation.examples)["accuracy"] == 100
    report = check_task(task)
    assert report["ok"]
    assert any("1 rows have no gold label and are left out of training" in note for note in report["notes"])


def test_no_label_at_all(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", [{"text": "x", "label": None}] * 5)
    with pytest.raises(DataError, match="column 'label' holds no label in 5 rows"):
        load_task(path)


@pytest.mark.parametrize(
    "values",
    [[0.25 * (i % 12) for i in range(40)], [1 + i % 12 for i in range(40)], [str(0.25 * (i % 12)) for i in range(40)]],
    ids=["decimals", "whole", "texts"],
)
def test_what_may_be_classes_or_scores_is_asked(tmp_path: Path, values: list[Any]) -> None:
    path = table(tmp_path / "a.jsonl", [{"text": f"film {i}", "label": v} for i, v in enumerate(values)])
    with pytest.raises(
        DataError, match=r"12 distinct values in 40 rows: are they classes or scores\? Say --kind classification"
    ):
        load_task(path)
    classes = load_task(path, kind="classification")
    assert classes.labels is not None
    assert len(classes.labels) == 12
    assert [float(label) for label in classes.labels] == sorted(float(label) for label in classes.labels)
    scores = load_task(path, kind="regression")
    assert (scores.labels, scores.metrics) == (None, ("pearson", "spearman"))
    gold = scores.split("train").examples
    assert scores.score([e.targets for e in gold], gold)["pearson"] == pytest.approx(100)
    with pytest.raises(UnknownNameError, match="did you mean regression"):
        load_task(path, kind="regresion")


def test_whole_floats_are_classes(tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": float(i % 2)} for i in range(20)]
    assert load_task(table(tmp_path / "a.jsonl", rows)).labels == ("0", "1")


def test_a_regression_wants_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": [1.5, "good"][i % 2] if i % 2 == 0 else "good"} for i in range(10)]
    with pytest.raises(DataError, match="write all labels one way"):
        load_task(table(tmp_path / "a.jsonl", rows), kind="regression")
    texts = [{"text": f"film {i}", "label": ["1.5", "good"][i % 2]} for i in range(10)]
    with pytest.raises(DataError, match="5 answers that are no numbers"):
        load_task(table(tmp_path / "b.jsonl", texts), kind="regression")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_lists_of_labels_are_several_labels(tmp_path: Path, form: str) -> None:
    lists = [["joy"], ["fear", "anger"], [], ["joy", "anger"]] * 4
    if form == "jsonl":
        path = table(tmp_path / "a.jsonl", [{"text": f"t{i}", "labels": v} for i, v in enumerate(lists)])
    else:
        cells = [f't{i},"{json.dumps(v).replace(chr(34), chr(34) * 2)}"\n' for i, v in enumerate(lists)]
        (tmp_path / "a.csv").write_text("text,labels\n" + "".join(cells))
        path = str(tmp_path / "a.csv")
    task = load_task(path)
    assert (task.labels, task.metrics) == (None, ("exact_text",))
    targets = {e.targets for name in ("train", "validation") for e in task.split(name).examples}
    assert targets == {"joy", "anger, fear", "none", "anger, joy"}
    assert "Several labels a row: anger, fear, joy." in task.note


def test_lists_among_words_are_refused(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": ["x"]}, {"text": "b", "label": "y"}]
    with pytest.raises(DataError, match="line 2: column 'label' holds a str where line 1 holds a list"):
        load_task(table(tmp_path / "a.jsonl", rows))
    nested = [{"text": "a", "label": [["x"]]}, {"text": "b", "label": ["y"]}]
    with pytest.raises(DataError, match="lists of label words"):
        load_task(table(tmp_path / "b.jsonl", nested))


def test_free_text_is_a_kind_of_its_own(tmp_path: Path) -> None:
    rows = [{"text": f"q {i}", "label": f"answer {i}"} for i in range(300)]
    path = table(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match="say --kind text where answers are free text"):
        load_task(path)
    task = load_task(path, kind="text")
    assert (task.labels, task.metrics) == (None, ("exact_text",))
    assert task.split("train").examples[0].targets.startswith("answer")


def test_a_catalogue_task_keeps_its_columns() -> None:
    with pytest.raises(UsageError, match="task 'sst2' has columns of its own"):
        load_task("sst2", text="sentence")


def test_rows_are_held_out_by_what_is_read(tmp_path: Path) -> None:
    rows = [{"text": f"film {i % 12} ", "label": "ab"[i % 2], "id": i, "note": i} for i in range(120)]
    task = load_task(table(tmp_path / "a.jsonl", rows), text="text")
    for one in (task, task.worded("natural")):
        train, validation = one.split("train"), one.split("validation")
        assert len(train) + len(validation) == 120
        assert not {e.inputs for e in train.examples} & {e.inputs for e in validation.examples}


def frame(rows: list[dict[str, Any]], kind: str) -> Any:
    if kind == "list":
        return rows
    if kind == "pandas":
        return pytest.importorskip("pandas").DataFrame(rows)
    return pytest.importorskip("datasets").Dataset.from_list(rows)


@pytest.mark.parametrize("kind", ["list", "pandas", "datasets"])
def test_rows_of_a_program(kind: str) -> None:
    rows = films(30)
    rows[4]["label"] = None  # type: ignore[assignment]
    task = Task.from_rows(frame(rows, kind), name="mine")
    assert (task.name, task.labels) == ("mine", ("a", "b"))
    assert len(task.split("train")) + len(task.split("validation")) in (29, 30)
    same = Task.from_rows(films(30), text="text", label="label", validation=frame(films(6), kind))
    assert len(same.split("validation")) == 6
    worded = Task.from_rows(frame(rows, kind), text="Review: {text}\nSentiment:", label="label")
    assert worded.split("train").examples[0].inputs.startswith("Review: film number")
    assert worded.worded("natural").split("train").examples[0].inputs.endswith("\nSentiment:")


def test_names_of_classes_come_from_the_data_set() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": [f"t{i}" for i in range(10)], "label": [i % 2 for i in range(10)]}
    data = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)})
    task = Task.from_rows(data)
    assert task.labels == ("bad", "good")
    assert {e.targets for e in task.split("train").examples} == {"bad", "good"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("text", "rows are a DataFrame"),
        (3, "rows are a DataFrame"),
        ([], "there are no train rows"),
        ([1], "row 1 is a int"),
        ({"text": ["a"]}, "name them train, validation and test"),
    ],
)
def test_rows_that_are_none(data: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Task.from_rows(data)
