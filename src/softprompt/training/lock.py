"""One process in a run folder: the second one is told who works there.

The lock is the system's own (``flock``), so it ends with its process however that ends; the file says who holds it. On
another machine's word alone nothing is taken away: a file system may not carry locks between machines.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

from softprompt.errors import UsageError

NAME = ".lock"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_held: dict[Path, FolderLock] = {}


class FolderLock:
    """Holds a folder until `release`, or until this process ends. Asked for again in this process, it moves to the new holder.

    Args:
        folder: exists.

    Raises:
        UsageError: another process works in it, or may do so on another machine.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder.resolve() / NAME
        earlier = _held.get(self.path)
        if earlier is not None:
            earlier.release()
        self._file: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take(folder)
        except BaseException:
            os.close(self._file)
            self._file = None
            raise
        _held[self.path] = self

    def _take(self, folder: Path) -> None:
        locked = _try_lock(self._descriptor)
        holder = _read(self._descriptor)
        host, pid, since = holder.get("host"), holder.get("pid"), holder.get("since")
        if host is not None and host != socket.gethostname():
            raise UsageError(
                f"{folder} is held by process {pid} on another machine, {host}, since {since}: stop it there, or delete "
                f"{self.path} if it has ended."
            )
        if locked is False or (locked is None and _alive(holder)):
            raise UsageError(
                f"{folder} is in use by process {pid or 'unknown'} on this machine, since {since or 'a moment ago'}: wait "
                "until it ends, stop it, or choose another folder."
            )
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": now, "started": _started(os.getpid())}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(mine).encode(), 0)

    @property
    def _descriptor(self) -> int:
        assert self._file is not None
        return self._file

    def release(self) -> None:
        """Let others in; doing so twice does no harm."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
        with contextlib.suppress(OSError):  # a descriptor is closed whatever its close answers
            os.close(self._file)
        self._file = None
        if _held.get(self.path) is self:
            del _held[self.path]


def _try_lock(file: int) -> bool | None:
    """Whether the lock was got; None where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _BUSY else None
    return True


def _read(file: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError, OSError):
        found = json.loads(os.pread(file, 4096, 0))
        if isinstance(found, dict):
            return found
    return {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote itself down still runs: its number, and when it started, since numbers come again."""
    pid = holder.get("pid")
    return isinstance(pid, int) and pid != os.getpid() and _started(pid) == holder.get("started") is not None


def _started(pid: int) -> str | None:
    """When a process started, in the system's clock ticks; None where that cannot be known or there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
