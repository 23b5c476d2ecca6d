"""The evidence study on a GPU: real tasks, all seeds of a phase in one batch, resumable.

    python benchmarks/gpu/evidence.py /tmp/inputs /tmp/evidence --minutes 9
    python benchmarks/gpu/evidence.py /tmp/inputs /tmp/evidence --backbone /tmp/pretrain/embedded/model
    python benchmarks/gpu/evidence.py --self-check

``softprompt study run`` under a clock: when the time is over, the training at work saves its state, and the same command
goes on, exactly. The ledger lies in ``out/ledger``; ``out/results.jsonl`` gets one line a finished cell, and one that sums
the study up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from job import Budget, Job, job_of, parser, run, verify

STUDY = Path(__file__).with_name("evidence.toml")
SAVING_SECONDS = 25.0
"""Kept free at the end of a call: a state is saved and records are written."""
PROMPT_SHARE = 0.1
"""Share of the free memory that prompts with gradients, optimiser state and checkpoints may take."""
COPIES = 8
"""Float32 copies of a prompt while it trains: value, gradient, two moments, best, final, embedding, one at work."""


def group_at_hand(device: str, prompt_length: int, width: int) -> int:
    """How many prompts train together: what a share of the free memory holds; activations are bounded apart from it, by
    the positions of one pass, which halve where memory runs out."""
    if not device.startswith("cuda"):
        return 16
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(PROMPT_SHARE * free / (COPIES * 4 * prompt_length * width)))


@contextmanager
def stopping(budget: Budget) -> Iterator[None]:
    """Ask this process to save and stop when the time is over, as a scheduler would (SIGTERM)."""
    if budget.left == float("inf"):
        yield
        return

    def ask(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ask)  # where no training heeds it: while data and backbone are read
    timer = threading.Timer(max(0.1, budget.left), lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


class _TimedExecutor:
    """Packs in this process one after the other, none begun when the time is over; at most ``packs`` of them."""

    slots = 1

    def __init__(self, budget: Budget, packs: int = 1 << 30) -> None:
        from softprompt.study.executors import SerialExecutor

        self._inner, self._budget, self._packs = SerialExecutor(), budget, packs

    def submit(self, order: Any, tell: Any = None) -> None:
        if self._budget.over or self._packs <= 0:
            raise KeyboardInterrupt
        self._packs -= 1
        self._inner.submit(order, tell)

    def wait(self, timeout_s: float) -> list[Any]:
        return self._inner.wait(timeout_s)

    def stop(self) -> None:
        self._inner.stop()

    def close(self) -> None:
        self._inner.close()


def conduct(job: Job, study: Any, *, packs: int = 1 << 30) -> dict[str, Any]:
    """Go on with the study until it is done or the time is over; records what is finished, and returns the summary."""
    from softprompt.errors import Interrupted
    from softprompt.study.run import run_study

    ledger = job.out / "ledger"
    spare = SAVING_SECONDS if job.device != "cpu" else 0.0
    clock = Budget(seconds=max(0.0, job.budget.left - spare))
    stopped = ""
    failed: tuple[str, ...] = ()
    try:
        with stopping(clock):
            made = run_study(
                study, ledger, _TimedExecutor(clock, packs), runner_options={"device": job.device},
                observer=lambda progress: print(progress.line(), flush=True) if progress.event else None,
            )  # fmt: skip
            failed = made.failed
    except (Interrupted, KeyboardInterrupt) as error:
        stopped = str(error) or "stopped before it began"
    return written(job, study, stopped, failed)


def written(job: Job, study: Any, stopped: str, failed: tuple[str, ...]) -> dict[str, Any]:
    """A record of every finished cell that has none yet, and one of the study."""
    from softprompt.errors import UsageError
    from softprompt.study.build import build_grid
    from softprompt.study.reading import facts_of, open_study

    try:
        _, ledger, noted = open_study(job.out / "ledger", study.name)
    except UsageError:
        return job.record(f"{study.name}.begun", {"stopped": stopped, "cells": 0, "done": 0})
    facts, done = facts_of(study, noted), job.done()
    grid = build_grid(study, facts)
    finished = [cell for cell in grid.cells.values() if ledger.has(*cell.id)]
    for cell in finished:
        if cell.key in done:
            continue
        record = ledger.read(cell.kind, cell.key)
        result = {name: value for name, value in record.result.items() if name not in ("predictions", "curve")}
        story = {name: record.provenance.get(name) for name in ("cell", "seconds", "evidence")}
        rows = str(record.identity.get("data", record.identity.get("validation", "")))
        job.record(cell.key, {"kind": cell.kind, "cell": cell.name, "result": result, "story": story}, data=rows)
    values = {
        "study": study.plain(), "backbone": facts.backbone, "fingerprint": facts.fingerprint, "cells": len(grid.cells),
        "done": len(finished), "stopped": stopped, "failed": list(failed), "group": study.group,
        "gains": gains(study, ledger, facts) if len(finished) == len(grid.cells) else None,
    }  # fmt: skip
    return job.record(f"{study.name}.{len(finished)}", values)


def gains(study: Any, ledger: Any, facts: Any) -> dict[str, Any]:
    """Mean score of each target from scratch and from each source, percent; docs say how to get the full tables."""
    from softprompt.analysis.read import collect

    found: dict[str, dict[str, list[float]]] = {}
    for score in collect(study, ledger, facts).runs:
        name = score.source[0] if score.source is not None else "scratch"
        found.setdefault(score.target, {}).setdefault(name, []).append(score.score)
    return {
        target: {name: sum(each) / len(each) for name, each in by_source.items()} for target, by_source in found.items()
    }


def study_for(job: Job, path: Path) -> Any:
    """The study file, with what the call changes."""
    from softprompt.backbones.load import load_backbone
    from softprompt.study.settings import load_study

    study, options = load_study(path), job.options
    backbone = options.get("backbone") or study.backbone
    source = study.source.having(steps=options["source_steps"]) if options.get("source_steps") else study.source
    target = study.target.having(steps=options["target_steps"]) if options.get("target_steps") else study.target
    study = replace(study, backbone=backbone, source=source, target=target, seeds=job.seeds or study.seeds)
    if options.get("group"):
        return replace(study, group=options["group"])
    width = load_backbone(backbone, device=job.device).hidden_size
    return replace(study, group=group_at_hand(job.device, study.source.prompt_length, width))


def check(folder: Path) -> list[str]:
    """A toy study on a toy model: stopped and resumed equals straight, records and gains are written."""
    import tomllib

    from toy import SOURCES, TARGETS, toy_backbone

    from softprompt.study.settings import study_of

    with STUDY.open("rb") as file:
        whole = study_of(tomllib.load(file))
    study = study_of(
        {
            "name": "toy", "backbone": str(toy_backbone(folder / "model")), "dtype": "float32", "sources": SOURCES,
            "targets": TARGETS[:1], "seeds": [1, 2], "protocol": "halves", "train_rows": 40, "validation_rows": 12, "group": 8,
            "source": {"recipe": "quick", "steps": 4, "eval_every": 2, "batch_size": 4, "prompt_length": 4},
            "target": {"recipe": "quick", "steps": 4, "eval_every": 2, "batch_size": 4, "prompt_length": 4},
            "embedding": {"step": 2},
        }
    )  # fmt: skip

    def job(name: str, seconds: float = float("inf")) -> Job:
        (folder / name).mkdir(exist_ok=True)
        return Job(name="evidence", inputs=None, out=folder / name, device="cpu", budget=Budget(seconds=seconds),
                   seeds=(1, 2))  # fmt: skip

    straight = conduct(job("straight"), study)
    never = conduct(job("parts", 0.0), study)
    some = conduct(job("parts"), study, packs=1)
    rest = conduct(job("parts"), study)
    scores = [
        {unit: record["result"] for unit, record in job(name).done().items() if "cell" in record}
        for name in ("straight", "parts")
    ]
    for each in scores:
        for result in each.values():
            result.pop("seconds", None)
    table = straight["gains"][TARGETS[0]]
    return [
        verify(straight["done"] == straight["cells"] > 10, f"all {straight['cells']} cells of the study are made"),
        verify(never["done"] == 0 and never["stopped"] != "", "without time nothing is begun, and that is said"),
        verify(0 < some["done"] < some["cells"] and some["stopped"] != "", "a stopped study keeps what is finished"),
        verify(rest["done"] == rest["cells"], "the same command goes on to the end"),
        verify(scores[0] == scores[1] and len(scores[0]) == straight["cells"], "resumed equals straight, cell by cell"),
        verify(set(table) == {"scratch", *SOURCES}, "scores from scratch and from each source are summed up"),
        verify(all(0 <= value <= 100 for value in table.values()), "scores are percents"),
        verify(len(whole.targets) == 10 and len(whole.seeds) == 3, "the study file is read"),
    ]


def main() -> None:
    made = parser(__doc__ or "")
    made.set_defaults(seeds=[])
    made.add_argument("--study", type=Path, default=STUDY, help="study file")
    made.add_argument("--backbone", default="", help="builtin or a folder; the study's where not given")
    made.add_argument("--source-steps", type=int, default=0)
    made.add_argument("--target-steps", type=int, default=0)
    made.add_argument("--group", type=int, default=0, help="prompts in one batch; 0: what memory holds")
    args = made.parse_args()

    def work() -> None:
        job = job_of(
            "evidence", args, backbone=args.backbone, source_steps=args.source_steps, target_steps=args.target_steps,
            group=args.group,
        )  # fmt: skip
        study = study_for(job, args.study)
        summary = conduct(replace(job, seeds=study.seeds), study)
        print(f"{summary['done']} of {summary['cells']} cells; {summary.get('stopped') or 'complete'}")

    run("evidence", args, work, check)


if __name__ == "__main__":
    main()
