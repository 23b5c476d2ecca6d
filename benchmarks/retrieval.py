"""How fast a library is searched and listed, and what else could be done.

    python benchmarks/retrieval.py                                    # a million vectors of width 768, on 2 threads
    python benchmarks/retrieval.py --prompts 1000000 --width 384
    python benchmarks/retrieval.py --folders 100000 --prompts 0       # a library of 100,000 folders on this disk

Vectors stand for task embeddings: a common direction and a part of their own, as those of one backbone have. Beside our
table: the double sum as the paper prints it (on a few prompts, its time per prompt is given, not a total), one float32
matrix-vector product, and FAISS's flat index where it is installed (``pip install faiss-cpu``). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.library.formats.adapter import folder_files
from softprompt.library.record import PromptRecord
from softprompt.library.search import search
from softprompt.library.similarity import task_vector
from softprompt.library.store import Library
from softprompt.library.vectors import VectorTable, split, write_table

PIECE = 50_000
PROMPT_LENGTH = 100


def milliseconds(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and worst of some repeats after one that warms up, in ms; and processor time, which other load disturbs less."""
    call()
    times, spent = [], []
    for _ in range(repeats):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        call()
        times.append(1e3 * (time.perf_counter() - begun))
        spent.append(1e3 * (time.process_time() - begun_cpu))
    return {
        "median_ms": round(statistics.median(times), 2),
        "worst_ms": round(max(times), 2),
        "median_processor_ms": round(statistics.median(spent), 2),
    }


def pieces(count: int, width: int, seed: int) -> Iterator[Tensor]:
    """Vectors float32 [., width] of unit length, 0.9 of it in common directions."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.nn.functional.normalize(torch.randn(8, width, generator=generator), dim=1)
    for first in range(0, count, PIECE):
        rows = min(PIECE, count - first)
        kind = torch.randint(8, (rows,), generator=generator)
        own = torch.randn(rows, width, generator=generator) / width**0.5
        yield torch.nn.functional.normalize(0.9 * common[kind] + 0.45 * own, dim=1)


def vectors(count: int, width: int, top_k: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Search times over many vectors, and whether the answers agree with a float64 scan."""
    plain = torch.empty(count, width)
    for first, piece in zip(range(0, count, PIECE), pieces(count, width, 0), strict=True):
        plain[first : first + len(piece)] = piece
    centre = plain[:PIECE].mean(0)
    parts = (split(piece, centre) for piece in plain.split(PIECE))
    names = [str(i) for i in range(count)]
    begun = time.perf_counter()
    write_table(folder / "table", names, names, parts, centre)
    built = time.perf_counter() - begun
    table = VectorTable.open(folder / "table")
    generator = torch.Generator().manual_seed(1)
    queries = torch.nn.functional.normalize(
        plain[:8] + 0.3 * torch.randn(8, width, generator=generator) / width**0.5, dim=1
    )
    turn = iter(range(10**9))
    found: dict[str, Any] = {
        "prompts": count,
        "width": width,
        "top_k": top_k,
        "bytes_per_prompt_and_metric": table.bytes_per_prompt,
        "build_s": round(built, 1),
        "ours": milliseconds(lambda: table.query(queries[next(turn) % 8], top_k), repeats),
    }
    found["float32_product"] = milliseconds(lambda: (plain @ queries[next(turn) % 8]).topk(top_k), repeats)
    found["agreement"] = _agreement(table, plain, queries, top_k)
    found["faiss_flat"] = _faiss(plain, queries, top_k, repeats)
    found["double_sum"] = _double_sum(width)
    found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def _agreement(table: VectorTable, plain: Tensor, queries: Tensor, top_k: int) -> dict[str, float]:
    """Share of the true top k that is found, and the largest error of a similarity, against float64."""
    hits, worst = 0, 0.0
    all_exact = torch.cat([part.double() @ queries.double().T for part in plain.split(PIECE)])
    for query, exact in zip(queries, all_exact.T, strict=True):
        best = set(exact.topk(top_k).indices.tolist())
        answer = table.query(query, top_k)
        hits += len(best & {row for row, _ in answer})
        worst = max(worst, *(abs(value - float(exact[row])) for row, value in answer))
    return {"share_of_true_top_k": hits / (top_k * len(queries)), "largest_error": worst}


def _faiss(plain: Tensor, queries: Tensor, top_k: int, repeats: int) -> dict[str, Any]:
    try:
        import faiss
    except ImportError:
        return {"skipped": "not installed: pip install faiss-cpu"}
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(plain.shape[1])
    index.add(plain.numpy())
    turn = iter(range(10**9))

    def one() -> Any:
        i = next(turn) % len(queries)
        return index.search(queries[i : i + 1].numpy(), top_k)

    return {
        **milliseconds(one, repeats),
        "bytes_per_prompt_and_metric": 4 * plain.shape[1],
        "version": faiss.__version__,
    }


def double_sum(one_PH: Tensor, other_QH: Tensor) -> float:
    """The per-token average cosine as the paper prints it: P x Q cosines."""
    one, other = one_PH.double()[:, None, :], other_QH.double()[None, :, :]
    return float(torch.cosine_similarity(one, other, dim=-1, eps=1e-300).mean())


def _double_sum(width: int) -> dict[str, float]:
    """The paper's formula on single prompts [100, width], and our vector of the same prompts."""
    one, other = torch.randn(PROMPT_LENGTH, width), torch.randn(PROMPT_LENGTH, width)
    double = milliseconds(lambda: double_sum(one, other), 5)["median_ms"]
    vector = milliseconds(lambda: task_vector(one, "per_token"), 20)["median_ms"]
    left, right = task_vector(one, "per_token"), task_vector(other, "per_token")
    difference = abs(double_sum(one, other) - float(left @ right))
    return {"ms_per_prompt": double, "ms_per_vector_once": vector, "difference": difference}


def folders(count: int, repeats: int, folder: Path) -> dict[str, Any]:
    """A library of many prompt folders: add, list, search, in this process and as a fresh one would."""
    library = Library(folder / "library")
    generator = torch.Generator().manual_seed(0)
    added, sample = 0.0, min(count, 100)
    for i in range(count):
        prompt = torch.randn(4, 64, generator=generator)
        record = PromptRecord(
            task=f"task{i % 1000}", seed=i, prompt=prompt, task_embedding=prompt, backbone_name="none",
            backbone_fingerprint="0" * 64, backbone_kind="t5", scores={"score": 50.0}, versions={},
        )  # fmt: skip
        begun = time.perf_counter()
        if i < sample:
            library.add(record)
            added += time.perf_counter() - begun
        else:  # the same folder without waiting for the disk
            manifest, files = folder_files(record)
            artifacts.write_folder(folder / "library" / manifest.name, files, durable=False)
    target = [torch.randn(4, 64, generator=generator) for _ in range(3)]

    def seconds(call: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        call()
        return round(time.perf_counter() - begun, 3)

    first = Library(folder / "library")
    found: dict[str, Any] = {"folders": count, "add_per_s": round(sample / added, 1)}
    found["names_s"] = seconds(first.names)
    found["list_without_cache_s"] = seconds(first.list)
    found["search_without_cache_s"] = seconds(lambda: search(first, target))
    fresh = Library(folder / "library")
    found["list_with_cache_s"] = seconds(fresh.list)
    found["search_with_cache_s"] = seconds(lambda: search(fresh, target))
    found["list_again"] = milliseconds(fresh.list, repeats)
    found["search_again"] = milliseconds(lambda: search(fresh, target), repeats)
    found["get_one"] = milliseconds(lambda: fresh.get(f"task{7 % 1000}@7").prompt(), repeats)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Search and listing times of a prompt library.")
    parser.add_argument("--prompts", type=int, default=1_000_000, help="vectors in the table; 0 for none")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--folders", type=int, default=0, help="prompt folders in a library on disk; 0 for none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--scratch", type=Path, default=None, help="folder with some gigabytes free")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        if options.prompts:
            found["vectors"] = vectors(options.prompts, options.width, options.top_k, options.repeats, Path(scratch))
        if options.folders:
            found["library"] = folders(options.folders, options.repeats, Path(scratch))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
