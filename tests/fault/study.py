"""A study's driver is killed again and again, and its workers, and it ends with one result a cell, equal to a serial run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.fault.apart import apart, start
from tests.fault.campaign import Row, Tally
from tests.support.small_study import RUNNER, contents, made

KILLS = 5  # of one study, before it is left to end
WAYS = ("serial", "processes", "processes", "processes")


def _drive(folder: Path, way: str, pause: float) -> Any:
    """Run the study, or go on."""
    from softprompt.study.run import run_study

    options: dict[str, Any] = {"executor_options": {"workers": 2, "threads": 1}} if way == "processes" else {}
    log = str(folder / "steps.log")
    summary = run_study(made(), folder, way, runner=RUNNER, runner_options={"pause": pause, "log": log}, **options)
    return [summary.complete, summary.lost]


@cache
def _whole(folder: Path) -> dict[str, object]:
    ended = apart(_drive, folder, "serial", 0.0, seconds=120)
    assert ended.value == [True, 0], ended
    return contents(folder)


def _children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _killed(folder: Path, way: str, draw: random.Random, tally: Tally) -> None:
    """Start the study and kill it, or one of its workers and then it, at a random moment."""
    steps = folder / "steps.log"
    before = steps.stat().st_size if steps.exists() else 0
    end, pid = start(_drive, folder, way, 0.004)
    deadline, wanted = time.monotonic() + 100, draw.randrange(3)
    while time.monotonic() < deadline and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if wanted == 0 or (steps.exists() and steps.stat().st_size > before):  # 0: while it is still starting
            break
        time.sleep(0.005)
    time.sleep(draw.random() * 0.25)
    workers = _children(pid)
    victims = [pid]
    if workers and draw.random() < 0.4:
        victims.insert(0, draw.choice(workers))
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            tally.counts["drivers killed" if victim == pid else "workers killed"] += 1
        time.sleep(0.05 * draw.random())
    os.waitpid(pid, 0)
    os.close(end)
    for worker in workers:  # they end with their driver; this is only faster
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: a kill; five kills, or what is left of the cases, to a study, drawn from the first one's number."""
    tally = Tally()
    whole = _whole(folder / "whole")
    for first in range(0, len(cases), KILLS):
        some = cases[first : first + KILLS]
        way, place = WAYS[some[0] // KILLS % len(WAYS)], folder / f"study-{some[0]}"
        place.mkdir()
        for case in some:
            _killed(place, way, random.Random(case), tally)
        ended = apart(_drive, place, way, 0.0, seconds=240)
        if ended.value is None or not ended.value[0]:
            tally.failures.append(f"cases {some[0]} to {some[-1]} ({way}): it did not end: {ended.error[-500:]}")
        elif contents(place) != whole:
            tally.failures.append(f"cases {some[0]} to {some[-1]} ({way}): other results than the serial run's")
        tally.counts[f"studies equal to the serial run ({way})"] += 1
    return tally


ROW = Row(
    name="study", promise="A study ends with one result a cell, whoever was killed",
    tried="kills of a driver, and of its workers with it, at random moments, serial and on worker processes",
    cases=100, short=(0, 1, 2), piece=5, run=run,
)  # fmt: skip
