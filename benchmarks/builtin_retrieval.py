"""Do task embeddings find kin among the built-in tasks? Beside chance, word overlap and the losses of source prompts.

    python benchmarks/builtin_retrieval.py --seeds 1,2,3 --steps 60,150 --json benchmarks/results/builtin_retrieval.jsonl

Every source and target of the demonstration gets a task embedding a seed and step, all with one recipe. A target's
sources are ranked by each similarity, averaged over pairs of seeds, and a hit is a kin source in first place (kinship:
``softprompt.tasks.generated.KINSHIP``, committed before any of this was measured). `moved` variants compare what tuning
changed: each prompt less the prompt its seed started from. `zero-shot-loss` ranks by the loss of the sources' prompts at
the last step on the target's training rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from kin import kin_found, tfidf_ranking
from torch import Tensor

from softprompt.backbones.load import load_backbone
from softprompt.library.similarity import METRICS, task_vector
from softprompt.methods.spot.measured import chosen_rows, prompt_losses
from softprompt.prompts.init import InitSettings, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.tasks.generated import DEMO_SOURCES, DEMO_TARGETS
from softprompt.training.data import TaskData, task_data
from softprompt.training.loop import train_prompts
from softprompt.training.recipes import recipe

Prompts = dict[str, list[Tensor]]


def embedded(
    backbone: Any, data: dict[str, TaskData], seeds: Sequence[int], steps: Sequence[int], group: int
) -> tuple[dict[int, Prompts], Prompts]:
    """Prompts [P, H] of every task and seed after each number of steps, and those they started from."""
    first, last = min(steps), max(steps)
    settings = recipe("quick", steps=last, embedding_step=first)
    pairs = [(name, seed) for name in data for seed in seeds]
    starts = {seed: initial_prompt(backbone, InitSettings(), settings.prompt_length, seed) for seed in seeds}
    found: dict[int, Prompts] = {step: {name: [] for name in data} for step in (first, last)}
    for begin in range(0, len(pairs), group):
        part = pairs[begin : begin + group]
        runs = [data[name].run(f"{name}-{seed}", seed, validated=False) for name, seed in part]
        stack = PromptStack(torch.stack([starts[seed] for _, seed in part]), tuned=True)
        for (name, _), result in zip(part, train_prompts(backbone, stack, runs, settings), strict=True):
            if result.embedding is None:
                raise SystemExit(f"{name} has no embedding: {result.note or result.status}")
            found[first][name].append(result.embedding["prompt"])
            if last != first:
                found[last][name].append(result.final["prompt"])
    return found, {name: [starts[seed] for seed in seeds] for name in data}


def ranking(similar_TS: Tensor) -> dict[str, list[str]]:
    """Target -> sources, most similar first."""
    return {
        target: [DEMO_SOURCES[int(s)] for s in similar_TS[t].argsort(descending=True, stable=True)]
        for t, target in enumerate(DEMO_TARGETS)
    }


def rankings(prompts: Prompts, starts: Prompts) -> dict[str, dict[str, list[str]]]:
    """Name of a similarity -> ranking of every target."""
    moved = {name: [p - s for p, s in zip(prompts[name], starts[name], strict=True)] for name in prompts}
    out = {}
    for kind, table in (("", prompts), ("moved ", moved)):
        for metric in METRICS:
            mean = {name: torch.stack([task_vector(p, metric) for p in own]).mean(0) for name, own in table.items()}
            targets_TH, sources_SH = (torch.stack([mean[n] for n in names]) for names in (DEMO_TARGETS, DEMO_SOURCES))
            out[kind + metric] = ranking(targets_TH @ sources_SH.T)  # the mean over all pairs of seeds
    return out


def zero_shot(backbone: Any, prompts: Prompts, data: dict[str, TaskData], rows: int) -> dict[str, list[str]]:
    """Sources by the mean loss of their prompts on some training rows of each target, lowest first."""
    scores = torch.zeros(len(DEMO_TARGETS), len(DEMO_SOURCES), dtype=torch.float64)
    for t, target in enumerate(DEMO_TARGETS):
        train = data[target].train
        everyone = [p for source in DEMO_SOURCES for p in prompts[source]]
        losses = prompt_losses(backbone, everyone, train, chosen_rows(train, rows, 0)).per_token_S()
        scores[t] = -losses.view(len(DEMO_SOURCES), -1).mean(1)
    return ranking(scores)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--steps", default="60", help="of the embedding, and with a comma of the prompts")
    parser.add_argument("--train-rows", type=int, default=2000)
    parser.add_argument("--group", type=int, default=18, help="prompts in one batch")
    parser.add_argument("--rows", type=int, default=64, help="training rows of a target for the loss")
    parser.add_argument("--json", type=Path, help="append JSON lines")
    args = parser.parse_args()
    seeds, steps = [int(s) for s in args.seeds.split(",")], [int(s) for s in args.steps.split(",")]
    backbone, started = load_backbone("builtin"), time.perf_counter()
    settings = recipe("quick")
    data = {
        name: task_data(backbone, load_task(name), settings, train_rows=args.train_rows)
        for name in (*DEMO_SOURCES, *DEMO_TARGETS)
    }
    found, starts = embedded(backbone, data, seeds, steps, args.group)
    tables: list[tuple[str, int, dict[str, list[str]]]] = [
        ("text-similarity", 0, {t: [name for name, _ in tfidf_ranking(t, DEMO_SOURCES)] for t in DEMO_TARGETS})
    ]
    for step in found:
        tables += [(name, step, table) for name, table in rankings(found[step], starts).items()]
    tables.append(("zero-shot-loss", max(steps), zero_shot(backbone, found[max(steps)], data, args.rows)))
    for name, step, table in tables:
        scores = kin_found(table)
        record = {
            "ranking": name, "step": step, **{key: round(value, 1) for key, value in scores.items()},
            "first": {target: order[0] for target, order in table.items()}, "seeds": seeds, "backbone": backbone.fingerprint,
            "data": {name: one.train.fingerprint[:16] for name, one in data.items()},
            "seconds": round(time.perf_counter() - started), "command": "python " + " ".join(sys.argv),
        }  # fmt: skip
        print(f"{name:22} step {step:4}: kin first {scores['kin_first']:5.1f} (chance {scores['chance_first']:.1f}), "
              f"reciprocal rank {scores['reciprocal_rank']:.1f}", flush=True)  # fmt: skip
        if args.json:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
