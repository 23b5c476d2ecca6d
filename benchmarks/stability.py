"""Is a transferred prompt steadier over seeds than one from scratch, and does longer tuning matter (SPoT section 2.4)?

    python benchmarks/stability.py --data ../shared/data --targets cr,cb,mrpc --source mnli@1 --seeds 10 --steps 60,180 --out stability.jsonl

For each target, runs from scratch and from source prompts of the library (several take turns), with the same seeds and so the same
rows in the same order, for each number of steps; all of a target's runs are one batch. Checkpoints are chosen on one half of
validation and scored on the other; with --seen-rows N they are chosen on the N rows that another experiment has looked at and
scored on all others, which none has seen. One JSON line a target: all scores; mean and standard deviation over seeds by start and steps; and the
differences of means (paired by seed) and ratios of standard deviations with 95 % bootstrap intervals over seeds, and, with --seen-rows, the
difference over seeds and rows drawn together. Targets that --out already holds are not run again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softprompt import artifacts
from softprompt.analysis import statistics
from softprompt.backbones.base import Backbone
from softprompt.backbones.engine.native.levels import in_force, processor
from softprompt.backbones.load import load_backbone
from softprompt.errors import SoftpromptError, UsageError
from softprompt.inference.evaluate import halves
from softprompt.library.released import FOLDER, FOLDERS, released_library
from softprompt.library.store import Library
from softprompt.prompts.init import default_init, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.catalog import load_task
from softprompt.training.data import TaskData, task_data
from softprompt.training.loop import train_prompts
from softprompt.training.recipes import recipe
from softprompt.training.settings import TrainSettings

Values = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[Any]]
DRAWS = 2000


def rows_of(data: TaskData, seen: int | None) -> tuple[Rows, Rows]:
    """The validation rows that choose and those that report: two halves, or those that a study of ``seen`` rows drew and the others."""
    if seen is None:
        return halves(len(data.validation), 0)
    keys = {example.key for example in data.task.split("validation", max_rows=seen).examples}
    chosen = np.asarray([example.key in keys for example in data.validation.examples])
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def answers_of(
    backbone: Backbone,
    data: TaskData,
    sources: Sequence[torch.Tensor],
    settings: TrainSettings,
    steps: Sequence[int],
    seeds: int,
    seen: int | None,
) -> tuple[dict[str, list[float]], dict[str, list[list[bool]]]]:
    """Reporting scores, one a seed, by ``start-steps``, and whether each reporting row is right; all runs in one batch."""
    select, report = rows_of(data, seen)
    runs, prompts, keys = [], [], []
    init = default_init("scratch", labels=data.task.labels)
    for length in steps:
        for seed in range(1, seeds + 1):
            for start in ("scratch", "source"):
                keys.append(f"{start}-{length}")
                runs.append(
                    data.run(f"{start}-{length}-{seed}", seed, select_rows=select, report_rows=report, steps=length)
                )
                prompts.append(
                    sources[(seed - 1) % len(sources)].clone()
                    if start == "source"
                    else initial_prompt(backbone, init, settings.prompt_length, seed)
                )
    results = train_prompts(backbone, PromptStack.of(prompts, tuned=True), runs, settings.having(steps=max(steps)))
    found: dict[str, list[float]] = {}
    right: dict[str, list[list[bool]]] = {}
    expected = [data.validation.examples[int(row)].targets for row in report]
    for key, result in zip(keys, results, strict=True):
        found.setdefault(key, []).append(result.scores["score"])
        right.setdefault(key, []).append([a == b for a, b in zip(result.predictions, expected, strict=True)])
    return found, right


def resampled(one: Values, other: Values, of: Callable[[Values, Values], float]) -> list[float]:
    """(value, low, high): 95 % bootstrap over seeds, both drawn together."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(one), size=len(one)) for _ in range(DRAWS)]
    # A draw of one seed again and again has no spread; it says nothing of the ratio.
    values = [v for v in (of(one[d], other[d]) for d in draws) if np.isfinite(v)]
    return [round(float(v), 3) for v in (of(one, other), *np.quantile(values, [0.025, 0.975]))]


def over_rows(one: Sequence[Sequence[bool]], other: Sequence[Sequence[bool]]) -> list[float]:
    """Difference of accuracies, percent, with its 95 % bootstrap interval: seeds of each side drawn, then rows, the same for both."""
    sides = [100.0 * np.asarray(side, np.float64) for side in (one, other)]
    seeds, rows = sides[0].shape

    def draw(random: np.random.Generator) -> float:
        drawn = random.integers(rows, size=rows)
        means = [side[random.integers(seeds, size=seeds)][:, drawn].mean() for side in sides]
        return float(means[0] - means[1])

    low, high, _ = statistics.resampled(draw, DRAWS)
    return [round(float(v), 3) for v in (sides[0].mean() - sides[1].mean(), low, high)]


def comparisons(scores: dict[str, list[float]], steps: Sequence[int]) -> dict[str, Any]:
    """Means and spreads, and what they differ by."""

    def gain(one: Values, other: Values) -> float:
        return float(one.mean() - other.mean())

    def ratio(one: Values, other: Values) -> float:
        spread = float(other.std(ddof=1))
        return float(one.std(ddof=1)) / spread if spread > 1e-6 else float("nan")

    values = {key: np.asarray(found) for key, found in scores.items()}
    made: dict[str, Any] = {
        "mean": {key: round(float(v.mean()), 2) for key, v in values.items()},
        "std": {key: round(float(v.std(ddof=1)), 2) for key, v in values.items()},
    }
    for length in steps:
        pair = values[f"source-{length}"], values[f"scratch-{length}"]
        made[f"gain-{length}"] = resampled(*pair, gain)
        made[f"spread-ratio-{length}"] = resampled(*pair, ratio)
    for start in ("scratch", "source"):
        made[f"longer-{start}"] = resampled(values[f"{start}-{steps[-1]}"], values[f"{start}-{steps[0]}"], gain)
    return made


def main(arguments: Sequence[str]) -> int:
    """The command; prints its JSON lines."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=None, help="folder of the tasks' files; built-in tasks need none")
    made.add_argument("--targets", default="cr,cb,mrpc")
    made.add_argument("--library", default="released", help="a folder, or released")
    made.add_argument("--source", default="mnli@1", help="prompts of the library, between commas")
    made.add_argument("--backbone", default="builtin")
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--steps", default="60,180", help="two numbers of steps, between commas")
    made.add_argument("--every", type=int, default=20, help="steps between validations")
    made.add_argument(
        "--train-rows", type=int, default=None, help="at most this many training rows, the same for all seeds"
    )
    made.add_argument("--validation-rows", type=int, default=400, help="0 for all")
    made.add_argument(
        "--seen-rows", type=int, default=None, help="choose on the rows that a study of so many validation rows drew"
    )
    made.add_argument("--batch-size", type=int, default=None)
    made.add_argument("--learning-rate", type=float, default=None)
    made.add_argument("--max-input-tokens", type=int, default=None)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--out", type=Path, default=None, help="append JSON lines here as well")
    options = made.parse_args(arguments)
    steps = sorted(int(word) for word in options.steps.split(","))
    if len(steps) != 2 or options.seeds < 2:
        made.error("two numbers of steps and at least two seeds are needed")
    torch.set_num_threads(options.threads)
    try:
        known = artifacts.read_json_lines(options.out) if options.out is not None and options.out.exists() else []
        backbone = load_backbone(options.backbone)
        library = (
            Library(options.library)
            if options.library != "released"
            else released_library(FOLDERS.get(options.backbone, FOLDER))
        )
        sources = [library.load(name, backbone).float() for name in options.source.split(",")]
        given = {name: getattr(options, name) for name in ("batch_size", "learning_rate", "max_input_tokens")}
        settings = recipe(
            "quick", eval_every=options.every, embedding_step=0, patience=0, prompt_length=len(sources[0]),
            **{name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
        for target in options.targets.split(","):
            data = task_data(
                backbone, load_task(target, options.data), settings,
                train_rows=options.train_rows, validation_rows=options.validation_rows or None,
            )  # fmt: skip
            if options.seen_rows is not None and tuple(data.task.metrics) != ("accuracy",):
                raise UsageError(
                    f"--seen-rows draws rows and needs a target scored by accuracy alone; {target} has "
                    f"{', '.join(data.task.metrics)}: leave it out of --targets."
                )
            identity = {
                "target": target, "source": options.source, "seeds": options.seeds, "steps": steps, "every": options.every,
                "rows": len(data.train), "validation_rows": len(data.validation), "train_fingerprint": data.train.fingerprint,
                "validation_fingerprint": data.validation.fingerprint, "backbone": backbone.fingerprint,
                "prompt_length": settings.prompt_length, "batch_size": settings.batch_size, "learning_rate": settings.learning_rate,
                **{name: value for name in ("seen_rows", "max_input_tokens") if (value := getattr(options, name)) is not None},
            }  # fmt: skip
            if any(identity.items() <= line.items() for line in known):
                continue
            scores, right = answers_of(backbone, data, sources, settings, steps, options.seeds, options.seen_rows)
            both = {} if options.seen_rows is None else {
                f"gain-{n}-rows": over_rows(right[f"source-{n}"], right[f"scratch-{n}"]) for n in steps
            }  # fmt: skip
            command = shlex.join(["python", "benchmarks/stability.py", *arguments])
            line = {
                **identity,
                "scores": scores,
                **comparisons(scores, steps),
                **both,
                "processor": processor(),
                "level": in_force().name,
                "command": command,
            }
            print(json.dumps(line), flush=True)
            if options.out is not None:
                artifacts.append_json_line(options.out, line)
    except SoftpromptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
