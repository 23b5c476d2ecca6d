"""Similarity of task embeddings, its clusters, and how it goes with the gain of transfer (SPoT 3.2, 3.3, F, G).

Letters: N task embeddings, S source tasks, T target tasks, M source prompts, P prompt tokens, H width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.analysis.gains import Gains, finished_mean
from softprompt.analysis.records import Floats, PromptId, Results
from softprompt.analysis.statistics import p_text, t_interval
from softprompt.analysis.tables import PENDING, Row, Table
from softprompt.errors import UnknownNameError

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
    """Similarity against gain on one target (Figures 5 and 8).

    A point is a source prompt; the correlation is over source tasks, whose prompts are averaged first: three seeds of one
    source are not three pieces of evidence.

    Attributes:
        target: the target task.
        prompts: the source prompts of the points.
        similarity_M: similarity of source and target embedding, averaged over the target's runs.
        gain_M: relative error reduction, percent.
        r: Pearson's correlation over source tasks; None with fewer than three or where one axis is constant.
        p: its two-sided permutation p-value.
        sources: source tasks that it is over.
        missing: source prompts without a point yet.
    """

    target: str
    prompts: tuple[PromptId, ...]
    similarity_M: Floats
    gain_M: Floats
    r: float | None
    p: float | None
    sources: int
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
        shape = len(results.sources), len(results.seeds)
        by_source = [finished_mean(np.where(done, v, np.nan).reshape(shape), axis=1) for v in (similarity_M, gain_M)]
        known = ~np.isnan(by_source[0])
        r, p = pearson(by_source[0][known], by_source[1][known])
        out.append(
            Correlation(
                target=target,
                prompts=tuple(prompt for prompt, there in zip(results.prompts, done, strict=True) if there),
                similarity_M=similarity_M[done],
                gain_M=gain_M[done],
                r=r,
                p=p,
                sources=int(known.sum()),
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
    """Pearson's r and its two-sided permutation p (exact up to eight points); None with fewer than three, or a constant axis."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    from scipy.stats import PermutationMethod, pearsonr

    method = PermutationMethod(n_resamples=50_000, rng=np.random.default_rng(0))
    found = pearsonr(x, y, method=method)
    return float(found.statistic), float(found.pvalue)


def correlation_table(results: Results, kind: str) -> Table:
    """Pearson's r and p of similarity and gain, by target (Figure 8's titles)."""
    rows = [
        (c.target, *((PENDING, PENDING) if c.r is None or c.p is None else (f"{c.r:.2f}", p_text(c.p))), str(c.sources))
        for c in correlations(results, kind)
    ]
    return Table(
        name=f"correlation_{kind}",
        title=f"Correlation of {SIMILARITIES[kind]} with relative error reduction, over source tasks",
        columns=("target", "r", "p", "source tasks"),
        rows=tuple(rows),
        notes=("Prompts of one source are averaged first. p: permutation of the source tasks.",),
    )


def checkpoint_table(results: Results) -> Table:
    """How well embeddings at other steps predict gains: mean Pearson r over targets (footnote 13)."""
    sets = {"the study's step": results.embeddings, **results.other_embeddings}
    rows: list[Row] = []
    for name, embeddings in sets.items():
        means = []
        for kind in SIMILARITIES:
            found = [c.r for c in correlations(results, kind, embeddings) if c.r is not None]
            means.append(f"{t_interval(found).text(2)} ({len(found)} targets)" if found else PENDING)
        rows.append((f"{name} steps" if name.isdigit() else name, *means))
    return Table(
        name="embedding_checkpoints",
        title="Task embeddings from other checkpoints: mean Pearson r of similarity and gain over targets",
        columns=("embedding", *SIMILARITIES.values()),
        rows=tuple(rows),
    )


def related_maps(
    embeddings: Mapping[PromptId, Floats], skills: tuple[Sequence[str], Floats] | None
) -> tuple[SimilarityMap, Floats] | None:
    """SPoT's task similarities and SharPT's relations of the same tasks in the same order; None where one is missing.

    Args:
        embeddings: task embeddings.
        skills: tasks, and their relation by shared skills, float [N, N].
    """
    if skills is None or not embeddings:
        return None
    names, matrix = skills
    own = task_similarities(embeddings)
    shared = [name for name in own.names if name in names]
    if len(shared) < 2:
        return None
    mine, theirs = [own.names.index(name) for name in shared], [list(names).index(name) for name in shared]
    return cluster(shared, own.matrix_NN[np.ix_(mine, mine)]), matrix[np.ix_(theirs, theirs)]
