"""Where a target prompt can start from (SPoT section 3.3), as pure functions over a ranked list of source prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from softprompt.errors import UsageError
from softprompt.methods.method import Start


@dataclass(frozen=True, kw_only=True)
class RankedSource:
    """One source prompt in a ranking.

    Attributes:
        name: in the library.
        task: its source task.
        similarity: to the target's task embedding, averaged over the target's seeds.
    """

    name: str
    task: str
    similarity: float


def best_of_top_k(ranking: Sequence[RankedSource], k: int, load: Callable[[str], Tensor]) -> list[Start]:
    """The k most similar source prompts, one start each; the best of the k trained prompts is used.

    Args:
        ranking: in descending order of similarity.
        k: how many, at least 1; all where there are fewer.
        load: gives a source prompt [P, H] by name.
    """
    _at_least_one(ranking, k)
    return [
        Start(strategy="best_of_top_k", sources=(r.name,), weights=(1.0,), prompt_PH=load(r.name)) for r in ranking[:k]
    ]


def drawn(names: Sequence[str], k: int, seed: int, load: Callable[[str], Tensor]) -> list[Start]:
    """At most k source prompts drawn at random: what a ranking has to beat with as many tries.

    Args:
        names: of the source prompts.
        k: how many, at least 1.
        seed: of the draw.
        load: gives a source prompt [P, H] by name.
    """
    picked = np.random.default_rng([seed, len(names)]).permutation(len(names))[:k]
    ranking = [RankedSource(name=names[int(i)], task="", similarity=0.0) for i in picked]
    return [replace(start, strategy="random") for start in best_of_top_k(ranking, k, load)]


def weighted_average(ranking: Sequence[RankedSource], k: int, load: Callable[[str], Tensor]) -> Start:
    """The top-k source prompts [P, H] averaged with weights sim_r / sum of sims.

    Source prompts whose similarity is not positive are dropped and named: the paper's weights would turn them around.

    Raises:
        UsageError: none of the top k has a positive similarity, or their lengths differ.
    """
    _at_least_one(ranking, k)
    top = ranking[:k]
    positive = [r for r in top if r.similarity > 0.0]
    if not positive:
        raise UsageError(
            f"none of the top {len(top)} source prompts has a positive similarity to the target: "
            "weighted_average has nothing to average, use best_of_top_k or start from scratch."
        )
    total = sum(r.similarity for r in positive)
    weights = tuple(r.similarity / total for r in positive)
    prompts = [load(r.name) for r in positive]
    shapes = {tuple(p.shape) for p in prompts}
    if len(shapes) > 1:
        raise UsageError(
            f"source prompts of different lengths ({sorted(s[0] for s in shapes)} tokens) cannot be averaged: "
            "use best_of_top_k, or a library of one prompt length."
        )
    average = sum((w * p.float() for w, p in zip(weights, prompts, strict=True)), start=prompts[0].float() * 0.0)
    return Start(
        strategy="weighted_average",
        sources=tuple(r.name for r in positive),
        weights=weights,
        prompt_PH=average,
        dropped=tuple(r.name for r in top if r.similarity <= 0.0),
    )


def mixture_tasks(ranking: Sequence[RankedSource], k: int, target: str) -> tuple[str, ...]:
    """The tasks among the top-k source prompts, each counted once, and the target last (SPoT section 3.3)."""
    _at_least_one(ranking, k)
    names = list(dict.fromkeys(r.task for r in ranking[:k] if r.task != target))
    return (*names, target)


def _at_least_one(ranking: Sequence[RankedSource], k: int) -> None:
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}.")
    if not ranking:
        raise UsageError("no source prompt could be ranked: train some of other tasks, or import them.")
