"""The order of rows: keyed by the seed, complete per epoch, resumable anywhere."""

import json
from collections import Counter

import pytest

from softprompt.training.stream import RowStream, keyed_rng


def test_every_row_once_an_epoch():
    stream = RowStream([10], [1.0], seed=3)
    first = [row for _, row in stream.take(10)]
    second = [row for _, row in stream.take(10)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_same_seed_same_order_other_seed_other_order():
    assert RowStream([50], [1.0], seed=1).take(50) == RowStream([50], [1.0], seed=1).take(50)
    assert RowStream([50], [1.0], seed=1).take(50) != RowStream([50], [1.0], seed=2).take(50)


@pytest.mark.parametrize("sizes", [[7], [7, 20, 3]])
def test_resuming_in_the_middle_changes_nothing(sizes):
    rates = [1.0] * len(sizes)
    whole = RowStream(sizes, rates, seed=5)
    expected = [whole.take(4) for _ in range(9)]
    stopped = RowStream(sizes, rates, seed=5)
    found = [stopped.take(4) for _ in range(5)]
    state = json.loads(json.dumps(stopped.state()))
    resumed = RowStream(sizes, rates, seed=5)
    resumed.load(state)
    assert found + [resumed.take(4) for _ in range(4)] == expected


def test_mixture_follows_its_rates():
    stream = RowStream([100, 100], [3.0, 1.0], seed=0)
    counts = Counter(part for _ in range(500) for part, _ in stream.take(16))
    assert counts[0] / 8000 == pytest.approx(0.75, abs=0.02)


def test_keys_do_not_run_into_each_other():
    assert keyed_rng(1, "rows", 23).random() != keyed_rng(1, "rows", 2, 3).random()
    assert keyed_rng("ab", "c").random() != keyed_rng("a", "bc").random()
