"""Who makes the packs of a study: this process, several local processes, a Ray cluster, or Slurm.

All executors run the same function (`execute`) on the same orders and record in the same ledger, so that results do not
depend on which one ran them. A worker that is lost (killed, out of memory, its node gone) costs its pack the steps since
its last checkpoint: the pack is given out again and continues there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

from softprompt import artifacts
from softprompt.backbones.engine.native.levels import in_force, processor
from softprompt.errors import Interrupted, SoftpromptError, UsageError
from softprompt.study.grid import Pack
from softprompt.study.ledger import Ledger
from softprompt.study.making import Tell
from softprompt.study.runner import DEFAULT_RUNNER, Runner, make_runner
from softprompt.study.settings import study_of

SAVING_S = 30.0
"""How long workers are given to save what they have when a study is stopped."""

OutcomeKind = Literal["done", "failed", "lost", "interrupted", "disk"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """One pack to make, as plain data that can travel.

    Attributes:
        ledger: folder, the same path on every machine that works.
        study: `Study.plain`.
        pack: `Pack.plain`.
        runner: ``module:factory``.
        options: the factory's keyword arguments.
        provenance: recorded with every cell.
    """

    ledger: str
    study: Mapping[str, Any]
    pack: Mapping[str, Any]
    runner: str = DEFAULT_RUNNER
    options: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of the pack."""
        return str(self.pack["key"])


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an order ended.

    Attributes:
        key: of the pack.
        kind: ``done``; ``failed`` (the same would happen again); ``lost`` (worth another try); ``interrupted`` (saved);
            ``disk`` (nothing more can be written).
        message: one sentence; empty when done.
    """

    key: str
    kind: OutcomeKind
    message: str = ""


_RUNNERS: dict[tuple[str, str], Runner] = {}


def execute(order: Order, tell: Tell | None = None) -> Outcome:
    """Make a pack in this process. Errors become outcomes; nothing but a lost process loses them."""
    folder = Path(order.ledger) / "packs" / artifacts.check_name(order.key, "pack key")
    try:
        name = order.runner, str(sorted(order.options.items()))
        runner = _RUNNERS.get(name) or _RUNNERS.setdefault(name, make_runner(order.runner, order.options))
        pack = Pack.of_plain(order.pack)
        with _alone(folder):
            artifacts.write_json(folder / "pack.json", {"pack": order.pack, "study": order.study})
            here = {"host": socket.gethostname(), "processor": processor(), "level": in_force().name}
            story = {**order.provenance, **here, "pid": os.getpid(), "time": time.time()}
            runner.make(study_of(order.study), pack, Ledger(order.ledger), folder / "training", story, tell)
            artifacts.remove_folder(folder)
    except Interrupted as error:
        return Outcome(key=order.key, kind="interrupted", message=str(error))
    except artifacts.StorageError as error:
        return Outcome(key=order.key, kind="disk", message=str(error))
    except SoftpromptError as error:
        return Outcome(key=order.key, kind="failed", message=str(error))
    return Outcome(key=order.key, kind="done")


@contextlib.contextmanager
def _alone(folder: Path, patience_s: float = 60.0) -> Iterator[None]:
    """Hold a pack; an orphan that still saves its checkpoint is waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise UsageError(
                        f"pack {folder.name[:12]} is being made by another process: wait for it."
                    ) from error
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


class Executor(Protocol):
    """Takes orders and says how they ended."""

    slots: int
    """How many orders it works on at a time."""

    def submit(self, order: Order, tell: Tell | None = None) -> None:
        """Take an order; at most ``slots`` are open."""
        ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Orders that ended; waits for one, at most this long."""
        ...

    def stop(self) -> None:
        """Ask open orders to save and stop, and wait until they have."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class SerialExecutor:
    """One pack after the other in this process."""

    slots = 1

    def __init__(self) -> None:
        self._ended: list[Outcome] = []

    def submit(self, order: Order, tell: Tell | None = None) -> None:
        self._ended.append(execute(order, tell))

    def wait(self, timeout_s: float) -> list[Outcome]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Nothing is open between packs; within one, the training heeds the signal itself."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    order: Order | None = None
    tell: Tell | None = None


class ProcessExecutor:
    """Several local processes, each making packs one after the other.

    Args:
        workers: how many.
        devices: one for each worker, e.g. ``cuda:0``; empty where the runner chooses.
        threads: CPU threads of each; 0 shares the machine's evenly.
    """

    def __init__(self, workers: int = 2, devices: Sequence[str] = (), threads: int = 0) -> None:
        if workers < 1:
            raise UsageError(f"workers must be at least 1, got {workers}.")
        self.slots = workers
        self._stopping = False
        self._devices = list(devices)
        self._threads = threads or max(1, (os.cpu_count() or 1) // workers)
        self._context = multiprocessing.get_context("spawn")  # forked processes and torch threads do not mix
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, os.getpid(), self._threads), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process=process, pipe=ours)

    def submit(self, order: Order, tell: Tell | None = None) -> None:
        place = next(i for i, worker in enumerate(self._workers) if worker.order is None)
        worker = self._workers[place]
        if self._devices:
            device = self._devices[place % len(self._devices)]
            order = replace(order, options={**order.options, "device": device})
        worker.order, worker.tell = order, tell
        with contextlib.suppress(BrokenPipeError):  # a dead worker is found by `wait`
            worker.pipe.send(order)

    def wait(self, timeout_s: float) -> list[Outcome]:
        busy = [worker for worker in self._workers if worker.order is not None]
        if not busy:
            return []
        wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout_s)
        return [outcome for worker in busy if (outcome := self._heard(worker)) is not None]

    def _heard(self, worker: _Worker) -> Outcome | None:
        assert worker.order is not None
        key = worker.order.key
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Outcome):
                    worker.order = worker.tell = None
                    return message
                if worker.tell is not None:
                    worker.tell(*message)
        except (EOFError, OSError):
            pass
        if worker.process.is_alive():
            return None
        worker.process.join()
        code = worker.process.exitcode
        outcome = Outcome(key=key, kind="lost", message=f"worker process {worker.process.pid} ended with {code}.")
        worker.order = worker.tell = None
        if not self._stopping:
            worker.pipe.close()
            fresh = self._start()
            worker.process, worker.pipe = fresh.process, fresh.pipe
        return outcome

    def stop(self) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.order is not None and worker.process.is_alive():
                worker.process.terminate()  # the training takes SIGTERM as a request to save and stop
        deadline = time.monotonic() + SAVING_S
        while any(worker.order is not None for worker in self._workers) and time.monotonic() < deadline:
            self.wait(0.5)

    def close(self) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in self._workers:
            worker.process.join(timeout=20)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()


def _serve(pipe: Connection, parent: int, threads: int) -> None:
    """The life of a worker process."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the coordinator, which asks for a stop
    _limit_threads(threads)
    while True:
        try:
            order = pipe.recv()
        except (EOFError, ConnectionError):  # the coordinator is gone
            return
        if order is None:
            return
        pipe.send(execute(order, _throttled(lambda done, total: pipe.send((done, total)))))


def _die_with(parent: int) -> None:
    """Ask the system to send SIGTERM when the coordinator dies, however it dies (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)


def _limit_threads(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def _throttled(tell: Tell, every_s: float = 0.5) -> Tell:
    last = 0.0

    def throttled(done: int, fresh: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            tell(done, fresh)

    return throttled
