"""Submission files: written as the benchmarks want them, and refused where they are not."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.catalog import declared, task_names
from softprompt.tasks.example import Example
from softprompt.tasks.submission import GLUE, SUPERGLUE, TaskPredictions, check_submission, write_submission


def answers(
    task: str, predictions: list[str], *, idx: list[Any] | None = None, targets: list[str] | None = None
) -> TaskPredictions:
    rows = [
        Example(
            key=f"{task}/test/{i}",
            inputs="x",
            targets=targets[i] if targets else "<unk>",
            extra={"idx": idx[i] if idx else i, "label": None},
        )
        for i in range(len(predictions))
    ]
    return TaskPredictions(task=task, labels=declared(task).labels, examples=rows, predictions=predictions)


def written(tmp_path: Path, one: TaskPredictions, benchmark: Any = "superglue") -> list[Any]:
    write_submission(tmp_path / "out", benchmark, [one], complete=False)
    [file] = list((tmp_path / "out").iterdir())
    lines = file.read_text().splitlines()
    return lines if benchmark == "glue" else [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("task", "given", "labels"),
    [
        ("boolq", ["True", "False"], ["true", "false"]),
        ("cb", ["neutral", "entailment"], ["neutral", "entailment"]),
        ("copa", ["choice2", "choice1"], [1, 0]),
        ("rte", ["not_entailment", "entailment"], ["not_entailment", "entailment"]),
        ("wic", ["False", "True"], ["false", "true"]),
        ("axb", ["entailment", "not_entailment"], ["entailment", "not_entailment"]),
    ],
)
def test_superglue_labels(tmp_path: Path, task: str, given: list[str], labels: list[Any]) -> None:
    assert written(tmp_path, answers(task, given)) == [{"idx": 0, "label": labels[0]}, {"idx": 1, "label": labels[1]}]


def test_rows_are_ordered_by_id(tmp_path: Path) -> None:
    lines = written(tmp_path, answers("rte", ["entailment", "not_entailment"], idx=[1, 0]))
    assert [line["idx"] for line in lines] == [0, 1]
    assert lines[1]["label"] == "entailment"


def test_wsc_multirc_and_record(tmp_path: Path) -> None:
    wsc = answers("wsc", ["the bunny", "Ann", ""], targets=["fuzzy bunny", "Tom", "Tom"])
    assert [line["label"] for line in written(tmp_path / "a", wsc)] == ["True", "False", "False"]
    places = [{"paragraph": 0, "question": q, "answer": a} for q, a in ((0, 0), (0, 1), (2, 0))]
    assert written(tmp_path / "b", answers("multirc", ["True", "False", "True"], idx=places)) == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
                    {"idx": 2, "answers": [{"idx": 0, "label": 1}]},
                ]
            },
        }
    ]
    queries = [{"passage": 0, "query": 1}, {"passage": 0, "query": 0}]
    assert written(tmp_path / "c", answers("record", ["Ann\nLee", "Tom"], idx=queries)) == [
        {"idx": 0, "label": "Tom"},
        {"idx": 1, "label": "Ann Lee"},
    ]


def test_glue_files(tmp_path: Path) -> None:
    assert written(tmp_path / "a", answers("sst2", ["positive", "negative"]), "glue") == [
        "index\tprediction",
        "0\t1",
        "1\t0",
    ]
    assert written(tmp_path / "b", answers("mnli", ["neutral"]), "glue") == ["index\tprediction", "0\tneutral"]
    assert written(tmp_path / "c", answers("stsb", ["3.4", "9", "what"]), "glue")[1:] == ["0\t3.4", "1\t5.0", "2\t0.0"]


def test_invalid_answers_are_written_as_the_first_label_and_counted(tmp_path: Path) -> None:
    report = write_submission(
        tmp_path / "out", "superglue", [answers("rte", ["perhaps", "entailment"])], complete=False
    )
    assert report == {"RTE.jsonl": {"rows": 2, "invalid": 1}}


def whole(task: str) -> TaskPredictions:
    file = SUPERGLUE[task]
    if task == "multirc":
        places: list[Any] = [{"paragraph": i // 100, "question": i // 10, "answer": i} for i in range(file.rows)]
        return answers(task, ["True"] * file.rows, idx=places)
    if task == "record":
        return answers(task, ["x"] * file.rows, idx=[{"passage": 0, "query": i} for i in range(file.rows)])
    words = declared(task).labels
    return answers(task, [words[1] if words else "x"] * file.rows, targets=["x"] * file.rows)


def test_a_whole_submission_passes_and_its_zip_too(tmp_path: Path) -> None:
    write_submission(tmp_path / "out", "superglue", [whole(task) for task in SUPERGLUE])
    assert check_submission(tmp_path / "out", "superglue") == []
    assert check_submission(tmp_path / "out.zip", "superglue") == []
    assert sorted(zipfile.ZipFile(tmp_path / "out.zip").namelist()) == sorted(f.name for f in SUPERGLUE.values())
    write_submission(tmp_path / "again", "superglue", [whole(task) for task in SUPERGLUE])
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "out.zip").read_bytes()


def damaged(tmp_path: Path, name: str, text: str, complete: bool = False) -> list[str]:
    folder = tmp_path / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return check_submission(folder, "glue" if name.endswith("tsv") else "superglue", complete=complete)


def test_what_a_check_finds(tmp_path: Path) -> None:
    row = '{"idx": 0, "label": "entailment"}\n'
    assert damaged(tmp_path / "0", "RTE.jsonl", row) == [] if (tmp_path / "0").mkdir() is None else None
    for name, text, problem in (
        ("RTE.jsonl", row * 2, "id 0 stands 2 times"),
        ("RTE.jsonl", row.replace("entailment", "yes"), "label 'yes' of id 0 is not"),
        ("COPA.jsonl", '{"idx": 0, "label": "1"}\n', "label '1' of id 0 is not (0, 1)"),
        ("COPA.jsonl", '{"idx": 0, "label": true}\n', "label True of id 0"),
        ("RTE.jsonl", '{"idx": 0}\n', "lacks 'label'"),
        ("RTE.jsonl", "no json\n", "RTE.jsonl"),
        ("WSC.jsonl", '{"idx": 0, "label": "true"}\n', "is not ('False', 'True')"),
        ("RTE.tsv", "0\tentailment\n", "first line should be index and prediction"),
        ("STS-B.tsv", "index\tprediction\n0\t7.5\n", "is not a number from 0 to 5"),
        ("SST-2.tsv", "index\tprediction\n0\tpositive\n", "label 'positive'"),
        ("SST-2.tsv", "index\tprediction\nx\t1\n", "line 2 should be a number"),
    ):
        place = tmp_path / str(abs(hash((name, text))))
        place.mkdir()
        found = damaged(place, name, text)
        assert len(found) == 1, (name, found)
        assert problem in found[0]


def test_missing_rows_and_files(tmp_path: Path) -> None:
    found = damaged(tmp_path, "RTE.jsonl", '{"idx": 0, "label": "entailment"}\n', complete=True)
    assert "BoolQ.jsonl: is missing." in found
    assert "RTE.jsonl: has 1 rows, the test set has 3,000." in found
    (tmp_path / "damaged" / "notes.txt").write_text("x")
    assert "notes.txt: is no file of superglue." in check_submission(tmp_path / "damaged", "superglue", complete=False)
    gap = "".join(json.dumps({"idx": i + (i > 7), "label": "entailment"}) + "\n" for i in range(3000))
    (tmp_path / "damaged" / "RTE.jsonl").write_text(gap)
    assert "RTE.jsonl: id 8 is missing." in check_submission(tmp_path / "damaged", "superglue")


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="superglue task"):
        write_submission(tmp_path / "a", "superglue", [answers("sst2", ["positive"])])
    with pytest.raises(UsageError, match="has 1 rows, the test set has 3,000"):
        write_submission(tmp_path / "a", "superglue", [answers("rte", ["entailment"])])
    assert not (tmp_path / "a").exists()
    two = answers("rte", ["entailment", "entailment"])
    short = TaskPredictions(task="rte", labels=two.labels, examples=two.examples, predictions=["entailment"])
    with pytest.raises(UsageError, match="1 predictions for 2 examples"):
        write_submission(tmp_path / "a", "superglue", [short])
    bare = Example(key="rte/test/0", inputs="x", targets="<unk>", extra={"label": None})
    with pytest.raises(UsageError, match="without an idx"):
        write_submission(
            tmp_path / "a",
            "superglue",
            [TaskPredictions(task="rte", labels=declared("rte").labels, examples=[bare], predictions=["entailment"])],
        )
    (tmp_path / "no.zip").write_text("x")
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        check_submission(tmp_path / "no.zip", "superglue")


def test_every_submitted_task_is_in_the_catalog() -> None:
    assert {*SUPERGLUE, *GLUE} <= set(task_names())
