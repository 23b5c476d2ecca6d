"""Adafactor's step counter: at 0, or as if restored with the backbone (1,100,000), on one cheap pair of tasks.

    python benchmarks/adafactor_counter.py --backbone builtin --source sst2 --target cr --data shared/data

The papers' recipe as it is but for its size: Adafactor, rate 0.3, weight decay 1e-5, no warm-up. For every counter and rate:
a source prompt, the target from scratch, and the target from that source prompt; all seeds in one batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from softprompt.backbones.engine.native.levels import processor
from softprompt.backbones.load import load_backbone
from softprompt.methods.method import Work
from softprompt.prompts.init import default_init, initial_prompt
from softprompt.tasks.catalog import load_task
from softprompt.training.data import start_of, task_data
from softprompt.training.recipes import RESTORED_STEP, spot
from softprompt.training.runs import RunResult

RESULTS = Path(__file__).parent / "results" / "adafactor_counter.jsonl"


def main() -> None:
    """Measure, print, and keep one line a counter and rate."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--backbone", default="builtin")
    asked.add_argument("--source", default="sst2")
    asked.add_argument("--target", default="cr")
    asked.add_argument("--data", default=None)
    asked.add_argument("--steps", type=int, default=120)
    asked.add_argument("--batch-size", type=int, default=8)
    asked.add_argument("--rates", default="0.3")
    asked.add_argument("--seeds", default="1,2,3")
    given = asked.parse_args()
    backbone = load_backbone(given.backbone)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    lines = []
    for rate in (float(rate) for rate in given.rates.split(",")):
        for offset in (0, RESTORED_STEP):
            settings = spot().having(
                steps=given.steps, batch_size=given.batch_size, prompt_length=16, learning_rate=rate, adafactor_step_offset=offset,
                eval_every=max(1, given.steps // 4), eval_rows=100, embedding_step=0, max_input_tokens=64,
            )  # fmt: skip
            source, target = (
                task_data(backbone, load_task(name, given.data), settings, train_rows=4000, validation_rows=200)
                for name in (given.source, given.target)
            )
            work, started = Work(backbone=backbone), time.perf_counter()

            def tuned(data, inits, work=work, settings=settings):  # type: ignore[no-untyped-def]
                starts = [
                    (data.run(f"run-{seed}", seed), initial_prompt(backbone, init, settings.prompt_length, seed))
                    for seed, init in zip(seeds, inits, strict=True)
                ]
                return list(work.train("", starts, settings).values())

            sources = tuned(source, [start_of(backbone, source.task, "source")] * len(seeds))
            scratch = tuned(target, [start_of(backbone, target.task, "scratch")] * len(seeds))
            moved = tuned(
                target, [default_init("transfer", prompt=r.best["prompt"], origin=given.source) for r in sources]
            )
            lines.append(
                {
                    "backbone": backbone.name,
                    "fingerprint": backbone.fingerprint[:12],
                    "source": given.source,
                    "target": given.target,
                    "steps": given.steps,
                    "batch_size": given.batch_size,
                    "rate": rate,
                    "counter": offset,
                    "seeds": seeds,
                    "data": target.train.fingerprint[:12],
                    "source_score": told(sources),
                    "scratch": told(scratch),
                    "transfer": told(moved),
                    "last": {"scratch": last(scratch), "transfer": last(moved)},
                    "norm": float(np.mean([float(r.final["prompt"].norm(dim=-1).mean()) for r in moved])),
                    "seconds": round(time.perf_counter() - started, 1),
                    "processor": processor(),
                    "command": "python " + " ".join(sys.argv),
                }
            )
            print(json.dumps(lines[-1]), flush=True)
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def told(results: list[RunResult]) -> list[float]:
    """The best checkpoint's score of every seed."""
    return [round(result.scores["score"], 2) for result in results]


def last(results: list[RunResult]) -> list[float]:
    """The last checkpoint's score of every seed, on the selecting rows."""
    return [round(result.curve[-1]["score"], 2) for result in results]


if __name__ == "__main__":
    main()
