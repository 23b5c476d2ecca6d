"""What a training step costs against N, P, T and model size, with the exponents of power laws fitted to it.

    python benchmarks/scaling.py                       # embedded backbone's shape, a minute or two
    python benchmarks/scaling.py --json scaling.jsonl

Each table varies one letter and holds the others: N prompts trained together, P prompt tokens, T input tokens, and the
model's width and depth (random weights). Seconds are the least of several steps. An exponent of 1 means proportional; in N
it is close to 1 once the machine is full, and the cost of one prompt-step no longer falls.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

import torch

from softprompt.backbones.base import Backbone, Dropout
from softprompt.backbones.engine.host import keep_freed_memory
from softprompt.backbones.load import wrap
from softprompt.batch import Rows, TokenBatch
from softprompt.prompts.stack import PromptStack

BASE = {"N": 4, "P": 64, "T": 64, "width": 384, "layers": 6}
GRID: dict[str, Sequence[int]] = {
    "N": (1, 2, 4, 8, 16),
    "P": (16, 32, 64, 128, 256),
    "T": (32, 64, 128, 256),
    "width": (128, 256, 512, 768),
    "layers": (2, 4, 8, 12),
}
BATCH, TARGET = 8, 3  # rows a prompt, target tokens


def backbone(width: int, layers: int) -> Backbone:
    """A random T5 v1.1 shape."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = T5Config(
        vocab_size=8192, d_model=width, d_ff=width * 8 // 3 // 32 * 32, num_layers=layers, num_decoder_layers=layers,
        num_heads=width // 64, d_kv=64, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    return wrap(model, None, name="shape", fingerprint="0" * 64)


def step_seconds(model: Backbone, n: int, p: int, t: int, repeats: int) -> tuple[float, float]:
    """Wall and CPU seconds of one step, the least of ``repeats``."""
    stack = PromptStack(torch.randn(n, p, model.hidden_size), tuned=True)
    rows = n * BATCH
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(3, 8192, (rows, t), generator=draw).tolist()
    batch = TokenBatch.of(inputs, torch.randint(3, 8192, (rows, TARGET), generator=draw).tolist())
    run_B = torch.arange(n).repeat_interleave(BATCH)
    best = [math.inf, math.inf]
    for number in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        dropout = Dropout(rate=0.1, key_B=torch.arange(rows) + number * rows)
        model.example_losses(batch, stack.prompts(Rows(run_B=run_B)), dropout).nll_B.sum().backward()
        stack.prompts_NPH.grad = None
        if number:
            best = [min(best[0], time.perf_counter() - wall), min(best[1], time.process_time() - cpu)]
    return best[0], best[1]


def exponent(xs: Sequence[int], ys: Sequence[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    lx, ly = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mx, my = sum(lx) / len(lx), sum(ly) / len(ly)
    return sum((a - mx) * (b - my) for a, b in zip(lx, ly, strict=True)) / sum((a - mx) ** 2 for a in lx)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="append JSON lines")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    records: list[dict[str, Any]] = []
    for letter, values in GRID.items():
        found = []
        for value in values:
            at = {**BASE, letter: value}
            model = backbone(at["width"], at["layers"])
            wall, cpu = step_seconds(model, at["N"], at["P"], at["T"], args.repeats)
            found.append((wall, cpu))
            records.append({**at, "varied": letter, "wall_seconds": wall, "cpu_seconds": cpu, "threads": args.threads})
        fits = [exponent(values, [f[i] for f in found]) for i in (0, 1)]
        records.append({"varied": letter, "exponent_wall": fits[0], "exponent_cpu": fits[1]})
        held = ", ".join(f"{k} = {v}" for k, v in BASE.items() if k != letter)
        print(f"\n{letter} varied ({held}; {BATCH} rows a prompt): exponent {fits[0]:.2f} wall, {fits[1]:.2f} CPU")
        for value, (wall, cpu) in zip(values, found, strict=True):
            print(f"  {letter} = {value:<5} {1000 * wall:8.1f} ms   {1000 * cpu:8.1f} ms CPU")
    if args.json:
        with args.json.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
