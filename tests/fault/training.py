"""Training is killed at random moments; each resume must end bit for bit where an undisturbed training ends.

Moments are calls: an undisturbed training is watched (``sys.setprofile``), and the killed one ends at the n-th call that
Python makes, be it ours, torch's or the system's. Half of the moments lie in the writing of state.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.fault.apart import apart
from tests.fault.campaign import Row, Tally

KINDS = ("one prompt", "three prompts", "SharPT", "model tuning")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT)
STATE = ("artifacts.py", "run_dir.py", "checkpoint.py", "lock.py")


def _train(kind: str, folder: Path) -> Any:
    """Train, or go on; a digest of everything that comes of it."""
    import torch
    from tests.support.models import tiny_backbone
    from tests.support.small_tasks import SETTINGS, small_data

    torch.set_num_threads(1)
    backbone = tiny_backbone("t5")
    if kind == "model tuning":
        from softprompt.training.settings import TuneSettings
        from softprompt.training.weights.tune import tune_model

        tuning = TuneSettings(
            steps=4,
            batch_tokens=60,
            eval_every=2,
            eval_rows=0,
            max_input_tokens=32,
            max_target_tokens=8,
            learning_rate=0.01,
        )
        run = small_data(backbone, "animals").run("animals", 0)
        tuned = tune_model(backbone, run, tuning, folder, keep_final=True, resume=True)
        assert tuned.last is not None
        return _digest(tuned.last.weights) + _digest(tuned.best) + _told(tuned.plain())
    if kind == "SharPT":
        from tests.support.small_tasks import RECIPE, WordEncoder

        from softprompt.methods.sharpt.cache import CachedEncoder
        from softprompt.methods.sharpt.train import train_space

        data = [small_data(backbone, "animals"), small_data(backbone, "birds", train=10)]
        (made,) = train_space(backbone, CachedEncoder(WordEncoder()), data, RECIPE, folder=folder, resume=True)
        return _digest(made.space.tensors) + _told(made.result.plain())
    from softprompt.prompts.stack import PromptStack
    from softprompt.training.loop import train_prompts

    runs = [
        small_data(backbone, "animals").run(f"animals-{seed}", seed) for seed in range(1 if kind == KINDS[0] else 3)
    ]
    start = torch.randn(len(runs), 3, backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    settings = SETTINGS.having(embedding_step=2, eval_every=2, dropout=0.1)
    results = train_prompts(backbone, PromptStack(start, tuned=True), runs, settings, folder, resume=True)
    return "".join(_digest(result.tensors()) + _told(result.plain()) for result in results)


def _digest(tensors: Any) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def _told(plain: Any) -> str:
    """What a result says, times and memory left out."""
    kept = {key: value for key, value in plain.items() if key not in ("seconds", "peak_bytes", "provenance")}
    return hashlib.sha256(repr(sorted(_timeless(kept).items())).encode()).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _timeless(v) for k, v in value.items() if not any(word in k for word in ("second", "memory", "peak"))
        }
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _watched(kind: str, folder: Path, at: int, number: int) -> list[int]:
    """Train and count the calls; at the ``at``-th one this process gets the signal. The numbers of state's calls."""
    count, state = 0, []

    def count_call(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1
            if frame.f_code.co_filename.endswith(STATE):
                state.append(count)
            if count == at:
                os.kill(os.getpid(), number)

    sys.setprofile(count_call)
    try:
        _train(kind, folder)
    finally:
        sys.setprofile(None)
    return [count, *state]


@cache
def _whole(kind: str, root: Path) -> tuple[str, list[int]]:
    """The digest of an undisturbed training, and its calls."""
    digest = apart(_train, kind, root / f"whole-{kind}", seconds=120)
    calls = apart(_watched, kind, root / f"watched-{kind}", -1, 0, seconds=240)
    assert not digest.error, digest.error
    assert not calls.error, calls.error
    return digest.value, calls.value


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: kind i % 4, a moment and a signal drawn from i; killed once or twice, then left to end."""
    tally = Tally()
    for case in cases:
        kind, draw = KINDS[case % len(KINDS)], random.Random(case)
        digest, (total, *state) = _whole(kind, folder)
        place, deaths = folder / f"case-{case}", Counter[str]()
        for _ in range(draw.choice((1, 1, 2))):
            at = draw.choice(state) if draw.random() < 0.5 else draw.randrange(total)
            number = draw.choice(SIGNALS)
            ended = apart(_watched, kind, place, at, number, seconds=240)
            deaths[signal.Signals(ended.signal).name if ended.signal else "lived"] += 1
            if ended.error or ended.late:
                tally.failures.append(f"case {case} ({kind}): {ended.error or 'it hung'}")
        ended = apart(_train, kind, place, seconds=240)
        if ended.value != digest:
            tally.failures.append(f"case {case} ({kind}): the resume ended elsewhere {ended.error[-300:]}")
        tally.counts += deaths
    return tally


ROW = Row(
    name="training", promise="Training survives any death",
    tried="kill -9, HUP and QUIT at random moments of one prompt, three prompts, SharPT and model tuning",
    cases=500, short=(1,), piece=10, run=run,
)  # fmt: skip
