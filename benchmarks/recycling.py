"""Recycled against cold start: a library's prompts tuned again on another backbone, from both starts, side by side.

    python benchmarks/recycling.py --library released --from builtin --to FOLDER --data ../shared/data --out recycling.jsonl

For each prompt of the library the same task, seed and settings are tuned on the new backbone from several starts, all in
one batch:

    cold     the usual start of its role (sampled vocabulary, or class labels)
    linear   the old prompt through a least-squares map between the two vocabularies' embeddings
    nearest  the old prompt as combinations of shared tokens
    other    (--control) another task's prompt through the linear map: what a warm start owes to its scale alone

Scores are percents on one half of validation after 0, EVERY, 2 EVERY, ... steps; checkpoints are chosen on them, and the
best checkpoint is scored on the other half. One JSON line a prompt and start, and one with the differences to the cold
start at each step: mean over prompts with a 95 % bootstrap interval. Lines that --out already holds are not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.backbones.load import load_backbone
from softprompt.errors import SoftpromptError, UsageError
from softprompt.inference.evaluate import EvalJob, evaluate, halves, seeded_rows
from softprompt.library.released import released_library
from softprompt.library.retrain import RetrainItem, recycle, retrain_plan, shared_tokens
from softprompt.library.store import Library
from softprompt.methods.spot.judging import bootstrap_interval
from softprompt.prompts.init import Role, default_init, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.training.data import TaskData, task_data
from softprompt.training.loop import train_prompts
from softprompt.training.runs import Run, RunResult
from softprompt.training.settings import TrainSettings

STARTS = ("cold", "linear", "nearest", "other")


def settings_of(item: RetrainItem, changes: Mapping[str, Any]) -> TrainSettings:
    """The item's recorded settings with some changed; never stopped early, so that all starts take equally many steps."""
    known = set(TrainSettings.names())
    recorded = TrainSettings(**{name: value for name, value in item.recipe.items() if name in known})
    return recorded.having(**{**changes, "patience": 0, "embedding_step": 0, "micro_batch_tokens": 0})


def starts_of(
    item: RetrainItem, other: RetrainItem | None, old: Backbone, new: Backbone, data: TaskData, wanted: Sequence[str]
) -> dict[str, Tensor]:
    """The initial prompts [P, G] by name."""
    role: Role = "scratch" if item.init.get("kind") == "class-labels" else "source"
    shared = shared_tokens(old.tokenizer, new.tokenizer)
    tables = old.embedding_table(), new.embedding_table()
    made: dict[str, Callable[[], Tensor]] = {
        "cold": lambda: initial_prompt(new, default_init(role, labels=data.task.labels), item.prompt_length, item.seed),
        "linear": lambda: recycle(item.old.prompt(), *tables, shared, method="linear"),
        "nearest": lambda: recycle(item.old.prompt(), *tables, shared, method="nearest"),
    }
    if other is not None:
        made["other"] = lambda: recycle(other.old.prompt(), *tables, shared, method="linear")
    return {name: made[name]().float() for name in wanted if name in made}


def another(item: RetrainItem, items: Sequence[RetrainItem]) -> RetrainItem | None:
    """The next prompt of another task and the same length; None where there is none."""
    place = items.index(item)
    ring = [*items[place + 1 :], *items[:place]]
    return next((o for o in ring if o.task != item.task and o.prompt_length == item.prompt_length), None)


def measure(
    item: RetrainItem,
    other: RetrainItem | None,
    old: Backbone,
    new: Backbone,
    data: TaskData,
    settings: TrainSettings,
    wanted: Sequence[str],
) -> list[dict[str, Any]]:
    """One record a start of one prompt, all tuned in one batch."""
    item.old.check_backbone(old)
    starts = starts_of(item, other, old, new, data, wanted)
    select, report = halves(len(data.validation), 0)
    runs = [data.run(name, item.seed, select_rows=select, report_rows=report) for name in starts]
    stack = PromptStack.of([prompt.to(new.device) for prompt in starts.values()], tuned=True)
    first = first_scores(new, stack, runs, settings)
    results = train_prompts(new, stack, runs, settings)
    facts = {
        "prompt": item.name, "task": item.task, "seed": item.seed, "old_score": item.score,
        "shared_tokens": len(shared_tokens(old.tokenizer, new.tokenizer)),
        "control": other.name if other is not None and "other" in starts else None,
        "train_fingerprint": data.train.fingerprint, "validation_fingerprint": data.validation.fingerprint,
        "select_rows": min(len(select), settings.eval_rows or len(select)), "report_rows": len(report),
    }  # fmt: skip
    return [
        {"kind": "start", "start": name, **facts, **scores_of(result, before)}
        for (name, before), result in zip(zip(starts, first, strict=True), results, strict=True)
    ]


def first_scores(backbone: Backbone, stack: PromptStack, runs: Sequence[Run], settings: TrainSettings) -> list[float]:
    """The untuned prompts' scores on the rows that validation uses."""
    jobs = []
    for i, run in enumerate(runs):
        rows = np.arange(len(run.validation)) if run.select_rows is None else run.select_rows
        chosen = rows[seeded_rows(len(rows), settings.eval_rows, 0)]
        jobs.append(EvalJob(run=i, task=run.task, split=run.validation, rows=chosen))
    with torch.no_grad():
        found = evaluate(backbone, stack, jobs, max_target_tokens=settings.max_target_tokens)
    return [evaluation.scores["score"] for evaluation in found]


def scores_of(result: RunResult, before: float) -> dict[str, Any]:
    """A run's scores by step, on the selecting half, and its best checkpoint's on the reporting half; percents."""
    scores = {"0": before} | {str(point["step"]): point["score"] for point in result.curve}
    losses = {str(point["step"]): point["loss"] for point in result.curve}
    return {
        "status": result.status, "scores": scores, "losses": losses, "best_step": result.best_step,
        "report_score": result.scores.get("score"), "seconds": round(result.seconds, 2),
    }  # fmt: skip


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By start: its mean difference to the cold start at each step and on the reporting half, (mean, low, high)."""
    by_prompt: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        by_prompt.setdefault(record["prompt"], {})[record["start"]] = record
    found: dict[str, Any] = {}
    for start in STARTS[1:]:
        pairs = [(of["cold"], of[start]) for of in by_prompt.values() if start in of and "cold" in of]
        if not pairs:
            continue
        steps = sorted(set.intersection(*({*a["scores"]} & {*b["scores"]} for a, b in pairs)), key=int)
        found[start] = {
            "prompts": len(pairs),
            "gain_at_step": {
                step: interval([b["scores"][step] - a["scores"][step] for a, b in pairs]) for step in steps
            },
            "gain_reported": interval(
                [b["report_score"] - a["report_score"] for a, b in pairs
                 if a["report_score"] is not None and b["report_score"] is not None]
            ),
            "share_of_steps_to_the_cold_best": interval([steps_needed(a, b) for a, b in pairs]),
        }  # fmt: skip
    return found


def interval(values: Sequence[float]) -> list[float] | None:
    """(mean, low, high) over prompts, 95 % bootstrap; None where there is no value."""
    found = bootstrap_interval(values)
    return None if np.isnan(found[0]) else list(found)


def steps_needed(cold: Mapping[str, Any], warm: Mapping[str, Any]) -> float:
    """The steps after which warm is as good as cold ever was, over the steps cold took for it; NaN where it never is."""
    best = max(cold["scores"].values())
    took = min(int(step) for step, score in cold["scores"].items() if score == best)
    reached = [int(step) for step, score in warm["scores"].items() if score >= best]
    return min(reached) / took if reached and took else float("nan")


def run(
    library: Library,
    old: Backbone,
    new: Backbone,
    *,
    data: Path | None = None,
    names: Sequence[str] | None = None,
    starts: Sequence[str] = STARTS[:3],
    changes: Mapping[str, Any] | None = None,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    known: Sequence[Mapping[str, Any]] = (),
    command: str = "",
) -> Iterator[dict[str, Any]]:
    """Records of every prompt that can be tuned again, those that are known already first, and the summary last."""
    plan = retrain_plan(library, new, names)
    if not plan.items:
        reasons = "; ".join(f"{name}: {why}" for name, why in plan.impossible.items())
        raise UsageError(f"library {library.location} holds no prompt to tune again on {new.name}: {reasons}.")
    records: list[Mapping[str, Any]] = []
    for item in plan.items:
        settings = settings_of(item, changes or {})
        at_most = train_rows or item.recipe.get("train_rows")
        identity: dict[str, Any] = {
            "settings": asdict(settings), "from": facts_of(old), "to": facts_of(new), "starts": sorted(starts),
            "train_rows": at_most, "validation_rows": validation_rows,
            "old_prompt": item.old.manifest.files,
        }  # fmt: skip
        key = hashlib.sha256(artifacts.json_bytes(identity)).hexdigest()[:16]
        made: list[Mapping[str, Any]] = [r for r in known if r.get("key") == key and r.get("prompt") == item.name]
        if not set(starts) - {"other"} <= {r["start"] for r in made}:  # a killed run may have left some of them
            task = load_task(item.task, data)
            rows = task_data(new, task, settings, train_rows=at_most, validation_rows=validation_rows)
            about = {name: identity[name] for name in ("from", "to", "settings")} | {"key": key, "command": command}
            control = another(item, plan.items) if "other" in starts else None
            made = [{**record, **about} for record in measure(item, control, old, new, rows, settings, starts)]
            yield from (dict(record) for record in made)
        records += made
    yield {
        "kind": "summary", "from": facts_of(old), "to": facts_of(new), "differences_to_cold": summary(records),
        "seeds": sorted({record["seed"] for record in records}), "left_out": dict(plan.impossible), "command": command,
    }  # fmt: skip


def facts_of(backbone: Backbone) -> dict[str, Any]:
    """Name, fingerprint and width."""
    return {"name": backbone.name, "fingerprint": backbone.fingerprint, "width": backbone.hidden_size}


def library_at(place: str) -> Library:
    """The library at a folder or URL; ``released`` is the one that ships in the package."""
    if place == "released" and not Path(place).is_dir():
        return released_library()
    if "://" not in place and not Path(place).is_dir():
        raise UsageError(f"there is no library at {place}: name another folder.")
    return Library(place)


def known_lines(out: Path | None) -> list[Any]:
    """What an earlier run left in --out; nothing where there is no such file."""
    return artifacts.read_json_lines(out) if out is not None and out.exists() else []


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Recycled against cold start on another backbone.")
    parser.add_argument("--library", required=True, help="prompts of the old backbone: a folder, a URL, or released")
    parser.add_argument("--from", dest="old", default="builtin", help="the old backbone: a folder or hub id")
    parser.add_argument("--to", dest="new", required=True, help="the new backbone: a folder or hub id")
    parser.add_argument("--data", type=Path, default=None, help="folder of the tasks' files")
    parser.add_argument("--prompts", default="", help="names, between commas; all if not given")
    parser.add_argument("--starts", default="cold,linear,nearest", help=f"of {', '.join(STARTS)}")
    parser.add_argument("--control", action="store_true", help="add the start 'other'")
    parser.add_argument("--steps", type=int, default=None, help="optimiser steps; the recorded ones if not given")
    parser.add_argument("--every", type=int, default=None, help="steps between scores")
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--train-rows", type=int, default=None)
    parser.add_argument("--validation-rows", type=int, default=None)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=None, help="append JSON lines here as well")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The command; prints its JSON lines."""
    options = options_of(arguments)
    given = {
        "steps": options.steps, "eval_every": options.every, "learning_rate": options.learning_rate,
        "batch_size": options.batch_size,
    }  # fmt: skip
    starts = tuple(dict.fromkeys([*options.starts.split(","), *(["other"] if options.control else [])]))
    try:
        if "cold" not in starts or set(starts) - set(STARTS):
            raise UsageError(f"--starts takes cold and any of {', '.join(STARTS[1:])}; got {', '.join(starts)}.")
        for record in run(
            library_at(options.library),
            load_backbone(options.old, dtype=options.dtype, device=options.device),
            load_backbone(options.new, dtype=options.dtype, device=options.device),
            data=options.data,
            names=options.prompts.split(",") if options.prompts else None,
            starts=starts,
            changes={name: value for name, value in given.items() if value is not None},
            train_rows=options.train_rows,
            validation_rows=options.validation_rows,
            known=known_lines(options.out),
            command=shlex.join(["python", "benchmarks/recycling.py", *arguments]),
        ):
            print(json.dumps(record), flush=True)
            if options.out is not None:
                artifacts.append_json_line(options.out, record)
    except SoftpromptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
