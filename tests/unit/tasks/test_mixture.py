"""Mixtures: which tasks, at which rates; and streams that a seed reproduces."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.errors import UnknownNameError, UsageError
from softprompt.tasks import streaming
from softprompt.tasks.catalog import task_names
from softprompt.tasks.mixture import MIXTURES, K, Mixture, load_mixture, proportional_rates
from softprompt.tasks.streaming import MixtureStream, scrambled

SIZES = {"mnli": 392_702, "rte": 2_490, "doc_nli": 942_314}


def test_the_papers_mixtures_have_the_papers_numbers_of_tasks() -> None:
    counts = {name: len(mixture.tasks) for name, mixture in MIXTURES.items()}
    assert counts == {
        "glue": 8,
        "superglue": 8,
        "nli": 7,
        "paraphrase_similarity": 4,
        "sentiment": 5,
        "mrqa": 6,
        "rainbow": 6,
        "translation": 3,
        "summarization": 9,
        "gem": 8,
        "all": 56,  # C4 and 55 labelled data sets
        "spot_sources": 16,
        "spot_targets": 10,
        "sharpt_sources": 15,
        "sharpt_cross_category_sources": 9,
        "sharpt_cross_category_targets": 5,
    }
    assert set().union(*(m.tasks for m in MIXTURES.values())) <= set(task_names())
    assert set(MIXTURES["spot_sources"].tasks) - set(MIXTURES["sharpt_sources"].tasks) == {"c4"}


def test_rates_are_examples_proportional_up_to_k() -> None:
    rates = Mixture(name="m", tasks=tuple(SIZES)).rates(SIZES)
    total = 392_702 + 2_490 + K
    assert rates == pytest.approx({"mnli": 392_702 / total, "rte": 2_490 / total, "doc_nli": K / total})


def test_a_plain_union_has_no_limit() -> None:
    assert MIXTURES["sharpt_sources"].limit is None
    rates = Mixture(name="m", tasks=tuple(SIZES), limit=None).rates(SIZES)
    assert rates["doc_nli"] == pytest.approx(942_314 / sum(SIZES.values()))


def test_temperature_flattens() -> None:
    rates = Mixture(name="m", tasks=("a", "b"), temperature=2.0).rates({"a": 100, "b": 400})
    assert rates == pytest.approx({"a": 1 / 3, "b": 2 / 3})


def test_proportional_rates_of_sizes() -> None:
    assert proportional_rates([100, 300]) == pytest.approx((0.25, 0.75))
    assert proportional_rates([K, 10 * K]) == pytest.approx((0.5, 0.5))


def test_rates_at_the_edges_of_what_is_allowed() -> None:
    assert proportional_rates([100, 400, 900], limit=400, temperature=2.0) == pytest.approx((0.2, 0.4, 0.4))
    assert Mixture(name="m", tasks=("a", "b"), limit=1).rates({"a": 1, "b": 7}) == {"a": 0.5, "b": 0.5}
    assert Mixture(name="m", tasks=("a", "b"), temperature=0.5).rates({"a": 1, "b": 2}) == pytest.approx(
        {"a": 0.2, "b": 0.8}
    )
    assert load_mixture("a=0,b=2").rates({}) == {"a": 0.0, "b": 1.0}
    with pytest.raises(UsageError, match="limit 0; it must be at least 1"):
        Mixture(name="m", tasks=("a",), limit=0)
    with pytest.raises(UsageError, match="a, b differ"):
        Mixture(name="m", tasks=("a",), weights={"b": 1.0})
    with pytest.raises(UsageError, match="at least one"):
        Mixture(name="m", tasks=())
    with pytest.raises(UsageError, match="training sizes of b"):
        Mixture(name="m", tasks=("a", "b")).rates({"a": 1, "b": 0})


def test_user_mixtures() -> None:
    assert load_mixture("mnli+qqp").tasks == ("mnli", "qqp")
    assert load_mixture("mnli=3, qqp=1").rates({}) == pytest.approx({"mnli": 0.75, "qqp": 0.25})
    assert load_mixture("glue") is MIXTURES["glue"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("a=x,b=1", "not a number"), ("a+a", "twice"), ("a=-1,b=2", "weight"), ("a=0,b=0", "not all 0")],
)
def test_wrong_user_mixtures(name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        load_mixture(name)


def test_unknown_mixture_and_missing_sizes() -> None:
    with pytest.raises(UnknownNameError, match="did you mean superglue"):
        load_mixture("super_glue")
    with pytest.raises(UsageError, match="training sizes of qqp"):
        Mixture(name="m", tasks=("mnli", "qqp")).rates({"mnli": 5})
    with pytest.raises(UsageError, match="temperature"):
        Mixture(name="m", tasks=("mnli",), temperature=0)


def stream(seed: int = 0) -> MixtureStream:
    return MixtureStream({"a": 7, "b": 30, "c": 3}, {"a": 0.5, "b": 0.4, "c": 0.1}, seed=seed)


def test_a_seed_reproduces_a_stream() -> None:
    first, again, other = stream(), stream(), stream(1)
    draws = [next(first) for _ in range(500)]
    assert [next(again) for _ in range(500)] == draws
    assert [next(other) for _ in range(500)] != draws


def test_the_stream_is_the_same_on_every_machine() -> None:
    one = stream()
    assert [next(one) for _ in range(6)] == EXPECTED


EXPECTED = [("a", 6), ("b", 25), ("b", 5), ("a", 1), ("a", 2), ("b", 23)]


@given(st.integers(0, 200), st.integers(0, 5))
def test_a_stream_goes_on_exactly_where_it_stopped(stop: int, seed: int) -> None:
    whole, part, rest = stream(seed), stream(seed), stream(seed)
    draws = [next(whole) for _ in range(stop + 60)]
    for _ in range(stop):
        next(part)
    rest.load(part.state())
    assert [next(rest) for _ in range(60)] == draws[stop:]


def test_every_epoch_of_a_task_has_every_row_once_in_another_order() -> None:
    one = stream()
    rows = [row for name, row in (next(one) for _ in range(3000)) if name == "b"]
    epochs = [rows[i : i + 30] for i in range(0, len(rows) - 30, 30)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_shares_follow_the_rates() -> None:
    one = stream()
    counts = Counter(next(one)[0] for _ in range(20_000))
    # Five standard deviations of a share of 0.5 in 20,000 draws are 0.018.
    assert counts["a"] / 20_000 == pytest.approx(0.5, abs=0.018)
    assert counts["c"] / 20_000 == pytest.approx(0.1, abs=0.011)


def test_a_task_of_rate_zero_is_never_drawn() -> None:
    one = MixtureStream({"a": 3, "b": 3}, {"a": 0.0, "b": 1.0}, seed=0)
    assert {next(one)[0] for _ in range(300)} == {"b"}


def test_streams_refuse_another_state_and_wrong_rates() -> None:
    with pytest.raises(UsageError, match="another seed or other tasks"):
        stream(1).load(stream(0).state())
    with pytest.raises(UsageError, match="a size and a rate"):
        MixtureStream({"a": 1}, {"b": 1.0}, seed=0)
    with pytest.raises(UsageError, match="not all 0"):
        MixtureStream({"a": 1}, {"a": 0.0}, seed=0)


@pytest.mark.parametrize("size", [2, 3, 64, 65, 1000])
def test_an_order_that_is_not_written_down_is_a_permutation(size: int) -> None:
    orders = [[scrambled(i, size, bytes([key] * 32)) for i in range(size)] for key in range(3)]
    assert all(sorted(order) == list(range(size)) for order in orders)
    if size > 3:
        assert orders[0] != orders[1]
        assert orders[0] != list(range(size))


def test_large_tasks_are_drawn_once_an_epoch_and_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WRITTEN", 10)
    stream = MixtureStream({"a": 50, "b": 5}, {"a": 0.9, "b": 0.1}, seed=3)
    drawn = [next(stream) for _ in range(40)]
    other = MixtureStream({"a": 50, "b": 5}, {"a": 0.9, "b": 0.1}, seed=3)
    other.load(stream.state())
    drawn += [next(other) for _ in range(100)]
    rows = [row for name, row in drawn if name == "a"]
    assert sorted(rows[:50]) == list(range(50))
    assert sorted(rows[50:100]) == list(range(50))
    assert rows[:50] != rows[50:100]
