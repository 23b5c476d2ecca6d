"""The sweep behind the defaults for decoder-only backbones: rates in units of the embedding table's deviation, and starts.

    python recipes/decoder_defaults.py --out runs/decoder-defaults.jsonl

On tasks that no evidence rests on: generated ones. Each line of the file is one training (all tasks and seeds in one batch, at one
rate from one start) with its curves; a line that is there is not made again, so stopping is harmless.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softprompt.artifacts import append_json_line, read_json_lines
from softprompt.backbones.base import Backbone
from softprompt.backbones.load import load_backbone
from softprompt.prompts.init import InitSettings, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.tasks.tuned import for_backbone
from softprompt.training.data import TaskData, start_of, task_data
from softprompt.training.loop import train_prompts
from softprompt.training.recipes import recipe
from softprompt.training.settings import TrainSettings


def sweep_cell(
    backbone: Backbone, tasks: Sequence[TaskData], seeds: Sequence[int], start: str, settings: TrainSettings
) -> dict[str, Any]:
    """One training of all tasks and seeds; gives final scores and curves by run."""
    runs = [data.run(f"{data.task.name}-{seed}", seed) for data in tasks for seed in seeds]
    starts = [
        start_of(backbone, data.task, "source") if start == "description" else InitSettings()
        for data in tasks
        for _ in seeds
    ]
    prompts = [
        initial_prompt(backbone, init, settings.prompt_length, run.seed) for init, run in zip(starts, runs, strict=True)
    ]
    stack = PromptStack.of([prompt.to(backbone.device) for prompt in prompts], tuned=True)
    results = train_prompts(backbone, stack, runs, settings)
    return {
        result.name: {"score": result.scores.get("score"), "best_step": result.best_step, "curve": result.curve}
        for result in results
    }


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sweep rates and starts for decoder-only backbones.")
    parser.add_argument("--out", type=Path, default=Path("runs/decoder-defaults.jsonl"))
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--tasks", default="gen_sentiment_film,gen_topic_review,gen_paraphrase_sentence")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--rates", default="0.009,0.018,0.037,0.074,0.15", help="in deviations of the table's entries")
    parser.add_argument("--starts", default="description,sampled")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--train-rows", type=int, default=2000)
    parser.add_argument("--validation-rows", type=int, default=200)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The command; one line of the file a cell."""
    options = _options(arguments)
    backbone = load_backbone(options.backbone)
    deviation = float(backbone.embedding_table().float().std())
    base = recipe(
        "quick", steps=options.steps, batch_size=options.batch_size, eval_every=max(1, options.steps // 3), eval_rows=0,
        embedding_step=0,
    )  # fmt: skip
    tasks = [
        task_data(backbone, for_backbone(load_task(name), backbone.kind), base, train_rows=options.train_rows,
                  validation_rows=options.validation_rows)
        for name in options.tasks.split(",")
    ]  # fmt: skip
    seeds = [int(seed) for seed in options.seeds.split(",")]
    known = read_json_lines(options.out) if options.out.exists() else []
    for start in options.starts.split(","):
        for units in (float(rate) for rate in options.rates.split(",")):
            cell = {
                "backbone": backbone.fingerprint, "tasks": options.tasks, "seeds": seeds, "start": start, "units": units,
                "steps": options.steps, "batch_size": options.batch_size, "train_rows": options.train_rows,
                "validation_rows": options.validation_rows,
            }  # fmt: skip
            if any({name: line.get(name) for name in cell} == cell for line in known):
                continue
            settings = base.having(learning_rate=units * deviation)
            found = sweep_cell(backbone, tasks, seeds, start, settings)
            data = {data.task.name: data.train.fingerprint for data in tasks}
            command = shlex.join(["python", "recipes/decoder_defaults.py", *arguments])
            append_json_line(
                options.out, {**cell, "rate": settings.rate, "runs": found, "data": data, "command": command}
            )
            print(start, units, {name: run["score"] for name, run in found.items()}, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
