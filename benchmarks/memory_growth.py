"""What a training process holds after more and more steps: freed memory given back or not, many or few kernels kept.

python benchmarks/memory_growth.py --task mnli --data ../shared/data
python benchmarks/memory_growth.py --task mnli --data ../shared/data --keep      # never give anything back
ONEDNN_PRIMITIVE_CACHE_CAPACITY=1024 python benchmarks/memory_growth.py --task mnli --data ../shared/data  # oneDNN's own default
"""

from __future__ import annotations

import argparse

import torch

from softprompt.backbones.engine import host
from softprompt.backbones.load import load_backbone
from softprompt.prompts.init import InitSettings, initial_prompts
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.training.data import task_data
from softprompt.training.loop import Progress, train_prompts
from softprompt.training.recipes import recipe


def main() -> None:
    """Print megabytes held, every few steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="gen_entailment_scene")
    parser.add_argument("--data", default=None)
    parser.add_argument("--runs", type=int, default=10, help="prompts in one batch")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="never give freed memory back")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.keep:
        host.KeptMemory.bound = lambda self: False  # type: ignore[method-assign]
    backbone, settings = load_backbone("builtin"), recipe("quick", steps=args.steps, embedding_step=0)
    data = task_data(backbone, load_task(args.task, args.data), settings, train_rows=4000)
    seeds = list(range(args.runs))

    def show(progress: Progress) -> None:
        if progress.step % 5 == 0:
            print(f"step {progress.step:4}: {host.resident_bytes() >> 20} MB", flush=True)

    stack = PromptStack(initial_prompts(backbone, InitSettings(), settings.prompt_length, seeds), tuned=True)
    runs = [data.run(f"run-{seed}", seed, validated=False) for seed in seeds]
    train_prompts(backbone, stack, runs, settings, observer=show)


if __name__ == "__main__":
    main()
