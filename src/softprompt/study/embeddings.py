"""Similarity of task embeddings, its clusters, and how it goes with the gain of transfer (SPoT 3.2, 3.3, F, G).

Letters: N task embeddings, S source tasks, T target tasks, M source prompts, P prompt tokens, H width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.errors import UnknownNameError
from softprompt.study.analysis import Gains, finished_mean
from softprompt.study.records import Floats, PromptId, Results

SIMILARITIES = {
    "average": "cosine similarity of average tokens",
    "per_token": "per-token average cosine similarity",
}
"""The two similarities of SPoT section 3.2, and the papers' names for them."""

SHORT_NAMES = {"average": "average tokens", "per_token": "per token"}
"""For legends."""


def similarity_NN(embeddings: Sequence[Floats], kind: str = "average") -> Floats:
    """Float [N, N], similarity of every two task embeddings.

    The mean cosine over all token pairs equals the dot product of the means of the normalised tokens, so that both
    similarities need one vector of H for an embedding.

    Args:
        embeddings: N arrays [P, H]; P may differ, H may not.
        kind: a key of `SIMILARITIES`.

    Raises:
        UnknownNameError: another kind.
    """
    if kind not in SIMILARITIES:
        raise UnknownNameError("similarity", kind, SIMILARITIES)
    if not embeddings:
        return np.zeros((0, 0))
    if kind == "average":
        vectors = np.stack([np.asarray(e, dtype=np.float64).mean(axis=0) for e in embeddings])
        vectors = vectors / _norms(vectors)
    else:
        vectors = np.stack([(e / _norms(e)).mean(axis=0) for e in map(_double, embeddings)])
    return np.asarray(vectors @ vectors.T)


def _double(array: Floats) -> Floats:
    return np.asarray(array, dtype=np.float64)


def _norms(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(norms == 0, 1.0, norms)  # a zero vector is like nothing: cosine 0


@dataclass(frozen=True, kw_only=True)
class SimilarityMap:
    """Similarities of N rows, ordered so that similar ones stand together.

    Attributes:
        names: N labels, in the given order.
        matrix_NN: similarity.
        order: indices of the rows from top to bottom of the dendrogram.
        linkage: float [N - 1, 4], scipy's linkage matrix; empty with fewer than two rows.
    """

    names: tuple[str, ...]
    matrix_NN: Floats
    order: tuple[int, ...]
    linkage: Floats


def cluster(names: Sequence[str], matrix_NN: Floats) -> SimilarityMap:
    """Average linkage on the rows of the similarity matrix, as a clustered heatmap does it (Figures 4 and 7).

    The distance of two tasks is the Euclidean distance of their rows: tasks are alike that are alike to the same tasks.
    """
    if len(names) < 2:
        order = tuple(range(len(names)))
        return SimilarityMap(names=tuple(names), matrix_NN=matrix_NN, order=order, linkage=np.zeros((0, 4)))
    from scipy.cluster.hierarchy import leaves_list, linkage

    tree = np.asarray(linkage(matrix_NN, method="average", metric="euclidean", optimal_ordering=len(names) <= 200))
    order = tuple(int(i) for i in leaves_list(tree))
    return SimilarityMap(names=tuple(names), matrix_NN=matrix_NN, order=order, linkage=tree)


def run_similarities(embeddings: Mapping[PromptId, Floats], kind: str = "average") -> SimilarityMap:
    """Every run against every run, clustered; rows are named ``task_1``, ``task_2``, ... as in Figure 7."""
    ids = sorted(embeddings)
    count: dict[str, int] = {}
    names = []
    for task, _ in ids:
        count[task] = count.get(task, 0) + 1
        names.append(f"{task}_{count[task]}")
    return cluster(names, similarity_NN([embeddings[i] for i in ids], kind))


def task_similarities(embeddings: Mapping[PromptId, Floats], kind: str = "average") -> SimilarityMap:
    """Tasks against tasks, averaged over all pairs of their runs, and clustered (Figure 4, footnote 14).

    With three seeds that is 9 combinations; on the diagonal three of them pair a run with itself, as in the paper.
    """
    if not embeddings:
        return cluster((), np.zeros((0, 0)))
    ids = sorted(embeddings)
    matrix = similarity_NN([embeddings[i] for i in ids], kind)
    tasks = list(dict.fromkeys(task for task, _ in ids))
    member = np.array([[task == name for task, _ in ids] for name in tasks], dtype=np.float64)
    share = member / member.sum(axis=1, keepdims=True)
    return cluster(tasks, share @ matrix @ share.T)


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Similarity against gain on one target, one point a source prompt (Figures 5 and 8).

    Attributes:
        target: the target task.
        prompts: the source prompts of the points.
        similarity_M: similarity of source and target embedding, averaged over the target's runs.
        gain_M: relative error reduction, percent.
        r: Pearson's correlation coefficient; None with fewer than three points or where one axis is constant.
        p: its two-sided p-value.
        missing: source prompts without a point yet.
    """

    target: str
    prompts: tuple[PromptId, ...]
    similarity_M: Floats
    gain_M: Floats
    r: float | None
    p: float | None
    missing: int


def correlations(
    results: Results, kind: str = "average", embeddings: Mapping[PromptId, Floats] | None = None
) -> list[Correlation]:
    """Similarity against relative error reduction for every target.

    Args:
        results: the study's records.
        kind: a key of `SIMILARITIES`.
        embeddings: task embeddings; the study's own where None.
    """
    embeddings = results.embeddings if embeddings is None else embeddings
    gains = Gains.of(results)
    out = []
    for t, target in enumerate(results.targets):
        similarity = target_similarities(results, target, kind, embeddings)
        similarity_M = finished_mean(similarity, axis=0) if similarity.size else np.full(len(results.prompts), np.nan)
        gain_M = gains.gain_STR[:, t].ravel()
        done = ~np.isnan(gain_M) & ~np.isnan(similarity_M)
        r, p = pearson(similarity_M[done], gain_M[done])
        prompts = tuple(prompt for prompt, there in zip(results.prompts, done, strict=True) if there)
        out.append(
            Correlation(
                target=target,
                prompts=prompts,
                similarity_M=similarity_M[done],
                gain_M=gain_M[done],
                r=r,
                p=p,
                missing=int((~done).sum()),
            )
        )
    return out


def target_similarities(
    results: Results, target: str, kind: str, embeddings: Mapping[PromptId, Floats] | None = None
) -> Floats:
    """Float [R', M], similarity of each of the target's R' embedded runs to each source prompt; NaN where there is none."""
    embeddings = results.embeddings if embeddings is None else embeddings
    runs = [seed for seed in results.seeds if (target, seed) in embeddings]
    known = [prompt for prompt in results.prompts if prompt in embeddings]
    out = np.full((len(runs), len(results.prompts)), np.nan)
    if not runs or not known:
        return out[:0]
    matrix = similarity_NN([embeddings[target, seed] for seed in runs] + [embeddings[p] for p in known], kind)
    columns = [results.prompts.index(prompt) for prompt in known]
    out[:, columns] = matrix[: len(runs), len(runs) :]
    return out


def pearson(x: Floats, y: Floats) -> tuple[float | None, float | None]:
    """Pearson's r and two-sided p; (None, None) with fewer than three points or a constant axis."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    from scipy.stats import pearsonr

    found = pearsonr(x, y)
    return float(found.statistic), float(found.pvalue)
