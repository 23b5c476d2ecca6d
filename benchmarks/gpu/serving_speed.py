"""Serving many prompts from one backbone: mixed requests in one batch, against one prompt at a time, against PEFT.

    python benchmarks/gpu/serving_speed.py /tmp/inputs /tmp/serving --minutes 5
    python benchmarks/gpu/serving_speed.py --self-check

All requests arrive at once, each for one of ``--prompts`` prompts. ``mixed`` answers them in batches as they came;
``one-at-a-time`` is the same engine, a batch holding one prompt's requests alone; ``peft`` switches adapters and calls
``generate``. A request's latency is the time until its batch is answered, tokenizing and decoding included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from job import Budget, Job, job_of, parser, run, verify

MODES = ("mixed", "one-at-a-time", "peft")
Answered = tuple[list[str], list[float]]
"""Texts, and seconds until each, in the order of the requests."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked: prompt number and text of each request, and the prompts [U, P, H]."""

    which: Sequence[int]
    texts: Sequence[str]
    prompts: Any
    new_tokens: int
    batch: int


def load_of(backbone: Any, texts: Sequence[str], *, prompts: int, length: int, requests: int, new_tokens: int, batch: int,
            seed: int) -> Load:  # fmt: skip
    """Requests in a seeded order; prompts are random word vectors, which costs what trained ones cost."""
    import numpy as np
    import torch

    draw = np.random.default_rng(seed)
    table = backbone.embedding_table().cpu()
    ids = torch.from_numpy(draw.integers(0, table.shape[0], (prompts, length)))
    return Load(
        which=draw.integers(0, prompts, requests).tolist(),
        texts=[texts[i] for i in draw.integers(0, len(texts), requests)],
        prompts=table[ids],
        new_tokens=new_tokens,
        batch=batch,
    )


def engine_mode(backbone: Any, load: Load, *, mixed: bool) -> Callable[[], Answered]:
    """Our engine, over batches as requests came or over one prompt's requests after the other's."""
    from softprompt.inference.engine import Engine, Request, Served
    from softprompt.prompts.stack import PromptStack

    prompts = load.prompts.to(backbone.device)

    def resolve(name: str) -> Served:
        return Served(prompter=PromptStack(prompts[int(name)][None], keys=[name]))

    engine = Engine(backbone, resolve, batch_tokens=1 << 30)
    requests = [
        Request(prompt=str(n), text=text, max_new_tokens=load.new_tokens)
        for n, text in zip(load.which, load.texts, strict=True)
    ]
    order = list(range(len(requests))) if mixed else sorted(range(len(requests)), key=lambda i: load.which[i])

    def answer() -> Answered:
        texts, seconds = [""] * len(requests), [0.0] * len(requests)
        started = time.perf_counter()
        for part in batches(order, load, mixed=mixed):
            answers = engine.answer([requests[i] for i in part])
            now = time.perf_counter() - started
            for i, each in zip(part, answers, strict=True):
                texts[i], seconds[i] = each.text, now
        return texts, seconds

    return answer


def peft_mode(backbone: Any, load: Load) -> Callable[[], Answered]:
    """PEFT: one adapter a prompt, ``set_adapter`` and ``generate`` for each prompt's requests."""
    from peft_prompts import peft_answers

    answers = peft_answers(backbone, load.prompts, load.new_tokens)
    order = sorted(range(len(load.which)), key=lambda i: load.which[i])

    def answer() -> Answered:
        texts, seconds = [""] * len(load.which), [0.0] * len(load.which)
        started = time.perf_counter()
        for part in batches(order, load, mixed=False):
            found = answers(load.which[part[0]], [load.texts[i] for i in part])
            now = time.perf_counter() - started
            for i, text in zip(part, found, strict=True):
                texts[i], seconds[i] = text, now
        return texts, seconds

    return answer


def batches(order: Sequence[int], load: Load, *, mixed: bool) -> list[list[int]]:
    """Requests of each batch: at most ``load.batch``, and of one prompt unless ``mixed``."""
    parts: list[list[int]] = []
    for i in order:
        if not parts or len(parts[-1]) >= load.batch or (not mixed and load.which[parts[-1][0]] != load.which[i]):
            parts.append([])
        parts[-1].append(i)
    return parts


def measured(answer: Callable[[], Answered], repeats: int, budget: Budget) -> tuple[list[str], dict[str, Any]]:
    """Texts and figures of one mode: the first round warms up; the best of the others counts."""
    import numpy as np

    texts, seconds = answer()
    rounds: list[list[float]] = []
    for _ in range(repeats):
        if rounds and budget.over:
            break
        texts, seconds = answer()
        rounds.append(seconds)
    totals = [max(each) for each in rounds]
    best = rounds[int(np.argmin(totals))]
    p50, p90, p99 = (float(1000 * np.percentile(best, q)) for q in (50, 90, 99))
    return texts, {
        "requests_per_second": len(texts) / min(totals), "latency_ms": {"p50": p50, "p90": p90, "p99": p99},
        "rounds_seconds": totals,
    }  # fmt: skip


def compare(job: Job, backbone: Any, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Every mode once, a record each; where all are recorded, those."""
    options = job.options
    shape = {key: options[key] for key in ("prompts", "length", "requests", "new_tokens", "batch")}
    done = job.done()
    units = {mode: f"{Path(backbone.name).name}.{shape['prompts']}x{shape['batch']}.{mode}" for mode in MODES}
    if all(unit in done for unit in units.values()):
        return [done[unit] for unit in units.values()]
    load = load_of(backbone, texts, **shape, seed=job.seeds[0])
    makers: dict[str, Callable[[], Callable[[], Answered]]] = {
        "mixed": lambda: engine_mode(backbone, load, mixed=True),
        "one-at-a-time": lambda: engine_mode(backbone, load, mixed=False),
        "peft": lambda: peft_mode(backbone, load),
    }
    records: list[dict[str, Any]] = []
    first: list[str] = []
    name = Path(backbone.name).name
    for mode in MODES:
        if job.budget.over:
            print(f"{mode} does not fit the time: run the same command again")
            break
        answered, figures = measured(makers[mode](), options["repeats"], job.budget)
        first = first or answered
        same = sum(a == b for a, b in zip(first, answered, strict=True)) / len(first)
        rate = figures["requests_per_second"]
        ratio = records[0]["requests_per_second"] / rate if records else 1.0
        values = {**figures, **shape, "mode": mode, "backbone": name, "dtype": str(backbone.dtype),
                  "same_answers_as_mixed": same, "mixed_over_this": ratio}  # fmt: skip
        records.append(job.record(units[mode], values))
        print(f"{mode:14} {rate:9.1f} requests/s   p50 {figures['latency_ms']['p50']:8.1f} ms   mixed is {ratio:.1f}x")
    return records


def texts_of(task: str, most: int = 2000) -> list[str]:
    """Inputs of a task as the backbone would see them."""
    from softprompt.tasks.catalog import load_task

    return [example.inputs for example in load_task(task).split("validation", max_rows=most).examples]


def check(folder: Path) -> list[str]:
    """A toy model in float32: all modes answer the same, ratios and percentiles are computed."""
    from toy import SOURCES, toy_backbone

    from softprompt.backbones.load import load_backbone

    backbone = load_backbone(str(toy_backbone(folder / "model")), dtype="float32", device="cpu")
    options = {"prompts": 5, "length": 6, "requests": 24, "new_tokens": 3, "batch": 8, "repeats": 1}
    job = Job(name="serving_speed", inputs=None, out=folder, device="cpu", budget=Budget(), seeds=(3,), options=options)
    records = compare(job, backbone, texts_of(SOURCES[0], 40))
    latencies = [record["latency_ms"] for record in records]
    return [
        verify([record["mode"] for record in records] == list(MODES), "mixed, one at a time and PEFT were measured"),
        verify(records[1]["same_answers_as_mixed"] == 1.0, "mixed requests are answered as single ones are"),
        verify(records[2]["same_answers_as_mixed"] == 1.0, "PEFT gives the same answers"),
        verify(all(0 < each["p50"] <= each["p90"] <= each["p99"] for each in latencies), "percentiles are in order"),
        verify(all(record["mixed_over_this"] > 0 for record in records), "ratios are computed"),
        verify(len(job.done()) == 3, "each mode leaves a record"),
    ]


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--backbone", default="builtin", help="builtin, or a folder (relative ones lie in the inputs)")
    made.add_argument("--task", default="sst2", help="whose validation inputs are asked")
    made.add_argument("--prompts", type=int, default=64)
    made.add_argument("--length", type=int, default=100, help="P")
    made.add_argument("--requests", type=int, default=4096)
    made.add_argument("--batch", type=int, default=512, help="requests a batch")
    made.add_argument("--new-tokens", type=int, default=4)
    made.add_argument("--repeats", type=int, default=3)
    args = made.parse_args()

    def work() -> None:
        from softprompt.backbones.load import load_backbone

        job = job_of(
            "serving_speed", args, prompts=args.prompts, length=args.length, requests=args.requests, batch=args.batch,
            new_tokens=args.new_tokens, repeats=args.repeats,
        )  # fmt: skip
        inside = args.inputs / args.backbone
        name = str(inside) if inside.is_dir() else args.backbone
        compare(job, load_backbone(name, device=job.device), texts_of(args.task))

    run("serving_speed", args, work, check)


if __name__ == "__main__":
    main()
