"""Model tuning's speed against a plain Transformers loop: the same rows and steps, in one run, in turns.

    python benchmarks/tuning_speed.py --task DATA/tasks/sst2 --json tuning_speed.jsonl
    SOFTPROMPT_KERNELS=avx512_bf16 python benchmarks/tuning_speed.py --task DATA/tasks/sst2   # as without matrix tiles

The plain loop pads a step's rows to the longest and makes one forward and backward pass, its weights in float32, with and without
bfloat16 autocast, and steps with transformers' Adafactor. Prints seconds a step, wall and processor, and the ratio to the faster of
the two. Dropout is off on both sides; the losses of the first step are printed, since they must agree.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# softprompt comes before torch: it holds both sides to the level of instructions that SOFTPROMPT_KERNELS names.
from softprompt.backbones.engine.native.levels import in_force, processor
from softprompt.backbones.load import load_backbone
from softprompt.tasks.catalog import load_task
from softprompt.tasks.tuned import for_backbone
from softprompt.training.data import task_data
from softprompt.training.recipes import recipe, tune_recipe
from softprompt.training.runs import Run
from softprompt.training.weights.live import LiveModel
from softprompt.training.weights.loop import TokenStream, Tuning

import torch  # isort: skip

Step = Callable[[], float]


def ours(backbone: Any, run: Run, settings: Any) -> Step:
    """One step of our loop, and its loss."""
    tuning = Tuning(backbone, LiveModel(backbone), run, settings, None)

    def step() -> float:
        tuning.step()
        return tuning.losses[0][-1]

    return step


def plain(backbone: Any, run: Run, settings: Any, *, autocast: bool) -> Step:
    """One step of the plain loop, and its loss."""
    from transformers.optimization import Adafactor

    module = copy.deepcopy(backbone.hf_model).float().train().requires_grad_(True)
    optimizer = Adafactor(module.parameters(), lr=settings.learning_rate, scale_parameter=True, relative_step=False)
    stream = TokenStream(run, settings.batch_tokens)

    def step() -> float:
        pairs = [run.train[part].pair(row, 0) for part, row in stream.take()]
        rows = [torch.tensor([*inputs, *target]) for inputs, target in pairs]
        labels = [torch.tensor([-100] * len(inputs) + list(target)) for inputs, target in pairs]
        pad = torch.nn.utils.rnn.pad_sequence
        mask = pad([torch.ones_like(row) for row in rows], batch_first=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = module(
                input_ids=pad(rows, batch_first=True), attention_mask=mask, use_cache=False,
                labels=pad(labels, batch_first=True, padding_value=-100),
            )  # fmt: skip
        found.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(found.loss.detach())

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sst2", help="name or folder of a task")
    parser.add_argument("--backbone", default="smollm2", help="a decoder-only one")
    parser.add_argument("--steps", type=int, default=5, help="measured, after one that is not")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to add the line to")
    args = parser.parse_args()
    backbone = load_backbone(args.backbone, device="cpu", progress=False)
    settings = tune_recipe("model-tuning-quick").having(dropout=0.0)
    task = for_backbone(load_task(args.task, progress=False), backbone.kind)
    limits = recipe("quick").having(max_input_tokens=settings.max_input_tokens)
    data = task_data(backbone, task, limits, train_rows=2000, validation_rows=50)
    run = data.run("speed", args.seed)
    sides = {
        "ours": ours(backbone, run, settings),
        "plain, float32": plain(backbone, run, settings, autocast=False),
        "plain, bfloat16 autocast": plain(backbone, run, settings, autocast=True),
    }
    losses = {name: step() for name, step in sides.items()}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    used: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.steps):
        for name, step in sides.items():
            began, worked = time.perf_counter(), time.process_time()
            step()
            wall[name].append(time.perf_counter() - began)
            used[name].append(time.process_time() - worked)
    seconds = {name: statistics.median(values) for name, values in wall.items()}
    best = min(value for name, value in seconds.items() if name != "ours")
    for name in sides:
        print(
            f"{name:26} {seconds[name]:6.2f} s a step, {statistics.median(used[name]):6.2f} s of processor time, "
            f"{best / seconds[name]:.2f} times the speed of the faster plain loop; loss of the first step {losses[name]:.3f}"
        )
    line = {
        "task": task.name, "backbone": args.backbone, "seed": args.seed, "steps": args.steps, "data": data.train.fingerprint,
        "batch_tokens": settings.batch_tokens, "seconds": seconds, "ratio": best / seconds["ours"], "losses": losses,
        "processor": processor(), "level": in_force().name, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "command": shlex.join(["python", "benchmarks/tuning_speed.py", *sys.argv[1:]]),
    }  # fmt: skip
    if args.json:
        with args.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
