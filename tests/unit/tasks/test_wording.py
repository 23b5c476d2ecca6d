"""A wording makes of a row what the task made of it in training, and survives being stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from softprompt.errors import CorruptArtifactError, DataError, UsageError
from softprompt.tasks.catalog import DECLARATIONS, generated, load_task, make
from softprompt.tasks.natural import NATURAL
from softprompt.tasks.rows import BadRows
from softprompt.tasks.sources import MemorySource
from softprompt.tasks.task import Task
from softprompt.tasks.template import places
from softprompt.tasks.wording import Wording

ROWS: dict[str, dict[str, Any]] = {
    "sst2": {"sentence": " a  fine film ", "label": 1, "idx": 3},
    "mnli": {"premise": "A man eats.", "hypothesis": "He is full.", "label": 1, "idx": 0},
    "anli": {"premise": "A  man eats.", "hypothesis": "He is full.", "label": 2, "uid": "u", "round": "dev_r2"},
    "stsb": {"sentence1": "A dog.", "sentence2": "A cat.", "label": 2.4, "idx": 1},
    "multirc": {
        "paragraph": "<b>Sent 1: </b>He ran.<br>", "question": "Who?", "answer": "He", "label": 1,
        "idx": {"paragraph": 0, "question": 1, "answer": 2},
    },
    "wsc": {
        "text": "Bob saw Al and he waved .", "span1_text": "Bob", "span2_text": "he", "span2_index": 4, "label": 1,
        "idx": 0,
    },
    "record": {
        "query": "@placeholder won.", "entities": ["Bob", "Al"], "passage": "Bob ran.\n@highlight\nAl won",
        "answers": ["Al"], "idx": {"passage": 0, "query": 0},
    },
    "squad": {"question": "Who?", "context": "It's Bob.", "answers": {"text": ["Bob"]}, "id": "x"},
    "drop": {"question": "How many?", "passage": "Two (2).", "answers_spans": {"spans": ["2"]}, "query_id": "x"},
    "race_middle": {"article": "Text.", "question": "What?", "options": ["a", "b", "c", "d"], "answer": "C"},
    "hellaswag": {"activity_label": "Run", "ctx": "He", "endings": ["a", "b", "c", "d"], "label": "2"},
    "winogrande": {"sentence": "_ ran.", "option1": "Bob", "option2": "Al", "answer": "2"},
    "go_emotions": {"text": "Wow!", "labels": [0, 2], "id": "x"},
    "wmt_en_de": {"translation": {"en": "A dog.", "de": "Ein Hund."}},
    "gem_common_gen": {"concepts": ["dog", "run"], "target": "A dog runs.", "references": ["A dog runs."]},
    "samsum": {"dialogue": "A: hi", "summary": "A greets."},
    "c4": {"text": "one two three four five six"},
    "cxc": {"caption1": "A dog.", "caption2": "A cat.", "agg_score": 1.0},
}  # fmt: skip


def over(name: str, row: dict[str, Any]) -> Task:
    renamed = {DECLARATIONS[name].rename.get(key, key): value for key, value in row.items()}
    return make(DECLARATIONS[name], MemorySource(splits={"validation": [renamed]}))


@pytest.mark.parametrize("form", ["t5", "natural"])
@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_wording_makes_of_a_raw_row_what_the_task_made_of_it(name: str, form: str) -> None:
    task = over(name, ROWS[name]).worded(form)
    (example,) = task.split("validation", max_rows=1).examples[:1]
    assert task.wording is not None
    assert task.wording.form == form
    stored = Wording.of_record(json.loads(json.dumps(task.wording.record())))
    assert stored == task.wording
    assert stored.inputs(ROWS[name]) == example.inputs
    unanswered = {key: value for key, value in ROWS[name].items() if key != stored.label_column}
    assert stored.inputs(unanswered) == example.inputs


def test_every_task_of_the_catalogue_has_a_natural_wording_whose_answers_can_be_told_apart() -> None:
    assert set(NATURAL) == set(DECLARATIONS)
    for name in DECLARATIONS:
        task = load_task(name).worded("natural")
        assert task.wording is not None
        assert task.description
        assert task.labels is None or len(set(task.labels)) == len(task.labels)
        assert places(task.wording.template or "")
        assert load_task(name).labels == DECLARATIONS[name].classes


def test_the_natural_answer_stands_for_the_label() -> None:
    task = over("mnli", ROWS["mnli"]).worded("natural")
    (example,) = task.split("validation").examples
    assert (example.targets, example.extra["label"]) == ("Neither", 1)
    assert task.wording is not None
    assert task.wording.label_of(" Neither ") == "neutral"
    assert task.wording.label_of("maybe") is None
    assert task.worded("t5").split("validation").examples[0].targets == "neutral"


@pytest.mark.parametrize("name", ["gen_sentiment_film", "gen_extraction_diary", "gen_similarity_scene"])
def test_generated_tasks_have_both(name: str) -> None:
    for form in ("t5", "natural"):
        task = generated()[name]().worded(form)
        assert task.wording is not None
        rows = {row.line: row.values for row in task.source.rows("validation", BadRows())}
        for example in task.split("validation", max_rows=5).examples:
            assert task.wording.inputs(rows[int(example.key.rsplit("/", 1)[1])]) == example.inputs


def test_a_text_stands_for_the_only_column() -> None:
    wording = Wording(task="t", form="template", template="Review: {text}\nSentiment:", columns=("text",))
    assert wording.inputs("odd {braces} and\u2028lines ") == "Review: odd {braces} and\u2028lines \nSentiment:"
    two = Wording(task="t", form="template", template="{a} {b}", columns=("a", "b"))
    with pytest.raises(UsageError, match="reads 2 columns, a, b"):
        two.inputs("text")
    with pytest.raises(DataError, match="no column 'b'"):
        two.inputs({"a": "x"})
    raw = Wording(task="t", form="raw")
    assert raw.inputs("as is") == "as is"
    with pytest.raises(UsageError, match="Python function"):
        raw.inputs({"a": "x"})


@pytest.mark.parametrize(
    ("template", "row", "made"),
    [
        ("{Review Text}: {a.b}", {"Review Text": "x", "a.b": 2}, "x: 2"),
        ("{o[1]} {m[k]} {o}", {"o": ["a", "b"], "m": {"k": "v"}}, "b v a, b"),
        ("{{x}} {a:b} {a!r}", {"a:b": "1", "a!r": "2"}, "{x} 1 2"),
        ("{o[0]}", {"o[0]": "by name", "o": ["a"]}, "by name"),
    ],
)
def test_places(template: str, row: dict[str, Any], made: str) -> None:
    wording = Wording(task="t", form="template", template=template, columns=tuple(row))
    assert wording.inputs(row) == made


@pytest.mark.parametrize("template", ["{text", "text}", "{}", "{a:{b}}", "{ }"])
def test_a_brace_without_a_partner_is_refused(template: str) -> None:
    with pytest.raises(UsageError, match=r"template .* cannot be read"):
        places(template)


@pytest.mark.parametrize(
    "change",
    [
        {"form": "python"}, {"template": "{text"}, {"columns": "text"}, {"labels": ["a"], "answers": ["x", "y"]},
        {"template": "{other}"}, {"code": "import os"}, {"task": 3}, {"template": None}, {"template": "x" * 100_001},
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_sentence(change: dict[str, Any]) -> None:
    record = Wording(task="t", form="template", template="{text}", columns=("text",)).record()
    with pytest.raises(CorruptArtifactError, match="the wording of a prompt cannot be read") as caught:
        Wording.of_record({**record, **change})
    assert "\n" not in str(caught.value)
