"""Similarity of two task embeddings (SPoT section 3.2).

Letters: P prompt tokens, H width, M and N numbers of prompts.

- ``average``, cosine of average tokens: cos(mean_i a_i, mean_j b_j).
- ``per_token``, per-token average cosine: mean over all i, j of cos(a_i, b_j).

The second needs no P x P loop: the mean of the products of normalised tokens is the product of their means,

    1/(P Q) sum_ij <a_i/|a_i|, b_j/|b_j|> = <1/P sum_i a_i/|a_i|, 1/Q sum_j b_j/|b_j|>.

So under either metric a prompt is one vector of H numbers (`task_vector`) and a similarity is one dot product.
A token of length zero has no direction and counts as similarity 0 with everything. Sums are taken in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softprompt.errors import UnknownNameError, UsageError
from softprompt.library.metric import METRICS, Metric
from softprompt.library.record import check_prompt


def check_metric(metric: str) -> None:
    """Raises UnknownNameError when it is not ``per_token`` or ``average``."""
    if metric not in METRICS:
        raise UnknownNameError("similarity", metric, METRICS)


def task_vector(prompt_PH: Tensor, metric: Metric) -> Tensor:
    """The vector of a prompt under a metric, float64 [H] on the CPU: similarities are its dot products.

    Args:
        prompt_PH: float [P, H], a task embedding.
        metric: ``per_token`` or ``average``.

    Raises:
        DataError: not a prompt.
        NonFiniteError: it holds NaN or infinity.
        UnknownNameError: no such metric.
    """
    check_metric(metric)
    check_prompt(prompt_PH, "a task embedding")
    rows_PH = prompt_PH.detach().to("cpu", torch.float64)
    if metric == "per_token":
        return _normalised(rows_PH).mean(0)
    return _normalised(rows_PH.mean(0))


def _normalised(vectors: Tensor) -> Tensor:
    # Scaled by the largest entry first, so that squares neither overflow nor vanish.
    largest = vectors.abs().amax(-1, keepdim=True)
    scaled = vectors / largest.where(largest > 0, 1.0)
    norm = scaled.norm(dim=-1, keepdim=True)
    unit: Tensor = scaled / norm.where(norm > 0, 1.0)
    return unit


def similarity(one_PH: Tensor, other_QH: Tensor, metric: Metric) -> float:
    """Similarity of two task embeddings [P, H] and [Q, H], in -1..1; P and Q may differ.

    Raises:
        UsageError: their widths differ.
    """
    return float(similarity_matrix([one_PH], [other_QH], metric)[0, 0])


def similarity_matrix(ones: Sequence[Tensor], others: Sequence[Tensor], metric: Metric) -> Tensor:
    """All similarities between M and N task embeddings, float64 [M, N].

    Raises:
        UsageError: an embedding's width differs from the first one's.
    """
    check_metric(metric)
    width = next((prompt.shape[-1] for prompt in (*ones, *others)), 0)
    for prompt in (*ones, *others):
        if prompt.shape[-1] != width:
            raise UsageError(
                f"task embeddings of widths {width} and {prompt.shape[-1]} cannot be compared: they belong to two backbones."
            )
    if not ones or not others:
        return torch.zeros(len(ones), len(others), dtype=torch.float64)
    left_MH = torch.stack([task_vector(prompt, metric) for prompt in ones])
    right_NH = torch.stack([task_vector(prompt, metric) for prompt in others])
    return left_MH @ right_NH.T
