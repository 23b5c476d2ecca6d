"""Prompt tuning beside its neighbours on one frozen model and real tasks, with the same rows, steps and seeds.

    python benchmarks/neighbours.py --data ../shared/data --library released-smollm2 --space runs/space --out neighbours.jsonl

Methods: few-shot text prompt, prompt tuning, SPoT (best_of_top_k from a library), SharPT (a space of `softprompt sharpt train`),
prefix tuning and LoRA (PEFT's), model tuning. One half of the validation rows chooses checkpoints (and, for SPoT, sources),
the other half reports. One JSON line a target and method, with the score of every seed on the reporting half, the numbers
tuned for the task and the seconds of a run; lines that --out already holds are not made again.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.backbones.engine.native.levels import in_force, processor
from softprompt.backbones.gguf import smollm2_folder
from softprompt.backbones.load import load_backbone
from softprompt.cli.opening import open_library
from softprompt.inference.evaluate import canonical_text
from softprompt.methods.few_shot import DesignSettings
from softprompt.methods.method import Method, Result, Target, Work, halved
from softprompt.methods.model_tuning import ModelTuning
from softprompt.methods.prompt_design import PromptDesign
from softprompt.methods.prompt_tuning import PromptTuning
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.method import SharPT
from softprompt.methods.sharpt.space import load_space, space_encoder
from softprompt.methods.spot.checks import at_library_step
from softprompt.methods.spot.run import SPoT
from softprompt.methods.spot.settings import TransferSettings
from softprompt.tasks.catalog import load_task
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import for_backbone
from softprompt.training.data import TaskData, task_data
from softprompt.training.recipes import recipe, tune_recipe
from softprompt.training.settings import TrainSettings
from softprompt.training.weights.lora import LoraSettings

PREFIX_RATE = 0.01
ROWS_AT_ONCE = 50  # rows whose answers PEFT's prefix scores in one pass
Line = dict[str, Any]


def of_method(made: Callable[[Task], Method]) -> Callable[..., Line]:
    """A method of the package on a target: a line's figures."""

    def run(backbone: Backbone, task: Task, options: argparse.Namespace) -> Line:
        method = made(task)
        data = method.encode(backbone, task, train_rows=options.train_rows, validation_rows=options.validation_rows)
        select, report = halved(data)
        work = Work(backbone=backbone)
        found = method.run(work, Target(data=data, select=select, report=report), options.seeds)
        return {**_figures(found), "settings": method.plain(), "rows": len(report), "data": data.train.fingerprint}

    return run


def spot(library: str, settings: TrainSettings) -> Callable[..., Line]:
    """Transfer from a library: of a seed, the chosen one of the prompts tried (scratch is a line of its own)."""

    def run(backbone: Backbone, task: Task, options: argparse.Namespace) -> Line:
        store = open_library(library)
        train = at_library_step(settings, store, backbone, ())
        asked = TransferSettings(
            train=train, strategies=("best_of_top_k",), k=options.k, embedding_runs=1, scratch_runs=1
        )
        data = task_data(backbone, task, train, train_rows=options.train_rows, validation_rows=options.validation_rows)
        _, report = halved(data)
        target = Target(data=data)
        scores, seconds, sources = [], 0.0, []
        for seed in options.seeds:
            (told,) = SPoT(store, asked.having(seed=seed)).run_all(Work(backbone=backbone), [target])
            outcome = told.outcome("best_of_top_k")
            scores.append(outcome.score)
            seconds += outcome.seconds
            sources.append([name for name, _ in outcome.sources])
        return {
            **_told(scores, train.prompt_length * backbone.hidden_size, seconds / len(options.seeds)),
            "sources": sources, "settings": asked.plain(), "rows": len(report), "data": data.train.fingerprint,
        }  # fmt: skip

    return run


def prefix(settings: TrainSettings, rate: float) -> Callable[..., Line]:
    """PEFT's prefix tuning: trained keys and values in every layer, AdamW, rows padded to the longest of a batch."""

    def run(backbone: Backbone, task: Task, options: argparse.Namespace) -> Line:
        data = task_data(
            backbone, task, settings, train_rows=options.train_rows, validation_rows=options.validation_rows
        )
        select, report = halved(data)
        scores, seconds, tuned = [], 0.0, 0
        for seed in options.seeds:
            begun = time.perf_counter()
            model = _prefixed(settings.prompt_length, seed, backbone.dtype)
            tuned = sum(p.numel() for p in model.parameters() if p.requires_grad)
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
            order = torch.Generator().manual_seed(seed)
            best = (-1.0, 0.0)
            for step in range(1, settings.steps + 1):
                rows = torch.randint(len(data.train), (settings.batch_size,), generator=order).tolist()
                texts = [(data.train.inputs(r), data.train.targets(r)) for r in rows]
                losses = -_answer_logs(model, texts)
                count = sum(len(target) for _, target in texts)
                (losses.sum() / count).backward()
                torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], settings.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if step % settings.eval_every == 0 or step == settings.steps:
                    chosen = _score(model, backbone, data, select)
                    if chosen > best[0]:
                        best = (chosen, _score(model, backbone, data, report))
            scores.append(best[1])
            seconds += time.perf_counter() - begun
        return {
            **_told(scores, tuned, seconds / len(options.seeds)),
            "settings": {"rate": rate, "optimizer": "adamw", "virtual_tokens": settings.prompt_length},
            "rows": len(report), "data": data.train.fingerprint,
        }  # fmt: skip

    return run


def _prefixed(length: int, seed: int, dtype: torch.dtype) -> Any:
    import peft
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=dtype)
    asked: Any = {"task_type": "CAUSAL_LM", "num_virtual_tokens": length}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, peft.PrefixTuningConfig(**asked)).train()


def _answer_logs(model: Any, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """float32 [B], the summed log-probability of each row's answer behind its text."""
    longest = max(len(text) + len(answer) for text, answer in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask, wanted = torch.zeros_like(ids), torch.zeros_like(ids)
    for b, (text, answer) in enumerate(rows):
        whole = torch.tensor([*text, *answer])
        ids[b, : len(whole)], mask[b, : len(whole)] = whole, 1
        wanted[b, len(text) : len(whole)] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits[:, -longest:]
    logs = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    return (logs * wanted[:, 1:]).sum(1)


@torch.no_grad()
def _score(model: Any, backbone: Backbone, data: TaskData, rows: Sequence[int]) -> float:
    """The task's score where each row gets its most probable label."""
    labels = list(data.task.labels or ())
    tokens = [[int(i) for i in answer] for answer in backbone.tokenize_targets(labels)]
    canonical = canonical_text(backbone)
    answers = []
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = [int(row) for row in rows[begin : begin + ROWS_AT_ONCE]]
        scores = torch.stack(
            [_answer_logs(model, [(data.validation.inputs(row), answer) for row in part]) for answer in tokens], 1
        )
        answers += [canonical(labels[i]) for i in scores.argmax(1).tolist()]
    gold = [data.validation.examples[int(row)] for row in rows]
    return float(data.task.score(answers, gold, canonical=canonical)["score"])


def _figures(found: Result) -> Line:
    scores = [result.scores["score"] for result in found.results]
    return _told(scores, found.tuned, statistics.mean(result.seconds for result in found.results))


def _told(scores: Sequence[float], tuned: int, seconds: float) -> Line:
    return {
        "scores": [round(score, 2) for score in scores], "mean": round(statistics.mean(scores), 2),
        "spread": round(statistics.stdev(scores), 2) if len(scores) > 1 else None, "tuned": tuned,
        "seconds": round(seconds, 1),
    }  # fmt: skip


def _design(task: Task, shots: int) -> DesignSettings:
    """Few-shot prompts as `softprompt train` shows them beside its results."""
    (first,) = task.split("validation", max_rows=1).examples
    answer = "" if first.inputs.endswith(":") else "\nAnswer:"
    return DesignSettings(shots=shots, fit=True, instruction=task.description or "", answer=answer)


def contenders(backbone: Backbone, options: argparse.Namespace) -> dict[str, Callable[..., Line]]:
    """Methods by name, each for a target."""
    steps = {"steps": options.steps, "eval_every": options.eval_every}
    train = recipe("quick", batch_size=options.batch_size, eval_rows=0, embedding_step=0, **steps)
    # As many positions a step as the prompts see: rows of the usual length.
    tokens = {"batch_tokens": options.batch_size * 48, "eval_rows": 0, **steps}
    found: dict[str, Callable[..., Line]] = {
        "few_shot": of_method(lambda task: PromptDesign(_design(task, options.shots))),
        "prompt_tuning": of_method(lambda _: PromptTuning(train)),
        "spot": spot(options.library, train),
        "prefix_tuning": prefix(train.resolved(backbone), options.prefix_rate),
        "lora": of_method(lambda _: ModelTuning(tune_recipe("lora-quick").having(**tokens), lora=LoraSettings())),
        "model_tuning": of_method(
            lambda _: ModelTuning(tune_recipe("model-tuning-quick").having(**tokens, dropout=0.0))
        ),
    }
    if options.space is not None:
        space = load_space(options.space)
        encoder: CachedEncoder = space_encoder(space, backbone, None)
        target = train.having(prompt_length=space.prompt_length)
        found["sharpt"] = of_method(lambda _: SharPT(space, encoder, target))
    return found


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prompt tuning beside its neighbours on smollm2.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--targets", default="cr,sst2")
    parser.add_argument("--methods", default="", help="names between commas; all where empty")
    parser.add_argument("--library", default="released-smollm2")
    parser.add_argument("--space", type=Path, default=None, help="folder of a latent space; SharPT is left out without")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--eval-every", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--train-rows", type=int, default=1000)
    parser.add_argument("--validation-rows", type=int, default=400)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--k", type=int, default=1, help="source prompts SPoT tries")
    parser.add_argument("--prefix-rate", type=float, default=PREFIX_RATE)
    parser.add_argument("--out", type=Path, default=Path("runs/neighbours.jsonl"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The command; one line of the file a target and method."""
    options = _options(arguments)
    backbone = load_backbone("smollm2")
    methods = contenders(backbone, options)
    wanted = options.methods.split(",") if options.methods else list(methods)
    known = artifacts.read_json_lines(options.out) if options.out.exists() else []
    for target in options.targets.split(","):
        task = for_backbone(load_task(target, options.data), backbone.kind)
        for name in wanted:
            cell = {
                "target": target, "method": name, "seeds": options.seeds, "steps": options.steps,
                "batch_size": options.batch_size, "train_rows": options.train_rows,
                "validation_rows": options.validation_rows, "backbone": backbone.fingerprint,
            }  # fmt: skip
            if any({key: line.get(key) for key in cell} == cell for line in known):
                continue
            figures = methods[name](backbone, task, options)
            told = {
                "dtype": str(backbone.dtype).removeprefix("torch."), "processor": processor(), "level": in_force().name,
                "threads": torch.get_num_threads(), "command": shlex.join(["python", "benchmarks/neighbours.py", *arguments]),
            }  # fmt: skip
            artifacts.append_json_line(options.out, {**cell, **figures, **told})
            print(target, name, figures["scores"], figures["seconds"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
