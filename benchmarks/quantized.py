"""What a frozen backbone in 8 or 4 bits costs a prompt: score, loss, memory, speed.

    python benchmarks/quantized.py --task gen_topic_review
    python benchmarks/quantized.py --task sst2 --data ../shared/data --seeds 1,2,3 --steps 120

For each precision prompts are tuned with the same seeds, rows and starts. Each is then measured on the same validation rows with
the backbone it was tuned on; prompts of the first precision also with all the others, unchanged ("moved"), since a prompt
belongs to the backbone and not to how its weights are held. The loss is in nats a target token. Then the precisions take turns with
steps on the same rows: the fastest of each in wall and in CPU time.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.backbones.engine.quantized import weight_bytes
from softprompt.backbones.load import load_backbone
from softprompt.batch import Rows, TokenBatch
from softprompt.inference.evaluate import EvalJob, evaluate
from softprompt.prompts.init import InitSettings, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.training.data import TaskData, task_data
from softprompt.training.group import Group
from softprompt.training.loop import train_prompts
from softprompt.training.recipes import recipe
from softprompt.training.runs import Run
from softprompt.training.settings import TrainSettings


def started(
    backbone: Backbone, data: TaskData, settings: TrainSettings, seeds: Sequence[int]
) -> tuple[PromptStack, list[Run]]:
    """Fresh prompts and their runs."""
    starts = [initial_prompt(backbone, InitSettings(), settings.prompt_length, seed) for seed in seeds]
    stack = PromptStack.of([start.to(backbone.device) for start in starts], tuned=True)
    return stack, [data.run(f"{data.task.name}-{seed}", seed) for seed in seeds]


def tuned(backbone: Backbone, data: TaskData, settings: TrainSettings, seeds: Sequence[int]) -> Tensor:
    """Best prompts [N, P, H]."""
    results = train_prompts(backbone, *started(backbone, data, settings, seeds), settings)
    return torch.stack([result.best["prompt"] for result in results])


def speeds(groups: dict[str, Group], rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of the fastest step of each group, wall and CPU."""
    best = dict.fromkeys(groups, (float("inf"), float("inf")))
    for _ in range(rounds):
        for precision, group in groups.items():
            wall, cpu = time.perf_counter(), time.process_time()
            group.step()
            if group.backbone.device.type == "cuda":
                torch.cuda.synchronize()
            found = 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)
            best[precision] = min(best[precision][0], found[0]), min(best[precision][1], found[1])
    return best


@torch.no_grad()
def measured(backbone: Backbone, data: TaskData, prompts_NPH: Tensor) -> dict[str, list[float]]:
    """Score (percent) and loss (nats a target token) of each prompt on all validation rows."""
    stack = PromptStack(prompts_NPH.to(backbone.device))
    jobs = [EvalJob(run=n, task=data.task, split=data.validation) for n in range(len(prompts_NPH))]
    scores = [found.scores["score"] for found in evaluate(backbone, stack, jobs)]
    losses = []
    for n in range(len(prompts_NPH)):
        nats, tokens = 0.0, 0
        for begin in range(0, len(data.validation), 32):
            rows = range(begin, min(begin + 32, len(data.validation)))
            batch = TokenBatch.of(
                [data.validation.inputs(r) for r in rows], [data.validation.targets(r) for r in rows], backbone.device
            )
            which = torch.full((len(rows),), n, device=backbone.device)
            found = backbone.example_losses(batch, stack.prompts(Rows(run_B=which)))
            nats, tokens = nats + float(found.nll_B.sum()), tokens + int(found.tokens_B.sum())
        losses.append(nats / tokens)
    return {"score": scores, "loss": losses}


def compared(args: argparse.Namespace, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One record a precision and kind."""
    command = shlex.join(["python", *sys.argv])
    settings = recipe("quick", steps=args.steps or 1, eval_every=args.eval_every, eval_rows=args.eval_rows)
    records: list[dict[str, Any]] = []
    groups: dict[str, Group] = {}
    first: tuple[str, Tensor] | None = None
    for precision in args.precisions.split(","):
        backbone = load_backbone(args.backbone, dtype=precision, device=args.device)
        data = task_data(
            backbone,
            load_task(args.task, args.data),
            settings,
            train_rows=args.train_rows or None,
            validation_rows=args.validation_rows or None,
        )
        groups[backbone.precision] = Group(backbone, *started(backbone, data, settings, seeds), settings)
        if not args.steps:
            continue
        prompts = tuned(backbone, data, settings, seeds)
        same = {
            "kind": "quality", "task": args.task, "backbone": args.backbone, "precision": backbone.precision, "steps": args.steps,
            "seeds": list(seeds), "validation_rows": len(data.validation), "weight_mb": weight_bytes(backbone.hf_model) / 1e6,
            "command": command, "device": str(backbone.device), "threads": torch.get_num_threads(),
        }  # fmt: skip
        records.append({**same, "tuned_on": backbone.precision, **measured(backbone, data, prompts)})
        if first is None:
            first = backbone.precision, prompts
        else:
            records.append({**same, "tuned_on": first[0], **measured(backbone, data, first[1])})
    for precision, (wall, cpu) in speeds(groups, args.rounds).items():
        record = {"kind": "speed", "task": args.task, "backbone": args.backbone, "precision": precision}
        rows = {"rows": settings.batch_size * len(seeds), "rounds": args.rounds, "threads": torch.get_num_threads()}
        records.append({**record, **rows, "step_ms": wall, "step_cpu_ms": cpu, "command": command})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="gen_topic_review")
    parser.add_argument("--data", type=Path, help="folder with tasks/NAME/..., for tasks that are not built in")
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precisions", default="bfloat16,int8,int4")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--steps", type=int, default=120, help="0 measures speed alone")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each precision in the speed test")
    parser.add_argument("--eval-every", type=int, default=40)
    parser.add_argument("--eval-rows", type=int, default=150)
    parser.add_argument("--train-rows", type=int, default=4000)
    parser.add_argument("--validation-rows", type=int, default=300)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="append the records here, one a line")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    records = compared(args, [int(seed) for seed in args.seeds.split(",")])
    print(f"{'weights':10} {'tuned on':10} {'score':>7} {'loss':>7} {'weights MB':>11}")
    for record in (r for r in records if r["kind"] == "quality"):
        score, loss = statistics.mean(record["score"]), statistics.mean(record["loss"])
        print(f"{record['precision']:10} {record['tuned_on']:10} {score:7.2f} {loss:7.4f} {record['weight_mb']:11.1f}")
    for record in (r for r in records if r["kind"] == "speed"):
        print(
            f"{record['precision']:10} {record['step_ms']:7.0f} ms a step, {record['step_cpu_ms']:.0f} ms of CPU time"
        )
    if args.json:
        with args.json.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
