"""What the GPU jobs share: arguments, records as JSON lines, a time budget, and pieces that travel.

A record is one line of JSON with the job, the unit it measured, the command, seeds, the fingerprint of the inputs, the
device and the versions. A unit that is recorded is not done again, so that a job that was stopped is started again with
the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for place in (ROOT / "src", ROOT / "benchmarks", ROOT / "benchmarks" / "gpu"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

RESULTS = "results.jsonl"
PACKAGES = "packages"
"""Folder of inputs with Python packages that the machine may lack."""
_PACKAGES = ("torch", "transformers", "peft", "numpy", "safetensors", "sentencepiece", "tokenizers")


class CheckError(Exception):
    """A self-check found something that must not be."""


def verify(holds: bool, what: str) -> str:
    """The fact itself, where it holds.

    Raises:
        CheckError: it does not.
    """
    if not holds:
        raise CheckError(what)
    return what


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Seconds that a job may take, counted from its start.

    Attributes:
        seconds: all of them; infinity for no limit.
        started: by the monotonic clock.
    """

    seconds: float = float("inf")
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, minutes: float) -> Budget:
        """``minutes`` from now; 0 or less for no limit."""
        return cls(seconds=60 * minutes if minutes > 0 else float("inf"))

    @property
    def left(self) -> float:
        """Seconds that remain, not below 0."""
        return max(0.0, self.seconds - (time.monotonic() - self.started))

    @property
    def over(self) -> bool:
        """Whether nothing remains."""
        return self.left <= 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of a job.

    Attributes:
        name: of the script.
        inputs: folder of what it reads; None where it needs nothing.
        out: folder of what it writes.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        budget: when to stop.
        seeds: of everything drawn.
        options: the script's own.
    """

    name: str
    inputs: Path | None
    out: Path
    device: str
    budget: Budget
    seeds: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def done(self) -> dict[str, dict[str, Any]]:
        """The records there are, by unit; a torn last line is left out."""
        found: dict[str, dict[str, Any]] = {}
        path = self.out / RESULTS
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record["job"] == self.name:
                found[record["unit"]] = record
        return found

    def record(self, unit: str, values: Mapping[str, Any], *, data: str | None = None) -> dict[str, Any]:
        """Write one record, on the disk before this returns.

        Args:
            unit: what was measured, unique in the job.
            values: the result.
            data: fingerprint of the data; of all inputs where None.
        """
        line = {
            "job": self.name, "unit": unit, **values, "command": command(), "seeds": list(self.seeds),
            "data": data if data is not None else fingerprint(self.inputs), "device": device_name(self.device),
            "versions": versions(), "time": round(time.time(), 1),
        }  # fmt: skip
        with (self.out / RESULTS).open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that was cut off stays alone
                    file.write(b"\n")
            file.write((json.dumps(line) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        return line


def command() -> str:
    """This process's command line; folders of a machine are shown by their last name."""

    def shown(word: str) -> str:
        return Path(word).name if word.startswith("/") else word

    return shlex.join(["python", *(shown(word) for word in sys.argv)])


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: str) -> str:
    """What the device is called."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"cpu, {os.cpu_count()} cores"


@lru_cache(maxsize=8)
def fingerprint(folder: Path | None) -> str:
    """sha256 over names and contents of all files of a folder, computed once a process; empty for no folder."""
    if folder is None:
        return ""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()


def parser(doc: str) -> argparse.ArgumentParser:
    """The arguments every job takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("inputs", type=Path, nargs="?", help="folder of inputs")
    made.add_argument("out", type=Path, nargs="?", help="folder of results")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    made.add_argument("--minutes", type=float, default=9.0, help="stop cleanly after this long; 0 for no limit")
    made.add_argument("--seeds", type=int, nargs="+", default=[1])
    made.add_argument("--self-check", action="store_true", help="run all of it at toy size on the CPU and verify it")
    return made


def use_inputs(folder: Path) -> None:
    """Let the package find data and carried packages in a folder of inputs."""
    if (folder / "tasks").is_dir():
        os.environ["SOFTPROMPT_DATA"] = str(folder.resolve())
    carried = (folder / PACKAGES).resolve()
    if carried.is_dir() and str(carried) not in sys.path:
        sys.path.append(str(carried))


def job_of(name: str, args: argparse.Namespace, **options: Any) -> Job:
    """The job that parsed arguments ask for; makes its folder of results."""
    if args.inputs is None or args.out is None:
        raise SystemExit(f"{name}: name a folder of inputs and a folder of results, or give --self-check.")
    if not args.inputs.is_dir():
        raise SystemExit(f"{name}: there is no folder {args.inputs}; README.md beside this script says how it is made.")
    args.out.mkdir(parents=True, exist_ok=True)
    use_inputs(args.inputs)
    return Job(
        name=name, inputs=args.inputs, out=args.out, device=chosen_device(args.device), budget=Budget.of(args.minutes),
        seeds=tuple(args.seeds), options=options,
    )  # fmt: skip


def chosen_device(name: str) -> str:
    """``auto`` is CUDA where there is one."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def run(name: str, args: argparse.Namespace, work: Callable[[], None], check: Callable[[Path], Sequence[str]]) -> None:
    """Do the work, or check it at toy size in a temporary folder; ends the process with 1 where a check fails."""
    if not args.self_check:
        work()
        return
    import tempfile

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        try:
            facts = check(Path(folder))
        except CheckError as error:
            print(f"{name}: self-check FAILED: {error}", file=sys.stderr)
            raise SystemExit(1) from error
    for fact in facts:
        print(f"  {fact}")
    print(f"{name}: self-check passed, {len(facts)} facts, {time.monotonic() - started:.1f} s")
