"""Builds ``kernels.c`` once per machine with the C compiler at hand, and calls it.

There is always another way: without a compiler, with ``SOFTPROMPT_KERNELS=0`` or on another device the same operations are
computed with PyTorch (``ops.py``).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.artifacts import cache_folder

_SOURCE = Path(__file__).with_name("kernels.c")
# No -ffast-math: NaN and infinity must come through, so that a run that has gone wrong is stopped.
_FLAGS = [
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-std=gnu11",
    "-shared",
    "-fPIC",
]
if platform.machine() in ("x86_64", "AMD64"):
    _FLAGS.append("-mprefer-vector-width=512")  # compilers choose 256 bits, which is slower here
_BUILD_SECONDS = 120
KINDS = {"relu": 0, "gelu_new": 1, "gelu_pytorch_tanh": 1, "gelu": 2, "silu": 3, "swish": 3}


class Library:
    """The compiled kernels.

    Attributes:
        tiles: whether attention has its matrix-tile kernel on this machine.
    """

    def __init__(self, path: Path) -> None:
        self._c = ctypes.CDLL(str(path))
        self.tiles = self._c.tiles_allowed() == 0

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
def library() -> Library | None:
    """The kernels of this machine, compiled on first use (seconds) and kept in the user's cache; None without them."""
    if os.environ.get("SOFTPROMPT_KERNELS") == "0":
        return None
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        return None
    try:
        return Library(_built(compiler))
    except (OSError, AttributeError, subprocess.SubprocessError):
        return None


def _built(compiler: str) -> Path:
    """The shared library, from the cache or fresh."""
    cpu = Path("/proc/cpuinfo")
    flags = (
        next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "") if cpu.is_file() else ""
    )
    identity = "|".join([_SOURCE.read_text(), *_FLAGS, compiler, flags])
    name = f"kernels-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    root = cache_folder()
    target = root / name
    if target.is_file():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        part = Path(folder) / name
        command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(part), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=_BUILD_SECONDS)
        part.replace(target)
    return target
