"""A failure at every system call of a save: an error there, or the end of the process.

The calls are those that Python makes of the system while state is written (``posix``, files of ``io``): a profile function
sees each before it is made and raises ENOSPC or EIO in its place, or kills the process. What follows must be the state of
before or that of after, whole; where the process lives, one sentence must say what happened.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tests.fault.apart import apart
from tests.fault.campaign import Row, Tally

from softprompt import artifacts
from softprompt.errors import SoftpromptError
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.study.ledger import Ledger, key_of
from softprompt.training import checkpoint
from softprompt.training.run_dir import RunDir
from softprompt.training.runs import RunResult

FAULTS = ("full", "broken", "killed")
_ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO}
_NO_SYSTEM = {"fspath", "getpid", "fsencode", "urandom", "_exit", "kill", "cpu_count", "getuid"}
MOST_CALLS = 85


def prompt(value: int, length: int = 3) -> torch.Tensor:
    return torch.full((length, 4), float(value))


def record(value: int, task: str = "mnli") -> PromptRecord:
    return PromptRecord(
        task=task, seed=0, prompt=prompt(value), task_embedding=prompt(value + 1), backbone_name="tiny",
        backbone_fingerprint="f" * 64, backbone_kind="t5", versions={},
    )  # fmt: skip


class Save:
    """What is saved and what is found: `before` prepares, `save` is tried, `found` gives 0 for before and 1 for after."""

    def before(self, folder: Path) -> None: ...

    def save(self, folder: Path) -> None: ...

    def found(self, folder: Path) -> int:
        raise NotImplementedError


class Checkpoint(Save):
    """The third checkpoint of a training: the first is dropped with it."""

    def before(self, folder: Path) -> None:
        for step in (1, 2):
            checkpoint.save(folder, {"prompt": prompt(step)}, {"step": step})

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, {"prompt": prompt(3)}, {"step": 3})

    def found(self, folder: Path) -> int:
        last = checkpoint.load_last(folder)
        assert last is not None
        step = last[1]["step"]
        assert torch.equal(last[0]["prompt"], prompt(step)), "another step's tensors"
        return int(step) - 2


class Add(Save):
    """A prompt is added to a library that holds another."""

    def before(self, folder: Path) -> None:
        Library(folder).add(record(1, "sst2"))

    def save(self, folder: Path) -> None:
        Library(folder).add(record(2))

    def found(self, folder: Path) -> int:
        library = Library(folder)
        assert not library.verify(), library.verify()
        assert torch.equal(library.get("sst2@0").prompt(), prompt(1))
        names = library.names()
        assert set(names) <= {"sst2@0", "mnli@0"}
        if "mnli@0" in names:
            assert torch.equal(library.get("mnli@0").prompt(), prompt(2))
        return len(names) - 1


class Replace(Save):
    """A prompt takes the place of another."""

    def before(self, folder: Path) -> None:
        Library(folder).add(record(1))

    def save(self, folder: Path) -> None:
        Library(folder).add(record(2), replace=True)

    def found(self, folder: Path) -> int:
        library = Library(folder)
        assert library.names() == ["mnli@0"]
        assert not library.verify(), library.verify()
        stored = library.get("mnli@0")
        value = int(stored.prompt()[0, 0])
        assert torch.equal(stored.task_embedding(), prompt(value + 1)), "the embedding of another prompt"
        return value - 1


class Remove(Save):
    """A prompt is removed."""

    def before(self, folder: Path) -> None:
        Library(folder).add(record(1))

    def save(self, folder: Path) -> None:
        Library(folder).remove("mnli@0")

    def found(self, folder: Path) -> int:
        library = Library(folder)
        assert not library.verify(), library.verify()
        return 1 - len(library.names())


IDENTITY = {"task": "mnli", "seed": 0}


class Cell(Save):
    """A cell of a ledger is finished."""

    def save(self, folder: Path) -> None:
        Ledger(folder).write("sources", key_of(IDENTITY), IDENTITY, {"score": 1.5}, {"prompt": prompt(2)})

    def found(self, folder: Path) -> int:
        ledger, key = Ledger(folder), key_of(IDENTITY)
        if not ledger.has("sources", key):
            return 0
        assert ledger.read("sources", key).result == {"score": 1.5}
        assert torch.equal(ledger.tensors("sources", key)["prompt"], prompt(2))
        return 1


class File(Save):
    """A file of settings is replaced."""

    def before(self, folder: Path) -> None:
        artifacts.write_json(folder / "run.json", {"value": 0}, sealed=True)

    def save(self, folder: Path) -> None:
        artifacts.write_json(folder / "run.json", {"value": 1}, sealed=True)

    def found(self, folder: Path) -> int:
        return int(artifacts.read_json(folder / "run.json")["value"])


class Line(Save):
    """A line of metrics is appended."""

    def before(self, folder: Path) -> None:
        for step in (1, 2):
            artifacts.append_json_line(folder / "metrics.jsonl", {"step": step})

    def save(self, folder: Path) -> None:
        artifacts.append_json_line(folder / "metrics.jsonl", {"step": 3}, durable=True)

    def found(self, folder: Path) -> int:
        lines = artifacts.read_json_lines(folder / "metrics.jsonl")
        assert lines[:2] == [{"step": 1}, {"step": 2}]
        return len(lines) - 2


class Results(Save):
    """A training ends: results are written, and then the checkpoints go."""

    def _open(self, folder: Path) -> RunDir:
        return RunDir(folder / "run", {"a": 1}, resume=True)

    def before(self, folder: Path) -> None:
        checkpoint.save(folder / "run" / "checkpoints", {"prompt": prompt(2)}, {"step": 2})

    def save(self, folder: Path) -> None:
        results = [RunResult(name=f"mnli-{s}", seed=s, status="done", best={"prompt": prompt(s)}) for s in (0, 1)]
        self._open(folder).finish(results)

    def found(self, folder: Path) -> int:
        done = self._open(folder).finished(["mnli-0", "mnli-1"])
        if done is None:
            last = checkpoint.load_last(folder / "run" / "checkpoints")
            assert last is not None, "neither results nor a checkpoint"
            assert torch.equal(last[0]["prompt"], prompt(2))
            return 0
        assert all(torch.equal(r.best["prompt"], prompt(s)) for s, r in enumerate(done))
        return 1


class Exported(Save):
    """An adapter is written in place of another."""

    def _write(self, folder: Path, value: int) -> None:
        from softprompt.library.formats.peft import write_peft

        write_peft(folder / "peft", prompt(value), backbone_name="tiny", backbone_kind="t5", replace=True)

    def before(self, folder: Path) -> None:
        self._write(folder, 0)

    def save(self, folder: Path) -> None:
        self._write(folder, 1)

    def found(self, folder: Path) -> int:
        from softprompt.library.formats.peft import read_peft

        return int(read_peft(folder / "peft").prompt[0, 0])


SAVES: tuple[Save, ...] = (Checkpoint(), Add(), Replace(), Remove(), Cell(), File(), Line(), Results(), Exported())


def is_system_call(function: Any) -> bool:
    """Whether a C function asks something of the system."""
    owner = getattr(function, "__self__", None)
    if getattr(owner, "__name__", "") == "posix" or getattr(function, "__module__", "") == "posix":
        return function.__name__ not in _NO_SYSTEM
    if type(owner).__module__ == "_io" and not isinstance(owner, io.StringIO | io.BytesIO):
        return function.__name__ in (
            "read",
            "write",
            "flush",
            "close",
            "readinto",
            "seek",
            "tell",
            "fileno",
            "truncate",
        )
    return function is open or getattr(function, "__module__", "") == "fcntl"


def interrupted(work: Callable[[], Any], at: int, fault: str) -> int:
    """Do ``work`` with a fault in place of its ``at``-th system call; how many calls there were."""
    count = 0

    def watch(frame: Any, event: str, function: Any) -> None:
        nonlocal count
        if event != "c_call" or not is_system_call(function):
            return
        count += 1
        if count == at:
            if fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(_ERRORS[fault], os.strerror(_ERRORS[fault]))

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def _try(case: int, folder: Path) -> tuple[str, str]:
    """(what happened, what is wrong with it)."""
    kind = SAVES[case % len(SAVES)]
    fault = FAULTS[case // len(SAVES) % len(FAULTS)]
    at = case // (len(SAVES) * len(FAULTS)) + 1
    told = f"case {case} ({type(kind).__name__.lower()}, {fault} at call {at})"
    folder.mkdir()
    kind.before(folder)

    def work() -> Any:
        try:
            return ["saved", interrupted(lambda: kind.save(folder), at, fault)]
        except SoftpromptError as error:
            return ["refused", str(error)]
        except OSError as error:  # of a look before anything was written: the command line makes a sentence of it
            return ["told by the system", str(error)]

    ended = apart(work, seconds=60)
    if ended.error:
        return "", f"{told}: a traceback: {ended.error[-400:]}"
    try:
        found = kind.found(folder)
    except Exception as error:
        return "", f"{told}: afterwards {type(error).__name__}: {error}"
    if ended.signal:
        return f"killed, found {'after' if found else 'before'}", ""
    what, more = ended.value
    if what == "saved":
        if at <= more and fault != "killed" and not found:
            return "", f"{told}: it said that it had saved, and had not"
        return "beyond the last call" if at > more else "the save did without that call", ""
    if what == "told by the system":
        return what, f"{told}: written, and no sentence about it" if found else ""
    if str(folder) not in more or ("full" not in more if fault == "full" else os.strerror(errno.EIO) not in more):
        return "", f"{told}: the error does not say what happened: {more}"
    return f"refused, found {'after' if found else 'before'}", ""


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: save i % 9, fault i // 9 % 3, in place of call i // 27 + 1."""
    tally = Tally()
    for case in cases:
        what, wrong = _try(case, folder / str(case))
        tally.counts[what or "broken"] += 1
        tally.failures += [wrong] if wrong else []
    return tally


ROW = Row(
    name="saves", promise="A save is whole or absent",
    tried="ENOSPC, EIO or the end of the process in place of each system call of nine kinds of saves",
    cases=len(SAVES) * len(FAULTS) * MOST_CALLS, short=range(0, len(SAVES) * len(FAULTS) * MOST_CALLS, 61), piece=230, run=run,
)  # fmt: skip
