"""Which prompts of a library resemble a new task (SPoT section 3.3).

The target's task embeddings, one a seed, are compared with the library's; similarities are averaged over the target's
seeds. Because a similarity is a dot product (`similarity.task_vector`), the average over seeds is one query with the
seeds' mean vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softprompt.errors import SoftpromptError, UsageError, one_line
from softprompt.library.index import Entry
from softprompt.library.manifest import Manifest
from softprompt.library.metric import DEFAULT_METRIC, METRICS, Metric
from softprompt.library.reading import check_vectors, read_steadily, read_task_vectors
from softprompt.library.similarity import check_metric, task_vector
from softprompt.library.store import Library


@dataclass(frozen=True, kw_only=True)
class Match:
    """A prompt of the library beside a target task.

    Attributes:
        rank: 1 for the most similar.
        name: of the prompt.
        task: it was tuned on.
        similarity: under the metric searched by, mean over the target's seeds, in -1..1.
        similarity_std: standard deviation over the target's seeds (n - 1); None for one seed.
        per_token: per-token average cosine, mean over seeds.
        average: cosine of average tokens, mean over seeds.
        agreement: how sure the choice is: the share of the target's seeds under which it is among the matches when
            each seed ranks alone; None for one seed.
        lead: its similarity minus that of the prompt ranked next, whether or not that one is shown; None for the last.
        lead_error: standard error of the lead over the target's seeds, seed by seed; None for one seed.
        entry: the prompt's facts (score, steps, backbone, licence, ...); ``entry.verified`` says whether its backbone is known.
        embedding_from: ``task embedding``, or ``prompt`` where the prompt itself had to stand in.
    """

    rank: int
    name: str
    task: str
    similarity: float
    similarity_std: float | None
    per_token: float
    average: float
    agreement: float | None
    lead: float | None
    lead_error: float | None
    entry: Entry
    embedding_from: str

    def __repr__(self) -> str:
        return one_line(f"<Match {self.rank}: {self.name}, similarity {self.similarity:.4f}>")


def search(
    library: Library,
    target_embeddings: Sequence[Tensor],
    *,
    metric: Metric = DEFAULT_METRIC,
    top_k: int = 10,
    backbone_fingerprint: str | None = None,
    exclude_tasks: Collection[str] = (),
    tasks: Collection[str] | None = None,
    names: Collection[str] | None = None,
    use_prompts: bool = False,
) -> list[Match]:
    """The library's prompts most similar to a target task, best first.

    A prompt that turns out to be damaged is left out and named in ``library.index.problems``.

    Args:
        library: where to look. Prompts of another width are never compared.
        target_embeddings: the target's task embeddings, one a seed, each float [P, H].
        metric: ``average``, or ``per_token`` (the paper's choice for retrieval).
        top_k: how many; all where more.
        backbone_fingerprint: only prompts of this backbone, and unverified ones; all of the width where None.
        exclude_tasks: tasks left out (the target's own).
        tasks: only these tasks.
        names: only these prompts.
        use_prompts: whether prompts without a task embedding are compared by the prompt itself. The paper found final
            prompts less comparable than early ones (its footnote 13), so they are left out otherwise.

    Raises:
        UsageError: no embedding, embeddings of different widths, or top_k below 1.
        UnknownNameError: no such metric.
    """
    check_metric(metric)
    if top_k < 1:
        raise UsageError(f"top_k {top_k} was asked for; at least 1 is needed.")
    queries = _queries(target_embeddings)
    wanted = _filter(backbone_fingerprint, exclude_tasks, tasks, names, use_prompts)
    bad: dict[str, str] = {}
    while True:
        # One more than is asked for: the lead of the last one shown is over it.
        entries, ranked = _ranked(
            library, queries[metric], metric, top_k + 1, lambda e: e.name not in bad and wanted(e)
        )
        mean_ranking, seed_rankings = ranked[0], [set(ranking[:top_k]) for ranking in ranked[1:]]
        found: list[tuple[Match, Tensor]] = []
        known = len(bad)
        for name in mean_ranking:
            try:
                found.append(_match(library, entries[name], queries, metric, seed_rankings))
            except SoftpromptError as error:  # removed since, or damaged: others take its place
                bad[name] = str(error)
        if len(bad) == known:
            break
    library.index.problems.update(bad)
    found.sort(key=lambda pair: (-pair[0].similarity, pair[0].name))
    return [_ahead(match, rank, by_seed, found[rank:]) for rank, (match, by_seed) in enumerate(found[:top_k], start=1)]


def _ahead(match: Match, rank: int, by_seed_S: Tensor, rest: Sequence[tuple[Match, Tensor]]) -> Match:
    """The match with its rank and its lead over the first of the rest."""
    if not rest:
        return replace(match, rank=rank)
    lead_S = by_seed_S - rest[0][1]
    error = float(lead_S.std()) / math.sqrt(len(lead_S)) if len(lead_S) > 1 else None
    return replace(match, rank=rank, lead=float(lead_S.mean()), lead_error=error)


def _queries(target_embeddings: Sequence[Tensor]) -> dict[Metric, Tensor]:
    """The target's vectors under each metric, float64 [seeds, H].

    Raises:
        UsageError: no embedding, or embeddings of different widths.
    """
    if not target_embeddings:
        raise UsageError("search needs at least one task embedding of the target, none was given.")
    widths = {int(embedding.shape[-1]) for embedding in target_embeddings}
    if len(widths) > 1:
        raise UsageError(
            f"the target's task embeddings have widths {sorted(widths)}; they must come from one backbone."
        )
    return {m: torch.stack([task_vector(embedding, m) for embedding in target_embeddings]) for m in METRICS}


def _filter(
    backbone_fingerprint: str | None,
    exclude_tasks: Collection[str],
    tasks: Collection[str] | None,
    names: Collection[str] | None,
    use_prompts: bool,
) -> Callable[[Entry], bool]:
    def wanted(entry: Entry) -> bool:
        return (
            (backbone_fingerprint is None or entry.backbone_fingerprint in (None, backbone_fingerprint))
            and (use_prompts or entry.has_task_embedding)
            and entry.task not in exclude_tasks
            and (tasks is None or entry.task in tasks)
            and (names is None or entry.name in names)
        )

    return wanted


def _ranked(
    library: Library, queries_SH: Tensor, metric: Metric, top_k: int, wanted: Callable[[Entry], bool]
) -> tuple[dict[str, Entry], list[list[str]]]:
    """The entries, and the names ranked by the mean of the queries and, for several, by each alone."""
    entries, tables = library.index.tables(int(queries_SH.shape[1]), metric)
    vectors = [queries_SH.mean(0), *(queries_SH if len(queries_SH) > 1 else ())]
    found: list[list[tuple[float, str]]] = [[] for _ in vectors]
    for table, rows in tables:
        kept = [row for row in rows if wanted(entries[table.names[row]])]
        if not kept:
            continue
        keep_n = None
        if len(kept) < len(table):
            keep_n = torch.zeros(len(table), dtype=torch.bool)
            keep_n[torch.tensor(kept)] = True
        for vector, hits in zip(vectors, found, strict=True):
            hits += [(value, table.names[row]) for row, value in table.query(vector, top_k, keep_n)]
    return entries, [[name for _, name in sorted(hits, key=lambda h: (-h[0], h[1]))[:top_k]] for hits in found]


def _checked_vectors(library: Library, manifest: Manifest) -> dict[str, Tensor]:
    """What is shown is compared with the embedding it comes from: whoever wrote the vectors could have made them up."""
    vectors = read_task_vectors(library.folders, manifest)
    check_vectors(library.folders, manifest, vectors)
    return vectors


def _match(
    library: Library, entry: Entry, queries: dict[Metric, Tensor], metric: Metric, seed_rankings: Sequence[set[str]]
) -> tuple[Match, Tensor]:
    """A prompt beside the target, without rank and lead, and its similarity under each of the target's seeds."""
    vectors = read_steadily(library.folders, entry.name, lambda manifest: _checked_vectors(library, manifest))
    by_seed = {m: queries[m] @ vectors[m].to(torch.float64) for m in METRICS}
    several = len(by_seed[metric]) > 1
    match = Match(
        rank=0,
        name=entry.name,
        task=entry.task,
        similarity=float(by_seed[metric].mean()),
        similarity_std=float(by_seed[metric].std()) if several else None,
        per_token=float(by_seed["per_token"].mean()),
        average=float(by_seed["average"].mean()),
        agreement=sum(entry.name in ranking for ranking in seed_rankings) / len(seed_rankings) if several else None,
        lead=None,
        lead_error=None,
        entry=entry,
        embedding_from="task embedding" if entry.has_task_embedding else "prompt",
    )
    return match, by_seed[metric]
