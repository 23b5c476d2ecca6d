"""Whether a label depends on the rows beside it: each row of SST-2 with one of many prompts, alone and in mixed batches.

    python benchmarks/label_stability.py --labels 10000 --json results.jsonl

Prompts are drawn from the vocabulary, as untuned ones are: their margins between labels are small, which is the hard case. Rows
are answered in mixed batches of ``--batch-tokens`` positions and one by one. Prints how many labels differ, the largest difference
of a log-probability, and how many margins lie below it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from rows import data_folder

from softprompt.backbones.engine.native.levels import in_force, processor


def questions(count: int) -> list[str]:
    """SST-2's validation sentences, again and again, worded for a decoder-only model."""
    folder = data_folder()
    if folder is None:
        raise SystemExit("no data: set SOFTPROMPT_DATA to a folder with tasks/sst2.")
    with gzip.open(folder / "tasks" / "sst2" / "validation.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [f"Review: {json.loads(line)['sentence'].strip()}\nSentiment:" for line in lines]
    return [texts[i % len(texts)] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--labels", type=int, default=10_000, help="rows answered both ways")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=480, help="stop after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    record = measured(args) | {"command": "python " + " ".join(sys.argv)}
    print(json.dumps(record, indent=1))
    if args.json:
        with args.json.open("a") as file:
            file.write(json.dumps(record) + "\n")


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """One record."""
    import torch

    from softprompt.backbones.load import load_backbone
    from softprompt.batch import Rows, TokenBatch
    from softprompt.prompts.stack import PromptStack

    backbone = load_backbone(args.backbone, dtype=args.dtype)
    draw = torch.Generator().manual_seed(args.seed)
    table = backbone.embedding_table()
    lengths = [4 + n % 29 for n in range(args.prompts)]
    prompts = [table[torch.randint(0, 5000, (n,), generator=draw)] for n in lengths]
    stack = PromptStack.of(prompts, keys=[f"p{n}" for n in range(args.prompts)])
    labels = backbone.tokenize_targets(["negative", "positive"])
    inputs = backbone.tokenize_inputs(questions(args.labels))
    which = torch.randint(0, args.prompts, (args.labels,), generator=draw).tolist()

    def scores(rows: list[int]) -> torch.Tensor:
        given = stack.prompts(Rows(run_B=torch.tensor([which[i] for i in rows])))
        return torch.stack(backbone.label_scores(TokenBatch.of([inputs[i] for i in rows]), given, [labels] * len(rows)))

    started, done, changed, apart, near, margins = time.monotonic(), 0, 0, 0.0, 0, []
    rows: list[int] = []
    for i in range(args.labels):
        rows.append(i)
        if sum(len(inputs[j]) for j in rows) < args.batch_tokens and i + 1 < args.labels:
            continue
        mixed, alone = scores(rows), torch.cat([scores([j]) for j in rows])
        changed += int((mixed.argmax(1) != alone.argmax(1)).sum())
        apart = max(apart, float((mixed - alone).abs().max()))
        margins.append((mixed[:, 0] - mixed[:, 1]).abs())
        done, rows = done + len(rows), []
        if time.monotonic() - started > args.seconds:
            break
    near = int((torch.cat(margins) < 2 * apart).sum())
    return {
        "backbone": backbone.name, "fingerprint": backbone.fingerprint, "precision": backbone.precision, "prompts": args.prompts,
        "labels": done, "changed": changed, "largest_difference_nats": apart, "margins_below_twice_that": near,
        "seed": args.seed, "level": in_force().name, "processor": processor(), "batch_tokens": args.batch_tokens,
    }  # fmt: skip


if __name__ == "__main__":
    main()
