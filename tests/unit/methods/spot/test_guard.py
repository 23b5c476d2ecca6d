"""The paired bootstrap of the guard."""

import pytest
from tests.support.words import WordTask, examples

from softprompt.methods.spot.guard import compare

ROWS = examples(200, 3)
GOLD = [row.targets for row in ROWS]


def wrong(count):
    return [("no" if t == "yes" else "yes") if i < count else t for i, t in enumerate(GOLD)]


def test_a_clear_gain_is_beyond_noise():
    found = compare(WordTask(), ROWS, GOLD, wrong(60))
    assert found.gain == pytest.approx(30.0)
    assert found.better
    assert not found.worse
    assert found.error_reduction == pytest.approx(100.0)
    assert 20 < found.low < 30 < found.high < 40


def test_the_same_predictions_are_no_gain():
    found = compare(WordTask(), ROWS, wrong(50), wrong(50))
    assert (found.gain, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.better
    assert not found.worse


def test_a_clear_loss_is_said():
    assert compare(WordTask(), ROWS, wrong(60), GOLD).worse
    assert compare(WordTask(), ROWS, wrong(60), GOLD).error_reduction is None


def test_one_row_of_difference_is_noise():
    found = compare(WordTask(), ROWS, wrong(50), wrong(51))
    assert found.gain == pytest.approx(0.5)
    assert not found.better


def test_the_seed_reproduces_the_interval():
    assert compare(WordTask(), ROWS, wrong(20), wrong(40), seed=4) == compare(
        WordTask(), ROWS, wrong(20), wrong(40), seed=4
    )
