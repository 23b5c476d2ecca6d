"""The grammar of the built-in tasks makes the rows that ship, and keeps words and structures for validation."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import subprocess
import sys
from functools import cache

import pytest

from generated_tasks.__main__ import lines, made
from generated_tasks.draw import Draw, Frames, GeneratedRow, is_held_out, rows
from generated_tasks.makers import MAKERS
from generated_tasks.scenes import APART, NARROWER, WIDER, scene
from generated_tasks.word_order import _order, _swap
from softprompt.tasks.generated import FOLDER
from softprompt.tasks.generated.tasks import GENERATED

NAMES = sorted(MAKERS)


@cache
def grammar(name: str, split: str) -> tuple[GeneratedRow, ...]:
    return tuple(made(name, split))


def test_every_task_has_a_maker() -> None:
    assert sorted(GENERATED) == NAMES


@pytest.mark.parametrize(
    "name", ["gen_entailment_report", "gen_sense_gloss", *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES)]
)
def test_it_makes_the_rows_that_ship(name: str) -> None:
    assert lines(name) == lzma.decompress((FOLDER / "rows" / f"{name}.jsonl.xz").read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_another_process_makes_the_same_rows(hash_seed: str) -> None:
    name = "gen_entailment_question"
    told = f"import hashlib; from generated_tasks.__main__ import lines; print(hashlib.sha256(lines({name!r})).hexdigest())"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", told]
    found = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.strip() == hashlib.sha256(lines(name)).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_validation_has_its_own_words_and_structures(name: str) -> None:
    words = {split: {w for row in grammar(name, split) for w in row.words} for split in ("train", "validation")}
    frames = {split: {s for row in grammar(name, split) for s in row.structures} for split in ("train", "validation")}
    for used in (words, frames):
        assert used["train"]
        assert used["validation"]
        assert not used["train"] & used["validation"]
    assert all(is_held_out(word) for word in words["validation"])


@pytest.mark.slow
def test_a_word_held_out_in_one_task_is_held_out_in_all() -> None:
    train, validation = (
        {w for name in NAMES for row in grammar(name, split) for w in row.words} for split in ("train", "validation")
    )
    assert len(train) > 800
    assert len(validation) > 300
    assert not train & validation


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_texts_are_clean_english(name: str) -> None:
    for row in (*grammar(name, "train"), *grammar(name, "validation")):
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
    for make in (_order, _swap):
        draw = Draw("pairs", held_out=False)
        for _ in range(300):
            good, bad = make(draw)
            assert good != bad
            assert sorted(re.findall(r"\w+", good.lower())) == sorted(re.findall(r"\w+", bad.lower()))


def test_swapping_premise_and_hypothesis_of_an_entailment_is_not_one() -> None:
    # The labels are directed: narrower to wider. If both directions held, nothing would have been widened.
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


def test_frames_may_not_share_a_structure() -> None:
    with pytest.raises(ValueError, match="share nothing"):
        Frames(train=("a {x}", "b {x}"), held_out=("b {x}",))


def test_a_grammar_that_is_too_small_says_so() -> None:
    with pytest.raises(RuntimeError, match="only 2 different rows of 3"):
        list(rows("tiny", False, 3, ("a", "b"), lambda draw, label: {"text": label}))
