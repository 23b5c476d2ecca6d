"""NaN, infinity and huge numbers at any step, in any prompt and row: that prompt stops and is named, the others go on.

At each level of processor instructions that the machine has; a level is set before torch is used, so each has a process.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tests.fault.campaign import ROOT, Row, Tally

from softprompt.backbones.engine.native.levels import LEVELS, VARIABLE, in_force, lacking
from softprompt.prompts.stack import PromptStack

KINDS = ("t5", "llama", "encdec", "gpt2")
VALUES = (float("nan"), float("inf"), float("-inf"), 3e38, 1e30, 1e20)
RUNS, STEPS, LENGTH = 3, 6, 3


class Poisoned(PromptStack):
    """A stack in which one number becomes ``value`` after a step."""

    at: tuple[int, int, int, int, float] | None = None

    def after_step(self, step: int) -> None:
        if self.at is not None and step == self.at[0]:
            _, run, row, column, value = self.at
            with torch.no_grad():
                self.prompts_NPH[run, row, column] = value

    def keep(self, runs: Any) -> Any:
        chosen = list(runs)
        kept = super().keep(chosen)
        if len(chosen) == self.run_count and self.at is not None:
            again = Poisoned(kept.prompts_NPH, tuned=True)
            again.at = self.at
            return again
        return kept


def _trained(kind: str, at: tuple[int, int, int, int, float] | None) -> Any:
    from tests.support.models import tiny_backbone
    from tests.support.small_tasks import SETTINGS, small_data

    from softprompt.training.loop import train_prompts

    torch.set_num_threads(1)
    backbone = tiny_backbone(kind)
    runs = [small_data(backbone, "animals").run(f"animals-{seed}", seed) for seed in range(RUNS)]
    start = torch.randn(RUNS, LENGTH, backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    stack = Poisoned(start, tuned=True)
    stack.at = at
    return train_prompts(backbone, stack, runs, SETTINGS.having(steps=STEPS, eval_every=2, learning_rate=0.02))


@cache
def _sound(kind: str) -> Any:
    return _trained(kind, None)


def _case(case: int) -> tuple[str, str]:
    draw = random.Random(case)
    kind = KINDS[case % len(KINDS)]
    at = draw.randrange(1, STEPS), draw.randrange(RUNS), draw.randrange(LENGTH), draw.randrange(24), draw.choice(VALUES)
    results, victim = _trained(kind, at), at[1]
    for n, (found, sound) in enumerate(zip(results, _sound(kind), strict=True)):
        finite = all(bool(t.isfinite().all()) for t in found.best.values())
        if not finite:
            return "broken", f"run {n}: its best checkpoint is not finite"
        if n != victim:
            if found.status != "done" or not torch.allclose(
                found.final["prompt"], sound.final["prompt"], rtol=5e-3, atol=5e-4
            ):
                return "broken", f"run {n} ({found.status}) was touched by run {victim}"
        elif found.status == "non_finite":
            if f"animals-{victim}" not in found.note:
                return "broken", f"the note does not name the run: {found.note!r}"
        elif not all(bool(t.isfinite().all()) for t in found.final.values()):
            return "broken", f"run {n} ended as {found.status} with a prompt that is not finite"
        elif abs(at[4]) == float("inf") or at[4] != at[4]:
            return "broken", f"run {n} went on with {at[4]} in its prompt"
    return ("stopped and named" if results[victim].status == "non_finite" else "huge, and went on finite"), ""


def _cases(cases: Sequence[int]) -> tuple[dict[str, int], list[str]]:
    counts: dict[str, int] = {}
    failures = []
    for case in cases:
        what, wrong = _case(case)
        counts[what] = counts.get(what, 0) + 1
        if wrong:
            failures.append(f"case {case} at level {in_force().name}: {wrong}")
    return counts, failures


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: kind i % 4, level i // 4 % levels, place and value drawn from i. In this process where its level is asked for."""
    tally = Tally()
    levels = [level.name for level in LEVELS.values() if not lacking(level)]
    for number, level in enumerate(levels):
        some = [case for case in cases if case // len(KINDS) % len(levels) == number]
        if not some:
            continue
        if len(cases) <= SHORT:  # the short form starts no process: one level
            counts, failures = _cases(some)
            tally.counts[f"at level {in_force().name}"] += len(some)
        else:
            words = [sys.executable, "-m", "tests.fault.numerics", *map(str, some)]
            paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), str(ROOT / "recipes")])
            done = subprocess.run(
                words,
                env={**os.environ, VARIABLE: level, "PYTHONPATH": paths},
                capture_output=True,
                text=True,
                cwd=ROOT,
            )
            if done.returncode:
                tally.failures.append(f"level {level}: {done.stderr[-800:]}")
                continue
            counts, failures = json.loads(done.stdout.splitlines()[-1])
            tally.counts[f"at level {level}"] += len(some)
        for what, count in counts.items():
            tally.counts[what] += count
        tally.failures += failures
    return tally


SHORT = 4
ROW = Row(
    name="numerics", promise="A prompt that explodes stops alone and is named",
    tried="NaN, infinity or huge numbers in a prompt of three at a random step, on four backbones, at each level of instructions",
    cases=800, short=range(SHORT), piece=40, run=run,
)  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(_cases([int(word) for word in sys.argv[1:]])))
