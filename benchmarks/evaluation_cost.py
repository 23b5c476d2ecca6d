"""What validation costs beside the training it interrupts.

    python benchmarks/evaluation_cost.py                   # embedded backbone, RTE
    python benchmarks/evaluation_cost.py --shape t5-base --rows 64

Validation every 500 steps on a seeded subset of at most 1,500 rows should cost at most a tenth of those steps. Seconds per
training step (32 rows) and per generated row are measured on a few steps and rows, and the ratio is computed for --every
steps and --subset rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from contenders import Job, build, ours

from softprompt.backbones.load import wrap
from softprompt.batch import Rows, TokenBatch
from softprompt.prompts.stack import PromptStack


def generation_seconds(job: Job, rows: int, new_tokens: int, batch: int) -> tuple[float, float]:
    """Wall and CPU seconds of greedy generation per row."""
    model, tokenizer, found, _ = build(job, getattr(torch, job.dtype))
    backbone = wrap(model, tokenizer, name=job.shape, fingerprint="0" * 64)
    stack = PromptStack(backbone.embedding_table()[None, 1000 : 1000 + job.prompt])
    # Rows of similar length together, as the evaluator does.
    picked = sorted((row[0] for row in (found * (rows // len(found) + 1))[:rows]), key=len)
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, rows, batch):
        part = picked[start : start + batch]
        prompts = stack.prompts(Rows(run_B=torch.zeros(len(part), dtype=torch.int64)))
        backbone.generate(TokenBatch.of(part), prompts, new_tokens)
    return (time.perf_counter() - wall) / rows, (time.process_time() - cpu) / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="builtin", choices=["t5-base", "t5-small", "builtin"])
    parser.add_argument("--task", default="rte", choices=["rte", "boolq"])
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--rows", type=int, default=256, help="rows measured")
    parser.add_argument("--steps", type=int, default=3, help="training steps measured")
    parser.add_argument("--new-tokens", type=int, default=5, help="longest label plus its end")
    parser.add_argument("--batch", type=int, default=64, help="rows generated together")
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--subset", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    job = Job(shape=args.shape, task=args.task, prompt=args.prompt, threads=args.threads)
    step, source = ours(job)
    step(0)
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(args.steps):
        step(number)
    train = ((time.perf_counter() - wall) / args.steps, (time.process_time() - cpu) / args.steps)
    row = generation_seconds(job, args.rows, args.new_tokens, args.batch)
    record = {
        "shape": args.shape, "rows_from": source, "train_ms_per_step": 1000 * train[0], "train_cpu_ms_per_step": 1000 * train[1],
        "generate_ms_per_row": 1000 * row[0], "generate_cpu_ms_per_row": 1000 * row[1], "every": args.every, "subset": args.subset,
        "share": args.subset * row[0] / (args.every * train[0]), "share_by_cpu": args.subset * row[1] / (args.every * train[1]),
    }  # fmt: skip
    for key, value in record.items():
        print(f"{key:24} {value:.3f}" if isinstance(value, float) else f"{key:24} {value}")
    if args.json:
        with args.json.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
