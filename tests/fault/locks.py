"""Two processes in one run folder or ledger, locks that were left behind or come from elsewhere, clocks that jump.

One works; the other is told who does. What a dead process left is taken over; what another machine may hold is not, until it
has been silent for five minutes by the clock of the file system that both write to.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests.fault.apart import apart, start
from tests.fault.campaign import Row, Tally

from softprompt.errors import SoftpromptError, UsageError
from softprompt.study.ledger import FOREIGN_LOCK_S, Ledger
from softprompt.training.lock import NAME
from softprompt.training.run_dir import RunDir

_time = time.time
JUMPS = (0.0, 3600.0, -3600.0, 1e6, -1e6, 10.0, -10.0)


def _shifted(seconds: float) -> float:
    return _time() + seconds


def _open_run(folder: Path) -> None:
    RunDir(folder / "run", {"a": 1}, resume=True)


def _open_ledger(folder: Path) -> None:
    with Ledger(folder / "ledger").lock("a test"):
        pass


def _hold(folder: Path, kind: str, jump: float) -> Any:
    """Hold both kinds of place until killed."""
    with mock.patch("time.time", partial(_shifted, jump)):
        if kind == "run":
            run = RunDir(folder / "run", {"a": 1}, resume=True)
            (folder / "held").touch()
            time.sleep(60)
            return run.folder.name
        with Ledger(folder / "ledger").lock("a test"):
            (folder / "held").touch()
            time.sleep(60)
    return None


def _held(folder: Path, kind: str, jump: float, asks: Callable[[], str]) -> tuple[str, str]:
    """What ``asks`` says while another process holds the place, and once it was killed."""
    end, pid = start(_hold, folder, kind, jump)
    deadline = time.monotonic() + 30
    while not (folder / "held").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    try:
        told = asks()
        wrong = "" if str(pid) in told else f"while {pid} held it the other was told {told!r}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(end)
    after = asks()
    return "the second was told who works", wrong or ("" if after == "" else f"a dead process still holds it: {after}")


def _asked(work: Callable[[], None]) -> str:
    try:
        work()
    except UsageError as error:
        return str(error)
    except SoftpromptError as error:
        return f"another error: {error}"
    return ""


def _two(folder: Path, draw: random.Random) -> tuple[str, str]:
    """Two processes, the clock of one set elsewhere."""
    kind, (mine, theirs) = draw.choice(("run", "ledger")), (draw.choice(JUMPS), draw.choice(JUMPS))
    work = _open_run if kind == "run" else _open_ledger
    with mock.patch("time.time", partial(_shifted, mine)):
        return _held(folder, kind, theirs, lambda: _asked(lambda: work(folder)))


def _stale(folder: Path, draw: random.Random) -> tuple[str, str]:
    """What a dead process left: any note that this machine wrote, whole, torn or of a process number that lives again."""
    note = {
        "pid": draw.choice((999_999, os.getpid(), 1)),
        "host": socket.gethostname(),
        "since": "2020",
        "started": "1",
        "renewed": time.time(),
    }
    text = json.dumps(note)
    text = draw.choice((text, text[: draw.randrange(len(text))], "", "[]", "null", "\x00" * 40))
    for place in (folder / "run" / NAME, folder / "ledger" / "lock.json"):
        place.parent.mkdir(parents=True)
        place.write_text(text)
    told = _asked(lambda: _open_run(folder)) or _asked(lambda: _open_ledger(folder))
    return "a stale lock was taken over", told and f"a stale lock {text!r} stands in the way: {told}"


def _foreign(folder: Path, draw: random.Random) -> tuple[str, str]:
    """A note of another machine, whose clock says anything: fresh it is believed, silent it is not."""
    silent = draw.random() < 0.5
    note = {
        "pid": 7,
        "host": "node-12",
        "since": "2026",
        "started": "1",
        "purpose": "a study",
        "renewed": time.time() + draw.choice(JUMPS),
    }
    for place in (folder / "run" / NAME, folder / "ledger" / "lock.json"):
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(note))
        if silent:
            past = time.time() - FOREIGN_LOCK_S - 60
            os.utime(place, (past, past))
    jump = draw.choice(JUMPS)
    with mock.patch("time.time", partial(_shifted, jump)):
        run, ledger = _asked(lambda: _open_run(folder)), _asked(lambda: _open_ledger(folder))
    wrong = "" if "node-12" in run else f"another machine's run folder was taken: {run!r}"
    if silent and ledger:
        wrong = wrong or f"a machine that fell silent still holds the ledger: {ledger}"
    if not silent and "node-12" not in ledger:
        wrong = wrong or f"another machine's ledger was taken: {ledger!r}"
    return "another machine was believed while it spoke", wrong


def _until_all_tried(folder: Path, number: int) -> str:
    """Hold on until the other two have asked as well, however slow this machine is."""
    (folder / f"tried-{number}").touch()
    deadline = time.monotonic() + 20
    while len(list(folder.glob("tried-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    return ""


def _race(folder: Path, draw: random.Random) -> tuple[str, str]:
    """Several at the same instant: one gets the place."""
    kind = draw.choice(("run", "ledger"))
    at = time.monotonic() + 0.05

    def grab(number: int) -> Any:
        while time.monotonic() < at:
            pass
        try:
            if kind == "run":
                run = RunDir(folder / "run", {"a": 1}, resume=True)
                return ["got", _until_all_tried(folder, number), run.folder.name]
            with Ledger(folder / "ledger").lock("a test"):
                return ["got", _until_all_tried(folder, number)]
        except UsageError as error:
            (folder / f"tried-{number}").touch()
            return ["told", str(error)]

    both = [start(grab, number) for number in range(3)]
    answers = []
    for end, pid in both:
        with os.fdopen(end, "rb") as pipe:
            answers.append(json.loads(pipe.read()))
        os.waitpid(pid, 0)
    got = [a for a in answers if a[0] and a[0][0] == "got"]
    errors = [a[1] for a in answers if a[1]]
    wrong = errors[0][-300:] if errors else "" if len(got) == 1 else f"{len(got)} of 3 got the {kind}: {answers}"
    return "one of three got it", wrong


_SORTS = (_two, _stale, _foreign, _race)


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: one of four sorts, i % 4, drawn from i."""
    tally = Tally()
    for case in cases:
        place = folder / str(case)
        place.mkdir()
        # Apart: a lock that this process holds would be its own to take again.
        ended = apart(_SORTS[case % 4], place, random.Random(case), seconds=60)
        what, wrong = ended.value or ("broken", ended.error[-500:] or "it hung")
        tally.counts[what] += 1
        tally.failures += [f"case {case}: {wrong}"] if wrong else []
    return tally


ROW = Row(
    name="locks", promise="One process works in a run folder or ledger, the others are told which",
    tried="two or three at once, stale and torn locks, locks of other machines, clocks that jump",
    cases=400, short=range(12), piece=100, run=run,
)  # fmt: skip
