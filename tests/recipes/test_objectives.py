"""What the objectives promise: labels that are true, answers that are announced, spans that add up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from embedded_backbone import objectives
from embedded_backbone.batches import reading_examples
from embedded_backbone.corpus import Corpus, text_files
from embedded_backbone.questions import MAKERS, Question, contradict


@pytest.fixture(scope="module")
def corpus(text_folder: Path) -> Corpus:
    return Corpus.load(text_files(text_folder))


def test_every_kind_of_question_can_be_asked(corpus: Corpus) -> None:
    for maker in MAKERS.values():
        rng = random.Random(1)
        for _ in range(20):
            question = maker(rng, corpus)
            if question.label < 0:
                assert question.pair is not None
                continue
            assert question.label < len(question.conditions)
            assert all(len(words) == len(question.conditions) for words in question.sets)
            example = objectives.ask(rng, question)
            assert example.targets
            assert example.slot < len(objectives.slot_names())


def test_contains_tells_the_truth(corpus: Corpus) -> None:
    rng = random.Random(2)
    for _ in range(50):
        question = MAKERS["contains"](rng, corpus)
        word, text = (field[1].lower() for field in question.fields)
        assert (word in text) == (question.label == 0)


def test_announced_answers_stand_in_the_input(corpus: Corpus) -> None:
    rng, seen = random.Random(3), 0
    for _ in range(200):
        question = MAKERS["acceptable"](rng, corpus)
        example = objectives.ask(rng, question)
        if example.slot == objectives.NO_SLOT and " if " in example.inputs:
            seen += 1
            assert example.targets in example.inputs
    assert seen > 50


def test_likeness_becomes_a_grade_or_a_label() -> None:
    question = Question(
        kind="likeness", fields=(("a", "x"), ("b", "y")), conditions=(("like",), ("unlike",)), label=-1,
        sets=(("yes", "no"),), pair=("x", "y"),
    )  # fmt: skip
    rng, grades = random.Random(4), set()
    for _ in range(40):
        settled = objectives.settle(rng, question, 0.9)
        if isinstance(settled, objectives.Example):
            grades.add(settled.targets)
        else:
            assert settled.label == 0
    assert grades == {"4.4"}


def test_without_a_teacher_likeness_is_left_out(corpus: Corpus) -> None:
    examples = reading_examples(random.Random(5), corpus, None, 200, telling=0.0, short=1.0)
    assert {example.kind for example in examples} <= set(MAKERS) - {"likeness"}
    assert 100 < len(examples) < 200


def test_span_corruption_adds_up() -> None:
    rng = random.Random(6)
    for length in (4, 20, 100):
        ids = list(range(length))
        inputs, targets = objectives.span_corruption(rng, ids, sentinels=range(1000, 1100))
        whole: list[int] = []
        for one in inputs:
            if one < 1000:
                whole.append(one)
            else:
                at = targets.index(one) + 1
                whole += targets[at : next(place for place in range(at, len(targets)) if targets[place] >= 1000)]
        assert whole == ids


def test_prefix_lm_cuts_once() -> None:
    for seed in range(20):
        inputs, targets = objectives.prefix_lm(random.Random(seed), [1, 2, 3, 4])
        assert inputs + targets == [1, 2, 3, 4]
        assert inputs
        assert targets


def test_contradict_changes_one_thing() -> None:
    assert contradict(random.Random(1), "He was here") == "He was not here"
    assert contradict(random.Random(1), "Nothing fits") is None
