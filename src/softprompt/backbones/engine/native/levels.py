"""Levels of processor instructions: which this machine has, and which one is in force.

``SOFTPROMPT_KERNELS`` names a level, so that one machine can behave like a lesser one; unset, the best level is in force.

| level | our kernels | PyTorch and its libraries |
|---|---|---|
| ``amx`` | matrix tiles | everything they know |
| ``avx512_bf16`` | 512-bit vectors with bfloat16 products | held to AVX-512 with bfloat16 |
| ``avx2`` | 256-bit vectors | held to AVX2 |
| ``neon`` | 128-bit vectors (arm64 alone) | everything they know |
| ``torch`` | none | everything they know |

PyTorch and oneDNN read their limits when they are first used, so ``import softprompt`` sets them at once (``hold``). Neither
torch nor anything else heavy is imported here.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from softprompt.errors import UsageError

VARIABLE = "SOFTPROMPT_KERNELS"
_AVX2 = ("avx2", "fma")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16")
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of instructions.

    Attributes:
        machines: what ``platform.machine`` says where it can exist; empty for any.
        features: the processor's features it needs, as Linux names them.
        compiler: flags that let the C compiler use them.
        limits: environment variables that hold PyTorch, oneDNN and MKL to the level.
        bfloat16: whether bfloat16 matrices are multiplied in hardware; None for "ask PyTorch".
        attention: whether our attention kernels are compiled.
    """

    name: str
    machines: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    compiler: tuple[str, ...] = ()
    limits: dict[str, str] = field(default_factory=dict)
    bfloat16: bool | None = None
    attention: bool = False


_X86 = ("x86_64", "AMD64")
_WIDE = ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16")
_WIDE_VECTORS = ("-mprefer-vector-width=512",)  # compilers choose 256 bits, which is slower here
LEVELS = {
    level.name: level
    for level in (
        Level(
            name="amx",
            machines=_X86,
            features=(*_AVX512, "amx_tile", "amx_bf16"),
            compiler=(*_WIDE, "-mamx-tile", "-mamx-bf16", *_WIDE_VECTORS),
            bfloat16=True,
            attention=True,
        ),
        Level(
            name="avx512_bf16",
            machines=_X86,
            features=_AVX512,
            compiler=(*_WIDE, *_WIDE_VECTORS),
            limits={"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "ATEN_CPU_CAPABILITY": "avx512"},
            bfloat16=True,
            attention=True,
        ),
        Level(
            name="avx2",
            machines=_X86,
            features=_AVX2,
            compiler=("-mavx2", "-mfma"),
            limits={
                "ONEDNN_MAX_CPU_ISA": "AVX2",
                "ATEN_CPU_CAPABILITY": "avx2",
                "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            },
            bfloat16=False,
        ),
        Level(name="neon", machines=("aarch64", "arm64"), bfloat16=False),
        Level(name="torch"),
    )
}
"""From best to least."""
_CAPABILITY = {"avx512_bf16": "AVX512", "avx2": "AVX2"}  # what torch.backends.cpu.get_cpu_capability then says


@lru_cache
def _told(*names: str) -> str:
    """What Linux tells of the first processor under one of these names; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(names)), "")


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """The processor's features as Linux names them; empty elsewhere."""
    return frozenset(_told("flags", "Features").split())


def _maker() -> str:
    return _told("vendor_id")


def float32_is_faster() -> bool:
    """Whether float32 matrices are multiplied faster than bfloat16 ones, though there are instructions for both.

    So it is on Intel's processors without matrix tiles: the instruction for bfloat16 starts every second cycle, the one for
    float32 twice a cycle.
    """
    return in_force().name == "avx512_bf16" and _maker() == "GenuineIntel"


def processor() -> str:
    """The processor's own name where Linux tells it, else its kind."""
    return _told("model name") or platform.machine()


@lru_cache(maxsize=1)
def available() -> tuple[str, ...]:
    """The levels this machine has, best first; ``torch`` is always one."""
    return tuple(name for name, level in LEVELS.items() if not lacking(level))


def lacking(level: Level) -> tuple[str, ...]:
    """What this machine lacks for a level, in words; empty where it has it."""
    if level.machines and platform.machine() not in level.machines:
        return (f"a processor of kind {level.machines[0]}",)
    missing = tuple(name for name in level.features if name not in features())
    return missing or (("the system's permission for matrix tiles",) if level.name == "amx" and not _tiles() else ())


@lru_cache(maxsize=1)
def _tiles() -> bool:
    """Whether Linux lets this process use the tile registers; asking is what grants them."""
    try:
        return int(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA)) == 0
    except (OSError, AttributeError):
        return False


def in_force() -> Level:
    """The level that ``SOFTPROMPT_KERNELS`` names, or the best one.

    Raises:
        UsageError: an unknown level, one that this machine lacks, or one that was set after PyTorch had begun with a higher.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return LEVELS[available()[0]]
    if named not in LEVELS:
        raise UsageError(
            f"{VARIABLE}={named} names no level of instructions: use one of {', '.join(available())}, or unset it."
        )
    if missing := lacking(LEVELS[named]):
        raise UsageError(
            f"{VARIABLE}={named} was asked for, but this machine lacks {', '.join(missing)}: use one of "
            f"{', '.join(available())}, or unset it."
        )
    _check_held(named)
    return LEVELS[named]


def _check_held(named: str) -> None:
    """PyTorch chooses once: one that was loaded before the limits were set goes beyond them."""
    torch = sys.modules.get("torch")
    wanted = _CAPABILITY.get(named)
    if torch is None or wanted is None or not hasattr(torch, "backends"):
        return
    if (found := torch.backends.cpu.get_cpu_capability()) != wanted:
        raise UsageError(
            f"{VARIABLE}={named} came too late: PyTorch was loaded before softprompt and already computes with {found}. "
            "Import softprompt before torch, or set the variable before Python starts."
        )


def hold() -> None:
    """Set the limits of the level that is asked for, before PyTorch is loaded; a wrong value is left for ``in_force``."""
    level = LEVELS.get(os.environ.get(VARIABLE, ""))
    if level is not None and not lacking(level):
        os.environ.update(level.limits)
