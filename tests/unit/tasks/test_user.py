"""The user's own tasks: csv without code, five lines of TOML, one decorated function."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.catalog import load_task
from softprompt.tasks.check import check_task

CSV = "text,label\n" + "".join(f"message number {i},{'spam' if i % 3 == 0 else 'ham'}\n" for i in range(60))


def test_a_csv_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "mail.csv").write_text(CSV)
    task = load_task(str(tmp_path / "mail.csv"))
    assert (task.name, task.labels, task.metrics) == ("mail", ("ham", "spam"), ("accuracy",))
    train, validation = task.split("train"), task.split("validation")
    assert len(train) + len(validation) == 60
    assert 4 <= len(validation) <= 22
    assert not {e.inputs for e in train.examples} & {e.inputs for e in validation.examples}
    assert train.examples[0].inputs.startswith("text: message number")
    assert "stands in" in task.note
    assert check_task(task)["ok"]
    assert load_task(str(tmp_path / "mail.csv")).split("validation").fingerprint == validation.fingerprint


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_even_a_tiny_csv_has_rows_on_both_sides(tmp_path: Path, count: int) -> None:
    for start in range(20):
        lines = [f"row {start + i},{i % 2}\n" for i in range(count)]
        (tmp_path / "tiny.csv").write_text("text,label\n" + "".join(lines))
        task = load_task(str(tmp_path / "tiny.csv"))
        assert len(task.split("train")) + len(task.split("validation")) == count


def test_equal_rows_stay_on_one_side(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("text,label\n" + "a,0\nb,1\nc,0\nd,1\n" * 3)
    task = load_task(str(tmp_path / "twice.csv"))
    sides = [{e.inputs for e in task.split(name).examples} for name in ("train", "validation")]
    assert not sides[0] & sides[1]


def test_a_folder_of_files_needs_no_code(tmp_path: Path) -> None:
    folder = tmp_path / "intents"
    folder.mkdir()
    (folder / "train.jsonl").write_text(
        '{"a": "x", "b": "y", "label": 2, "id": 1}\n{"a": "z", "b": "", "label": 10, "id": 2}\n'
    )
    (folder / "validation.csv").write_text("a,b,label,id\nq,r,10,1\n")
    for task in (load_task(str(folder)), load_task("intents", tmp_path)):
        assert task.labels == ("2", "10")
        assert task.split("train").examples[0].inputs == "a: x b: y"
        assert task.split("validation").examples[0].targets == "10"


def test_a_label_that_training_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "validation.csv").write_text("text,label\na,z\n")
    with pytest.raises(DataError, match=r"validation.csv, line 2: label 'z' in column 'label' is none of x, y"):
        load_task(f"{tmp_path}/").split("validation")


def test_mixed_label_types_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "1"}\n')
    with pytest.raises(DataError, match=r"train.jsonl, line 2: column 'label' holds a str where line 1 holds a int"):
        load_task(f"{tmp_path}/")


def test_integers_in_jsonl_and_strings_in_csv_are_the_same_labels(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    (tmp_path / "validation.csv").write_text("text,label\na,0\nb,1\n")
    task = load_task(f"{tmp_path}/")
    assert [e.targets for e in task.split("train").examples] == [e.targets for e in task.split("validation").examples]


def test_free_text_is_no_label_column(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("text,label\n" + "".join(f"a,{i}\n" for i in range(300)))
    with pytest.raises(DataError, match="300 distinct values in 300 rows"):
        load_task(str(tmp_path / "notes.csv"))
    (tmp_path / "notes.csv").write_text("text,label\n" + "a,yes\n" * 30)
    with pytest.raises(DataError, match=r"has one value only \('yes'\) in 30 rows"):
        load_task(str(tmp_path / "notes.csv"))
    (tmp_path / "notes.csv").write_text("text,kind\na,1\n")
    with pytest.raises(DataError, match="no label column among text, kind"):
        load_task(str(tmp_path / "notes.csv"))


TOML = """name = "answers"
inputs = "question: {question} answer: {answer}"
targets = "{good}"
labels = ["no", "yes"]
"""


def write_pairs(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rows = '{"question": "Q%d?", "answer": "A", "good": %d}\n'
    (folder / "train.jsonl").write_text("".join(rows % (i, i % 2) for i in range(6)))
    (folder / "validation.jsonl").write_text("".join(rows % (i, i % 2) for i in range(6, 10)))


def test_five_lines_of_toml(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "task.toml").write_text(TOML)
    task = load_task(str(tmp_path / "task.toml"))
    assert task.name == "answers"
    first = task.split("train").examples[1]
    assert (first.inputs, first.targets, first.extra["label"]) == ("question: Q1? answer: A", "yes", 1)
    assert check_task(task)["ok"]


def test_toml_for_free_text(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"a": "x", "b": "long answer"}\n')
    (tmp_path / "dev.tsv").write_text("a\tb\ny\tother\n")
    (tmp_path / "task.toml").write_text(
        'name = "say"\ninputs = "say: {a}"\ntargets = "{b}."\nmetrics = ["exact_match", "answer_f1"]\nvalidation = "dev.tsv"\ntrain = "train.jsonl"\n'
    )
    task = load_task(f"{tmp_path}/")
    assert task.split("validation").examples[0].targets == "other."
    assert check_task(task)["ok"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('lables = ["a"]', "did you mean labels"),
        ('labels = "a"', "should be a list of texts"),
        ("name = 3", "name should be text in quotes"),
        ("name = ", "is not TOML"),
        ('metrics = ["acuracy"]', "did you mean accuracy"),
        ('name = "../x"', "letters, digits"),
        ('labels = ["a", "a"]', "repeat"),
    ],
)
def test_wrong_toml_is_one_sentence(tmp_path: Path, line: str, problem: str) -> None:
    write_pairs(tmp_path)
    body = 'inputs = "{question}"\ntargets = "{answer}"\n'
    (tmp_path / "task.toml").write_text(body + line + "\n")
    with pytest.raises(UsageError, match=problem) as caught:
        load_task(f"{tmp_path}/")
    assert "\n" not in str(caught.value)


def test_a_template_with_an_unknown_column(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "task.toml").write_text(TOML.replace("{question}", "{quesiton}"))
    with pytest.raises(DataError, match=r"line 1: no column 'quesiton'; it has question, answer, good"):
        load_task(f"{tmp_path}/").split("train")


FUNCTION = """
from softprompt.tasks.user import task

@task(labels=["no", "yes"])
def is_answer(row):
    return f"question: {row['question']} answer: {row['answer']}", row["good"]
"""


def test_one_decorated_function(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "mine.py").write_text(FUNCTION)
    task = load_task(str(tmp_path / "mine.py"))
    assert (task.name, task.metrics) == ("is_answer", ("accuracy",))
    assert task.split("validation").examples[1].targets == "yes"
    assert check_task(task)["ok"]


def test_several_functions_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "mine.py").write_text(FUNCTION + "\n@task\ndef copy(row):\n    return row['question'], row['answer']\n")
    with pytest.raises(UsageError, match="has 2 functions under @task"):
        load_task(str(tmp_path / "mine.py"))
    task = load_task(f"{tmp_path}/mine.py:copy")
    assert (task.labels, task.metrics, task.split("train").examples[0].targets) == (None, ("exact_text",), "A")
    with pytest.raises(UnknownNameError, match="did you mean copy"):
        load_task(f"{tmp_path}/mine.py:cpoy")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return row['nothing'], 'a'", "asks for column 'nothing'; it has question, answer, good"),
        ("return 1/0, 'a'", "stopped with ZeroDivisionError"),
        ("return 'only'", r"should give \(inputs, target\)"),
        ("return 'x', 'perhaps'", "is none of no, yes"),
    ],
)
def test_a_function_that_goes_wrong_names_the_line(tmp_path: Path, body: str, problem: str) -> None:
    write_pairs(tmp_path)
    head = "from softprompt.tasks.user import task\n@task(labels=['no', 'yes'])\ndef f(row):\n    "
    (tmp_path / "mine.py").write_text(head + body + "\n")
    with pytest.raises(DataError, match=rf"train.jsonl, line 1: .*{problem}"):
        load_task(str(tmp_path / "mine.py")).split("train")


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import nothing_like_this\n")
    with pytest.raises(UsageError, match="stopped with ModuleNotFoundError"):
        load_task(str(tmp_path / "mine.py"))
    with pytest.raises(DataError, match="no such file"):
        load_task(str(tmp_path / "other.py"))
    with pytest.raises(DataError, match="no such file or folder"):
        load_task(str(tmp_path / "nowhere" / ""))


def test_bad_rows_of_a_users_task_can_be_skipped(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("garbage\n")
    (tmp_path / "task.toml").write_text(TOML)
    with pytest.raises(DataError, match=r"train.jsonl, line 7"):
        load_task(f"{tmp_path}/").split("train")
    assert load_task(f"{tmp_path}/", skip_bad=1).split("train").skipped == 1


def test_declared_labels_are_meant_by_index_too(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "validation.jsonl").write_text('{"text": "c", "label": "good"}\n')
    (tmp_path / "task.toml").write_text('name = "mood"\nlabels = ["bad", "good"]\n')
    task = load_task(f"{tmp_path}/")
    assert [e.targets for e in task.split("train").examples] == ["bad", "good"]
    assert task.split("validation").examples[0].targets == "good"


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load_dataset(*args: object, **settings: object) -> list[dict[str, object]]:
        asked.append((args, settings["split"], settings["revision"]))
        return [{"text": "a", "label": 0}, {"text": "b", "label": 1}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = load_task("hf:owner/moods:small")
    assert (task.name, task.labels) == ("owner_moods", ("0", "1"))
    assert asked[-1] == (("owner/moods", "small"), "train", None)
    assert load_task("owner/moods:small").name == "owner_moods"
    assert load_task("owner/moods").labels == ("0", "1")
    assert asked[-1] == (("owner/moods", None), "train", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "moods").mkdir(parents=True)  # a folder of that name comes first
    (tmp_path / "owner" / "moods" / "train.csv").write_text("text,label\na,x\nb,y\n")
    assert load_task("owner/moods").labels == ("x", "y")
    toml = 'name = "mood"\nhub = "owner/moods"\nrevision = "abc"\nlabels = ["bad", "good"]\nvalidation = "test"\n'
    (tmp_path / "task.toml").write_text(toml)
    made = load_task(str(tmp_path / "task.toml"))
    assert made.split("validation").examples[1].targets == "good"
    assert asked[-1] == (("owner/moods", None), "test", "abc")
    with pytest.raises(UsageError, match="should be owner/name"):
        load_task("hf:../x")


def test_what_is_neither_here_nor_on_the_hub_says_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*args: object, **settings: object) -> None:
        raise FileNotFoundError("no such data set")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="data/my_task is no file or folder here, and as a data set of the hub: "):
        load_task("data/my_task")
    with pytest.raises(DataError, match="no such file"):
        load_task("data/my_task.csv")
