"""Starts from a ranking (SPoT section 3.3)."""

import pytest
import torch

from softprompt.errors import UsageError
from softprompt.methods.spot.strategies import RankedSource, best_of_top_k, mixture_tasks, weighted_average

PROMPTS = {"a@1": torch.full((2, 3), 1.0), "b@1": torch.full((2, 3), 2.0), "c@1": torch.full((2, 3), 4.0)}


def ranking(**similarity):
    return [RankedSource(name=f"{task}@1", task=task, similarity=s) for task, s in similarity.items()]


def test_best_of_top_k_takes_the_first_k():
    starts = best_of_top_k(ranking(a=0.9, b=0.5, c=0.1), 2, PROMPTS.__getitem__)
    assert [s.sources for s in starts] == [("a@1",), ("b@1",)]
    assert len(best_of_top_k(ranking(a=0.9), 5, PROMPTS.__getitem__)) == 1


def test_weighted_average_is_the_papers_alpha():
    start = weighted_average(ranking(a=0.6, b=0.2, c=0.2), 3, PROMPTS.__getitem__)
    assert start.weights == pytest.approx((0.6, 0.2, 0.2))
    torch.testing.assert_close(start.prompt_PH, torch.full((2, 3), 0.6 * 1 + 0.2 * 2 + 0.2 * 4))


def test_negative_similarities_are_dropped_and_named():
    start = weighted_average(ranking(a=0.5, b=-0.2), 2, PROMPTS.__getitem__)
    assert start.sources == ("a@1",)
    assert start.dropped == ("b@1",)
    assert start.weights == (1.0,)


def test_no_positive_similarity_is_refused():
    with pytest.raises(UsageError, match="positive similarity"):
        weighted_average(ranking(a=-0.5, b=0.0), 2, PROMPTS.__getitem__)


def test_prompts_of_two_lengths_cannot_be_averaged():
    prompts = {"a@1": torch.ones(2, 3), "b@1": torch.ones(4, 3)}
    with pytest.raises(UsageError, match="different lengths"):
        weighted_average(ranking(a=0.5, b=0.5), 2, prompts.__getitem__)


def test_mixture_counts_each_task_once_and_ends_with_the_target():
    ranked = [RankedSource(name=n, task=n.split("@")[0], similarity=1.0) for n in ("a@1", "a@2", "b@1", "t@1", "c@1")]
    assert mixture_tasks(ranked, 4, "t") == ("a", "b", "t")


def test_an_empty_library_is_refused():
    with pytest.raises(UsageError, match="no source prompt"):
        best_of_top_k([], 1, PROMPTS.__getitem__)
