"""Baselines for finding kin without a prompt: words the tasks share (TF-IDF), and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from softprompt.tasks.generated import KINSHIP, rows_of


def task_texts(name: str, rows: int = 100) -> list[str]:
    """The texts and targets of a task's first training rows, without task names and field names.

    Field names (hypothesis, premise) and the task's own name would give kinship away without a word being read.
    """
    return [" ".join(row.values()) for row in rows_of(name)["train"][:rows]]


def tfidf_similarity(queries: Sequence[str], candidates: Sequence[str], rows: int = 100) -> NDArray[np.float64]:
    """Cosine of the tasks' TF-IDF vectors, each task one document of its first training rows.

    Args:
        queries: names of generated tasks.
        candidates: likewise.
        rows: training rows read of each.

    Returns:
        float64 [len(queries), len(candidates)], 0..1.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [" ".join(task_texts(name, rows)) for name in (*queries, *candidates)]
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(documents)
    similar = (vectors[: len(queries)] @ vectors[len(queries) :].T).toarray()
    return np.asarray(similar, dtype=np.float64)


def tfidf_ranking(target: str, sources: Sequence[str], rows: int = 100) -> list[tuple[str, float]]:
    """The sources by TF-IDF similarity to the target, most similar first; equal ones by name."""
    similar = tfidf_similarity([target], sources, rows)[0]
    return sorted(zip(sources, map(float, similar), strict=True), key=lambda item: (-item[1], item[0]))


def kin_found(rankings: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """How well rankings find kin.

    Args:
        rankings: target -> sources, best first.

    Returns:
        Percents: ``kin_first`` (targets whose first source is kin), ``reciprocal_rank`` (100 / place of the first kin,
        averaged), and what chance gives for the first of these, ``chance_first``.
    """
    first, reciprocal, chance = [], [], []
    for target, ranked in rankings.items():
        places = [place for place, source in enumerate(ranked, start=1) if source in KINSHIP[target]]
        first.append(float(bool(places) and places[0] == 1))
        reciprocal.append(1.0 / places[0] if places else 0.0)
        chance.append(len(places) / len(ranked))
    return {
        "kin_first": 100.0 * float(np.mean(first)),
        "reciprocal_rank": 100.0 * float(np.mean(reciprocal)),
        "chance_first": 100.0 * float(np.mean(chance)),
    }
