"""Search: the ranking of the paper, whatever the caches hold."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from softprompt.errors import UnknownNameError, UsageError
from softprompt.library import index as index_module
from softprompt.library.record import PromptRecord
from softprompt.library.search import search
from softprompt.library.similarity import METRICS, similarity
from softprompt.library.store import Library
from softprompt.library.vectors import VectorTable, try_open

WIDTH = 16


def record(task: str, seed: int, embedding: Tensor | None, *, fingerprint: str | None = "f" * 64) -> PromptRecord:
    return PromptRecord(
        task=task,
        seed=seed,
        prompt=torch.randn(3, WIDTH if embedding is None else embedding.shape[1]),
        task_embedding=embedding,
        backbone_name="tiny",
        backbone_fingerprint=fingerprint,
        backbone_kind="t5",
        scores={"score": 50.0 + seed},
    )


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Library, dict[str, Tensor]]:
    library = Library(tmp_path / "p")
    common = torch.randn(WIDTH)
    embeddings = {}
    for task in range(10):
        for seed in range(3):
            embedding = torch.randn(4, WIDTH) + common * (task % 3)
            embeddings[f"task{task}@{seed}"] = embedding
            library.add(record(f"task{task}", seed, embedding))
    return library, embeddings


@pytest.mark.parametrize(("metric", "rewrite"), [(METRICS[0], -1), (METRICS[0], 5), (METRICS[1], 5), (METRICS[1], 256)])
def test_ranking_equals_the_definition(
    filled: tuple[Library, dict[str, Tensor]], metric: str, rewrite: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_REWRITE_COUNT", rewrite)
    library, embeddings = filled
    targets = [torch.randn(5, WIDTH) + 0.2, torch.randn(5, WIDTH)]

    def expected() -> list[tuple[str, float]]:
        mean = {n: sum(similarity(t, e, metric) for t in targets) / 2 for n, e in embeddings.items()}  # type: ignore[arg-type]
        return sorted(mean.items(), key=lambda item: -item[1])

    def check(where: Library) -> None:
        matches = search(where, targets, metric=metric, top_k=7)  # type: ignore[arg-type]
        wanted = expected()[:7]
        assert [m.name for m in matches] == [name for name, _ in wanted]
        assert [m.rank for m in matches] == list(range(1, 8))
        for match, (name, value) in zip(matches, wanted, strict=True):
            by_seed = [similarity(t, embeddings[name], metric) for t in targets]  # type: ignore[arg-type]
            assert match.similarity == pytest.approx(value, abs=1e-6)
            assert match.similarity_std == pytest.approx(abs(by_seed[0] - by_seed[1]) / math.sqrt(2), abs=1e-6)
            assert {"per_token": match.per_token, "average": match.average}[metric] == match.similarity
            both = [sum(similarity(t, embeddings[name], m) for t in targets) / 2 for m in METRICS]
            assert [match.per_token, match.average] == pytest.approx(both, abs=1e-6)
            assert match.entry.score == 50.0 + match.entry.seed

    check(library)
    check(library)  # from memory
    check(Library(library.location))  # from the caches on the disk
    library.remove("task4@1")
    del embeddings["task4@1"]
    embeddings["task1@0"] = torch.randn(4, WIDTH)
    Library(library.location).add(record("task1", 0, embeddings["task1@0"]), replace=True)
    embeddings["new@0"] = targets[0]
    Library(library.location).add(record("new", 0, embeddings["new@0"]))
    check(library)
    check(Library(library.location))
    shutil.rmtree(library.index.folders.index_folder, ignore_errors=True)  # never the truth: the folders are
    check(Library(library.location))


def test_agreement_of_seeds(filled: tuple[Library, dict[str, Tensor]]) -> None:
    library, embeddings = filled
    one, other = embeddings["task0@0"], embeddings["task3@1"]
    matches = search(library, [one, one, other], metric="average", top_k=1)
    assert matches[0].name == "task0@0"
    assert matches[0].agreement == pytest.approx(2 / 3)
    alone = search(library, [one], metric="average", top_k=1)
    assert (alone[0].agreement, alone[0].similarity_std) == (None, None)


def test_only_what_can_be_compared(filled: tuple[Library, dict[str, Tensor]]) -> None:
    library, embeddings = filled
    target = embeddings["task0@0"]
    library.add(record("imported", 0, target, fingerprint=None))
    library.add(record("foreign", 0, target, fingerprint="0" * 64))
    library.add(record("wide", 0, torch.randn(4, WIDTH * 2)))
    library.add(record("bare", 0, None))
    names = [m.name for m in search(library, [target], top_k=99, backbone_fingerprint="f" * 64)]
    assert len(names) == 31
    assert "imported@0" in names
    assert not {"foreign@0", "wide@0", "bare@0"} & set(names)
    unverified = next(m for m in search(library, [target], top_k=99) if m.name == "imported@0")
    assert unverified.entry.verified is False
    with_prompts = search(library, [target], top_k=99, use_prompts=True, names=["bare@0", "task0@0"])
    assert {m.name: m.embedding_from for m in with_prompts} == {"bare@0": "prompt", "task0@0": "task embedding"}
    assert {m.task for m in search(library, [target], top_k=5, tasks=["task1", "task2"])} <= {"task1", "task2"}
    assert "task0" not in {m.task for m in search(library, [target], top_k=99, exclude_tasks=["task0"])}


def test_bad_requests(tmp_path: Path) -> None:
    library = Library(tmp_path / "p")
    with pytest.raises(UsageError, match="at least one"):
        search(library, [])
    with pytest.raises(UsageError, match=r"widths \[3, 4\]"):
        search(library, [torch.ones(1, 3), torch.ones(1, 4)])
    with pytest.raises(UsageError, match="top_k 0"):
        search(library, [torch.ones(1, 3)], top_k=0)
    with pytest.raises(UnknownNameError):
        search(library, [torch.ones(1, 3)], metric="cosine")  # type: ignore[arg-type]
    assert search(library, [torch.ones(1, 3)]) == []


def test_a_damaged_prompt_is_left_out_and_named(filled: tuple[Library, dict[str, Tensor]]) -> None:
    library, embeddings = filled
    target = embeddings["task0@0"]
    assert search(library, [target], top_k=1, metric="average")[0].name == "task0@0"
    path = Path(library.location) / "task0@0" / "task_vectors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 64
    path.write_bytes(bytes(data))
    assert "task0@0" not in [m.name for m in search(library, [target], top_k=3, metric="average")]
    assert "not what was written" in library.index.problems["task0@0"]
    fresh = Library(library.location)
    assert "task0@0" not in [m.name for m in search(fresh, [target], top_k=3, metric="average")]


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_tables_rank_as_float64_does(tmp_path: Path, spread: float) -> None:
    count, top_k = 5000, 20
    vectors = torch.randn(1, 64) + spread * torch.randn(count, 64)  # all alike: what bfloat16 alone would confuse
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = VectorTable.of([str(i) for i in range(count)], ["v"] * count, vectors)
    table.save(tmp_path / "t")
    assert table.bytes_per_prompt == 4 * 64
    opened = try_open(tmp_path / "t")
    assert opened is not None
    query = vectors[17] * 0.5 + 0.01 * torch.randn(64)
    exact = vectors.double() @ query.double()
    for where in (table, opened):
        found = where.query(query, top_k)
        assert [row for row, _ in found] == exact.topk(top_k).indices.tolist()
        assert [value for _, value in found] == pytest.approx(
            exact.topk(top_k).values.tolist(), abs=2e-5 * spread + 1e-6
        )
    keep = torch.zeros(count, dtype=torch.bool)
    keep[::7] = True
    assert all(row % 7 == 0 for row, _ in opened.query(query, 5, keep))
    assert opened.query(query, 3, torch.zeros(count, dtype=torch.bool)) == []


def test_torn_tables_are_not_used(tmp_path: Path) -> None:
    VectorTable.of(["a"], ["v"], torch.ones(1, 4)).save(tmp_path / "t")
    assert try_open(tmp_path / "t") is not None
    (tmp_path / "t" / "hi.bf16").write_bytes(b"123")
    assert try_open(tmp_path / "t") is None
    (tmp_path / "t" / "about.json").write_text("[]")
    assert try_open(tmp_path / "t") is None
    assert try_open(tmp_path / "gone") is None
