"""Similarities of SPoT section 3.2, by hand, against the double sum, and their properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softprompt.errors import DataError, NonFiniteError, UnknownNameError, UsageError
from softprompt.library.similarity import (
    METRICS,
    similarity,
    similarity_matrix,
    task_vector,
)


def per_token_double_sum(one_PH: torch.Tensor, other_QH: torch.Tensor) -> float:
    """The per-token average cosine as the paper prints it: P x Q cosines."""
    one, other = one_PH.double()[:, None, :], other_QH.double()[None, :, :]
    return float(torch.cosine_similarity(one, other, dim=-1, eps=1e-300).mean())


def test_by_hand() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    other = torch.tensor([[3.0, 0.0]])
    # averages (0.5, 1) and (3, 0): cos = 0.5 / sqrt(1.25)
    assert similarity(one, other, "average") == pytest.approx(0.5 / math.sqrt(1.25), abs=1e-12)
    # cosines 1 and 0
    assert similarity(one, other, "per_token") == pytest.approx(0.5, abs=1e-12)
    assert per_token_double_sum(one, other) == pytest.approx(0.5, abs=1e-12)
    # a prompt beside itself: per token it is the mean over all pairs, so less than 1
    assert similarity(one, one, "per_token") == pytest.approx(0.5, abs=1e-12)
    assert similarity(one, one, "average") == pytest.approx(1.0, abs=1e-12)


@given(
    st.integers(0, 10**6),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 40),
    st.sampled_from([1e-20, 1.0, 1e3, 1e15]),
)
def test_the_identity_equals_the_double_sum(
    seed: int, one_length: int, other_length: int, width: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(one_length, width, generator=generator) * scale
    other = torch.randn(other_length, width, generator=generator) + 0.3
    assert similarity(one, other, "per_token") == pytest.approx(per_token_double_sum(one, other), abs=1e-12)


def test_at_the_papers_size_and_the_released_prompts_norms() -> None:
    one, other = torch.randn(100, 768) * 50, torch.randn(100, 768) * 0.5 + 1
    assert similarity(one, other, "per_token") == pytest.approx(per_token_double_sum(one, other), abs=1e-12)
    plain = torch.cosine_similarity(one.double().mean(0), other.double().mean(0), dim=0)
    assert similarity(one, other, "average") == pytest.approx(float(plain), abs=1e-12)


@given(st.integers(0, 10**6))
def test_symmetry_scale_and_order_of_tokens(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(5, 7, generator=generator), torch.randn(4, 7, generator=generator)
    for metric in METRICS:
        value = similarity(one, other, metric)
        assert -1 - 1e-12 <= value <= 1 + 1e-12
        assert similarity(other, one, metric) == pytest.approx(value, abs=1e-12)
        assert similarity(one * 7.5, other, metric) == pytest.approx(value, abs=1e-6)
        assert similarity(one[torch.randperm(5, generator=generator)], other, metric) == pytest.approx(value, abs=1e-12)


def test_zero_tokens_have_no_direction() -> None:
    one = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert similarity(one, torch.tensor([[0.0, 1.0]]), "per_token") == 0.5
    assert similarity(torch.zeros(2, 2), one, "average") == 0.0


def test_bad_input() -> None:
    good = torch.ones(2, 3)
    with pytest.raises(UsageError, match="widths 3 and 4"):
        similarity(good, torch.ones(2, 4), "average")
    with pytest.raises(UnknownNameError, match="per_token"):
        similarity_matrix([good], [good], "per_tokens")  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError):
        task_vector(good * float("inf"), "average")
    with pytest.raises(DataError):
        task_vector(torch.ones(3), "average")
    assert similarity_matrix([], [good], "average").shape == (0, 1)


def test_nothing_beside_something_is_an_empty_table_of_a_known_metric() -> None:
    empty = similarity_matrix([], [torch.ones(2, 3)], "average")
    assert (empty.shape, empty.dtype) == ((0, 1), torch.float64)
    for ones, others in (([], []), ([torch.ones(2, 3)], [])):
        with pytest.raises(UnknownNameError):
            similarity_matrix(ones, others, "cosine")  # type: ignore[arg-type]
