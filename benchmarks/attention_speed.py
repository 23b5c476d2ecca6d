"""Our attention kernel against PyTorch's on the same packed rows, forward and backward, one thread, alternating.

    python benchmarks/attention_speed.py --json attention.jsonl
    SOFTPROMPT_KERNELS=avx512_bf16 python benchmarks/attention_speed.py   # as on a machine without matrix tiles

CPU seconds, the least of some repeats, since other work may share the machine. The matrix rate is that of one product
[8192, 768] x [768, 768] in bfloat16, measured in between.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

# softprompt comes before torch: it holds PyTorch to the level of instructions that SOFTPROMPT_KERNELS names.
from softprompt.backbones.engine import ops
from softprompt.backbones.engine.native.levels import in_force, processor
from softprompt.backbones.engine.native.library import library
from softprompt.backbones.engine.packing import Layout

import torch  # isort: skip

SHAPES = {
    "T5-base, RTE rows behind P = 100, batch 8": (12, 64, (160, 175, 190, 158, 240, 165, 210, 182), True),
    "embedded, 16 prompts x 8 rows": (12, 32, tuple(100 + (i * 37) % 90 for i in range(128)), False),
}
"""Heads, head width, row lengths, and whether there is a bias by distance."""


def measure(heads: int, width: int, lengths: tuple[int, ...], biased: bool, repeats: int) -> dict[str, Any]:
    """CPU seconds of both ways, and the matrix rate."""
    lib, layout = library(), Layout(lengths, torch.device("cpu"))
    if lib is None or not lib.attention:
        raise SystemExit(f"there is no attention kernel at the level {in_force().name}.")
    qkv = torch.randn(layout.total, 3 * heads * width).bfloat16().requires_grad_()
    keep = (torch.rand(layout.total, heads) > 0.1).float() / 0.9
    bias = torch.randn(heads, 2 * max(lengths) - 1) if biased else None
    given = torch.randn(layout.total, heads * width).bfloat16()
    x, w = torch.randn(8192, 768).bfloat16(), torch.randn(768, 768).bfloat16()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    rates = []
    for _ in range(repeats + 1):  # the first is not counted
        for ours in seconds:
            lib.attention = ours
            start = time.process_time()
            torch.autograd.grad(ops.attend_self(qkv, keep, bias, layout, heads, width**-0.5 / 2), qkv, given)
            seconds[ours].append(time.process_time() - start)
        start = time.process_time()
        torch.mm(x, w)
        rates.append(2 * 8192 * 768 * 768 / (time.process_time() - start))
    lib.attention = True
    ours, pytorch = (min(found[1:]) for found in seconds.values())
    products = sum(14 * n * n * width * heads for n in lengths)  # two products forward, five backward
    return {
        "positions": layout.total, "ours_ms": 1000 * ours, "pytorch_ms": 1000 * pytorch, "speedup": pytorch / ours,
        "ours_gflops": products / ours / 1e9, "matrix_gflops": max(rates) / 1e9,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json", type=Path, help="append one JSON line per shape")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        record = {"shape": name, **measure(*shape, args.repeats), "processor": processor(), "level": in_force().name}
        print(
            f"{record['level']}, {name}: ours {record['ours_ms']:.0f} ms, PyTorch {record['pytorch_ms']:.0f} ms, "
            f"{record['speedup']:.1f}x; {record['ours_gflops']:.0f} of {record['matrix_gflops']:.0f} GFLOP/s"
        )
        if args.json:
            with args.json.open("a") as file:
                file.write(json.dumps({**record, "command": "python " + " ".join(sys.argv)}) + "\n")


if __name__ == "__main__":
    main()
