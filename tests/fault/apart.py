"""Work in a process of its own: forked, so that nothing is imported again, bounded in time and memory, and killed at will."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How work ended.

    Attributes:
        value: what it gave, as JSON; None where it gave nothing.
        signal: the signal that killed it; 0 where none did.
        error: its traceback, where it raised.
        late: whether it was killed because its time was up.
        seconds: it took.
    """

    value: Any
    signal: int
    error: str
    late: bool
    seconds: float


def apart(work: Callable[..., Any], *given: Any, seconds: float = 60.0, memory: int | None = None) -> Ended:
    """Run ``work`` in a forked process.

    Args:
        work: gives JSON.
        given: to it.
        seconds: it may take.
        memory: further bytes of address space it may ask for.
    """
    begun = time.monotonic()
    end, pid = start(work, *given, memory=memory)
    data, late = b"", False
    with os.fdopen(end, "rb", buffering=0) as pipe:
        while True:
            left = begun + seconds - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                os.kill(pid, signal.SIGKILL)
                late = True
                break
            piece = pipe.read(1 << 16)
            if not piece:
                break
            data += piece
    _, status = os.waitpid(pid, 0)
    value, error = json.loads(data) if data and not late else (None, "")
    return Ended(value, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, error, late, time.monotonic() - begun)


def start(work: Callable[..., Any], *given: Any, memory: int | None = None) -> tuple[int, int]:
    """Begin ``work`` in a forked process: the end of a pipe that its JSON comes from, and its process number."""
    end, other = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(other)
        return end, pid
    os.close(end)
    try:
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        if memory is not None:
            limit = address_space() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            answer = json.dumps([work(*given), ""])
        except BaseException:
            answer = json.dumps([None, traceback.format_exc()])
        with os.fdopen(other, "wb") as pipe:
            pipe.write(answer.encode())
    finally:
        os._exit(0)


def address_space() -> int:
    """Bytes of address space this process has."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
