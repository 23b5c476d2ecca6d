"""The built-in tasks: rows on record, balanced, nothing in both splits, gold answers score 100."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from softprompt.errors import DataError
from softprompt.tasks.catalog import load_task, task_names
from softprompt.tasks.example import Split
from softprompt.tasks.generated import DECOYS, DEMO_SOURCES, DEMO_TARGETS, FAMILIES, KINSHIP, TASKS, rows_of
from softprompt.tasks.generated.tasks import GENERATED

NAMES = sorted(GENERATED)
RECORDED = json.loads((Path(__file__).parent / "generated_fingerprints.json").read_text())


@cache
def made(name: str, split: str) -> Split:
    return GENERATED[name]().split(split)


@pytest.mark.parametrize("name", NAMES)
def test_fingerprints_are_those_on_record(name: str) -> None:
    # The released library and the studies name them: other rows are other tasks.
    assert {split: made(name, split).fingerprint for split in ("train", "validation")} == RECORDED[name]


def test_the_record_names_every_task() -> None:
    assert sorted(RECORDED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_row_occurs_twice_or_in_both_splits(name: str) -> None:
    train = [e.inputs.lower() for e in made(name, "train").examples]
    validation = [e.inputs.lower() for e in made(name, "validation").examples]
    assert len(set(train)) == len(train) == TASKS[name]["train_rows"]
    assert len(set(validation)) == len(validation) == 500
    assert not set(train) & set(validation)


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_balanced(name: str) -> None:
    task = GENERATED[name]()
    for split in ("train", "validation"):
        counts = Counter(e.targets for e in made(name, split).examples)
        if task.labels is not None:
            assert set(counts) == set(task.labels)
            assert max(counts.values()) - min(counts.values()) <= 1
        else:
            assert max(counts.values()) <= 0.3 * sum(counts.values())


@pytest.mark.parametrize("name", NAMES)
def test_gold_targets_score_100(name: str) -> None:
    task = GENERATED[name]()
    validation = made(name, "validation").examples
    scores = task.score([e.targets for e in validation], validation)
    assert scores["score"] == pytest.approx(100.0)
    assert task.score(["no such answer"] * len(validation), validation)["score"] <= 10.0


@pytest.mark.parametrize("name", NAMES)
def test_the_natural_wording_says_what_the_task_is(name: str) -> None:
    # Decoder-only backbones start prompts from a task's description.
    task = GENERATED[name]()
    assert task.description is None, "the papers' form has none"
    description = task.worded("natural").description
    assert description is not None
    assert description.endswith(".")


def test_answers_of_extraction_stand_in_the_text() -> None:
    for row in rows_of("gen_extraction_diary")["validation"]:
        assert row["label"].lower() in row["context"].lower()


def test_similarity_grades_are_steps_of_a_fifth_over_the_whole_scale() -> None:
    grades = {row["label"] for row in rows_of("gen_similarity_scene")["validation"]}
    assert {"0.0", "5.0"} <= grades
    assert all(re.fullmatch(r"[0-5]\.[02468]", grade) for grade in grades)
    assert len(grades) >= 8


def test_there_is_no_test_split() -> None:
    with pytest.raises(DataError, match="it has train, validation"):
        GENERATED["gen_sentiment_film"]().split("test")


def test_they_are_in_the_catalog_and_marked_as_generated() -> None:
    assert set(NAMES) <= set(task_names())
    task = load_task("gen_topic_review")
    assert task.category == "generated"
    assert "never a real result" in task.note
    assert all(re.fullmatch(r"gen_[a-z_]+", name) for name in NAMES)


def test_kinship_covers_every_task_and_holds_both_ways() -> None:
    assert sorted(KINSHIP) == NAMES == sorted({*DEMO_SOURCES, *DEMO_TARGETS})
    assert all(name in KINSHIP[kin] for name, kindred in KINSHIP.items() for kin in kindred)
    assert all(name not in KINSHIP[name] for name in NAMES)
    assert sum(map(len, FAMILIES.values())) == len(NAMES)
    assert not set(DEMO_SOURCES) & set(DEMO_TARGETS)
    for target in DEMO_TARGETS:
        assert KINSHIP[target] & set(DEMO_SOURCES), target
        assert TASKS[target]["train_rows"] <= 300
    assert all(TASKS[source]["train_rows"] == 4000 for source in DEMO_SOURCES)
    for target, decoy in DECOYS.items():
        assert target in DEMO_TARGETS
        assert decoy in DEMO_SOURCES
        assert decoy not in KINSHIP[target]
