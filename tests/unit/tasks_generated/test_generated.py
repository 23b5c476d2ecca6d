"""The generated tasks: same in every process, balanced, validation truly held out, gold answers score 100."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from softprompt.errors import DataError
from softprompt.tasks.catalog import load_task, task_names
from softprompt.tasks.generated import DECOYS, DEMO_SOURCES, DEMO_TARGETS, FAMILIES, GENERATED, KINSHIP, RECIPES_BY_NAME
from softprompt.tasks.generated.draw import Draw, Frames, is_held_out, rows
from softprompt.tasks.task import Split

NAMES = sorted(GENERATED)
GOLDEN = Path(__file__).parent / "fingerprints.json"


@cache
def made(name: str, split: str) -> Split:
    return GENERATED[name]().split(split)


PRINT_FINGERPRINTS = (
    "import json, sys; from softprompt.tasks.generated import GENERATED; "
    "print(json.dumps({n: {s: t.split(s).fingerprint for s in ('train', 'validation')} "
    "for n, t in ((n, GENERATED[n]()) for n in (sys.argv[1:] or sorted(GENERATED)))}, indent=1))"
)


@pytest.mark.parametrize("name", NAMES)
def test_fingerprints_are_those_on_record(name: str) -> None:
    # A change of grammar or words makes other tasks: regenerate the record on purpose, with
    #   python -c "$PRINT_FINGERPRINTS" > fingerprints.json
    recorded = json.loads(GOLDEN.read_text())
    assert {split: made(name, split).fingerprint for split in ("train", "validation")} == recorded[name]


def test_the_record_names_every_task() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == NAMES


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_another_process_makes_the_same_rows(hash_seed: str) -> None:
    some = ["gen_sentiment_hotel", "gen_entailment_question", "gen_acceptability_order"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(
        [sys.executable, "-c", PRINT_FINGERPRINTS, *some], env=environment, capture_output=True, text=True, check=True
    )
    recorded = json.loads(GOLDEN.read_text())
    assert json.loads(out.stdout) == {name: recorded[name] for name in some}


@pytest.mark.parametrize("name", NAMES)
def test_no_row_occurs_twice_or_in_both_splits(name: str) -> None:
    train = [e.inputs.lower() for e in made(name, "train").examples]
    validation = [e.inputs.lower() for e in made(name, "validation").examples]
    assert len(set(train)) == len(train) == RECIPES_BY_NAME[name].train_rows
    assert len(set(validation)) == len(validation) == 500
    assert not set(train) & set(validation)


@pytest.mark.parametrize("name", NAMES)
def test_validation_has_its_own_words_and_structures(name: str) -> None:
    recipe = RECIPES_BY_NAME[name]
    used = {split: recipe.rows(split) for split in ("train", "validation")}
    words = {split: {w for row in rows_made for w in row.words} for split, rows_made in used.items()}
    structures = {split: {s for row in rows_made for s in row.structures} for split, rows_made in used.items()}
    assert words["train"]
    assert words["validation"]
    assert not words["train"] & words["validation"]
    assert structures["train"]
    assert structures["validation"]
    assert not structures["train"] & structures["validation"]
    assert all(is_held_out(word) for word in words["validation"])


def test_a_word_held_out_in_one_task_is_held_out_in_all() -> None:
    train = {w for recipe in RECIPES_BY_NAME.values() for row in recipe.rows("train") for w in row.words}
    validation = {w for recipe in RECIPES_BY_NAME.values() for row in recipe.rows("validation") for w in row.words}
    assert len(train) > 1000
    assert len(validation) > 400
    assert not train & validation


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
def test_texts_are_clean_english(name: str) -> None:
    recipe = RECIPES_BY_NAME[name]
    for split in ("train", "validation"):
        for row in recipe.rows(split):
            for field, text in row.fields.items():
                assert text == " ".join(text.split()), (field, text)
                assert not re.search(r"[{}_]|\.\.| [.,;:?]", text), text
            if "acceptability" not in name:
                whole = " ".join(row.fields.values())
                # "an hour", "a university", "a ukulele" are right; "an" before another consonant never is.
                assert not re.search(r"\ba (?!uni|use|euro|ukulele|one\b)[aeiou]", whole, re.I), whole
                assert not re.search(r"\ban (?!hour|honest|heir|X-ray)[^aeiou]", whole, re.I), whole
                assert not re.search(r"\b(the the|a a|is is|was was|to to)\b", whole), whole


def test_acceptability_pairs_share_their_words_where_only_order_counts() -> None:
    from softprompt.tasks.generated.word_order import _order, _swap

    for make in (_order, _swap):
        draw = Draw("pairs", held_out=False)
        for _ in range(300):
            good, bad = make(draw)
            assert good != bad
            assert sorted(re.findall(r"\w+", good.lower())) == sorted(re.findall(r"\w+", bad.lower()))


def test_answers_of_extraction_stand_in_the_text() -> None:
    for name in FAMILIES["extraction"]:
        for row in RECIPES_BY_NAME[name].rows("validation"):
            assert row.target.lower() in row.fields["context"].lower()


def test_similarity_grades_are_steps_of_a_fifth_over_the_whole_scale() -> None:
    for name in ("gen_similarity_scene", "gen_similarity_headline"):
        grades = {row.target for row in RECIPES_BY_NAME[name].rows("validation")}
        assert {"0.0", "5.0"} <= grades
        assert all(re.fullmatch(r"[0-5]\.[02468]", grade) for grade in grades)
        assert len(grades) >= 8


def test_swapping_premise_and_hypothesis_of_an_entailment_is_not_one() -> None:
    # The labels are directed: narrower to wider. If both directions held, nothing would have been widened.
    from softprompt.tasks.generated.scenes import APART, NARROWER, WIDER, scene

    draw = Draw("relations", held_out=False)
    for wanted, must, never in (
        ("entailed", {WIDER}, {NARROWER, APART}),
        ("open", {NARROWER}, {APART}),
        ("excluded", {APART}, {NARROWER}),
    ):
        for _ in range(200):
            found = scene(draw, wanted).relations()
            assert must <= found
            assert not never & found


def test_there_is_no_test_split() -> None:
    with pytest.raises(DataError, match="use train or validation"):
        GENERATED["gen_sentiment_film"]().split("test")


def test_they_are_in_the_catalog_and_marked_as_generated() -> None:
    assert set(NAMES) <= set(task_names())
    task = load_task("gen_topic_question")
    assert task.category == "generated"
    assert "never a real result" in task.note
    assert all(re.fullmatch(r"gen_[a-z_]+", name) for name in NAMES)


def test_kinship_covers_every_task_and_holds_both_ways() -> None:
    assert sorted(KINSHIP) == NAMES
    assert all(name in KINSHIP[kin] for name, kindred in KINSHIP.items() for kin in kindred)
    assert all(name not in KINSHIP[name] for name in NAMES)
    assert not set(DEMO_SOURCES) & set(DEMO_TARGETS)
    for target in DEMO_TARGETS:
        assert KINSHIP[target] & set(DEMO_SOURCES), target
        assert RECIPES_BY_NAME[target].train_rows <= 300
    assert all(RECIPES_BY_NAME[source].train_rows == 4000 for source in DEMO_SOURCES)
    for target, decoy in DECOYS.items():
        assert target in DEMO_TARGETS
        assert decoy in DEMO_SOURCES
        assert decoy not in KINSHIP[target]


def test_frames_may_not_share_a_structure() -> None:
    with pytest.raises(ValueError, match="share nothing"):
        Frames(train=("a {x}", "b {x}"), held_out=("b {x}",))


def test_a_grammar_that_is_too_small_says_so() -> None:
    with pytest.raises(RuntimeError, match="only 2 different rows of 3"):
        list(rows("tiny", False, 3, ("a", "b"), lambda draw, label: {"text": label}))
