"""Builds ``kernels.c`` once per machine and level with the C compiler at hand, and calls it.

There is always another way: without a compiler, at the level ``torch`` or on another device the same operations are computed
with PyTorch (``ops.py``).

The built file runs in every later process, so it is loaded only where nobody else can have written it: it lies in a folder
that is ours alone, is owned by us, and its name holds the sha256 of its content. One that fails any of this is built again.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.artifacts import cache_folder
from softprompt.backbones.engine.native.levels import Level, in_force

_SOURCE = Path(__file__).with_name("kernels.c")
_INCLUDED = (_SOURCE.with_name("tree.c"), _SOURCE.with_name("linear.c"))
# No -ffast-math: NaN and infinity must come through, so that a run that has gone wrong is stopped.
FLAGS = ("-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-std=gnu11", "-shared", "-fPIC")
_BUILD_SECONDS = 120
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
KINDS = {"relu": 0, "gelu_new": 1, "gelu_pytorch_tanh": 1, "gelu": 2, "silu": 3, "swish": 3}


class Kernels:
    """The compiled kernels of one level.

    Attributes:
        attention: whether it has attention kernels.
        tiles: whether it computes on matrix tiles.
    """

    def __init__(self, c: ctypes.CDLL, level: Level) -> None:
        self._c = c
        self.attention, self.tiles = level.attention, level.name == "amx"
        _ = c.add_rms  # AttributeError where it is something else

    def call(self, name: str, *arguments: Any) -> None:
        """Call a kernel; tensors pass their address, None passes NULL, and the thread count comes last."""
        converted = [_argument(a) for a in arguments]
        getattr(self._c, name)(*converted, ctypes.c_int(torch.get_num_threads()))


def _argument(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p(0)
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


@lru_cache(maxsize=1)
def library() -> Kernels | None:
    """The kernels of the level in force, compiled on first use (seconds) and kept in the user's cache; None without them.

    Raises:
        UsageError: ``SOFTPROMPT_KERNELS`` names a level that this machine does not have.
    """
    level = in_force()
    if level.name == "torch" or (compiler := find_compiler()) is None:
        return None
    try:
        return Kernels(_loaded(compiler, level), level)
    except (OSError, AttributeError, subprocess.SubprocessError):
        return None


def find_compiler() -> str | None:
    """``$CC``, or the first C compiler on the path; None without one."""
    return os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)


def _loaded(compiler: str, level: Level) -> ctypes.CDLL:
    """The kernels from the cache, where what lies there is whole and ours alone, or fresh."""
    identity = _identity(compiler, level)
    with _own_folder(cache_folder("kernels")) as folder:
        if folder is not None:
            if (found := _load_kept(folder, level, identity)) is not None:
                return found
            with contextlib.suppress(OSError):  # a full disk, something in the way
                _build(compiler, level, identity, folder)
            if (found := _load_kept(folder, level, identity)) is not None:
                return found
    with tempfile.TemporaryDirectory(
        prefix="softprompt-kernels-"
    ) as private:  # no cache that is ours: for this process
        built = _build(compiler, level, identity, Path(private))
        return ctypes.CDLL(str(built))


def _identity(compiler: str, level: Level) -> str:
    """16 hex digits of everything the built file depends on."""
    sources = [path.read_text() for path in (_SOURCE, *_INCLUDED)]
    parts = "|".join([*sources, *FLAGS, *level.compiler, compiler])
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[Path | None]:
    """A folder that only we can write into, made where it is missing; None where that cannot be had."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        state = os.fstat(handle)
        if state.st_uid != os.geteuid():
            yield None
            return
        if state.st_mode & _OTHERS_MAY_WRITE:
            os.fchmod(handle, 0o700)
        # By the handle, so that it stays this folder whatever its name comes to mean.
        held = Path(f"/proc/self/fd/{handle}")
        yield held if held.is_dir() else folder
    finally:
        os.close(handle)


def _load_kept(folder: Path, level: Level, identity: str) -> ctypes.CDLL | None:
    """A file of this identity that is ours, whole and loadable; what is not is removed."""
    for name in sorted(os.listdir(folder)):
        match = re.fullmatch(rf"{level.name}-{identity}-([0-9a-f]{{64}})\.so", name)
        if match is None:
            continue
        try:
            handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            handle = -1
        if handle >= 0:
            try:
                if _ours_alone(handle) and _sha256(handle) == match[1]:
                    return ctypes.CDLL(str(folder / name))
            except OSError:
                pass
            finally:
                os.close(handle)
        with contextlib.suppress(OSError):
            os.unlink(folder / name)
    return None


def _ours_alone(handle: int) -> bool:
    state = os.fstat(handle)
    ours = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() and state.st_nlink == 1
    return ours and not state.st_mode & _OTHERS_MAY_WRITE


def _sha256(handle: int) -> str:
    with open(os.dup(handle), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _build(compiler: str, level: Level, identity: str, folder: Path) -> Path:
    """Compile into a folder: whole under a private name first, then renamed to one that holds its sha256."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as part:
        made = Path(part) / "kernels.so"
        command = [compiler, *FLAGS, *level.compiler, str(_SOURCE), "-o", str(made), "-lm"]
        # The folder may be named by a handle of ours, which the compiler must know too.
        handles = [int(folder.name)] if folder.parent == Path("/proc/self/fd") else []
        subprocess.run(command, check=True, capture_output=True, timeout=_BUILD_SECONDS, pass_fds=handles)
        made.chmod(0o600)
        with made.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        target = folder / f"{level.name}-{identity}-{digest}.so"
        os.replace(made, target)
    return target
