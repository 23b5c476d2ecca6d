"""The folder of one training: settings, metrics as JSON lines, checkpoints, results.

.lock               who works here now, see ``lock.py``
run.json            what the training is (settings, runs, backbone); two trainings never share a folder
metrics.jsonl       one line a validation and run
checkpoints/        the group's state, see ``checkpoint.py``
results/<run>.json  a finished run, with <run>.safetensors beside it
"""

from __future__ import annotations

import contextlib
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, UsageError, short
from softprompt.training import checkpoint
from softprompt.training.lock import FolderLock
from softprompt.training.runs import RunResult


class RunDir:
    """A run directory, opened for one training.

    Args:
        folder: made if it is not there.
        identity: plain JSON of everything the result depends on.
        resume: whether a training that stands there is continued.
        writes: whether this process is the one that writes; the others of a data-parallel training only read.

    Raises:
        UsageError: another process works in the folder, or it holds another training, or this one and ``resume`` was not
            asked for.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes
        wanted = artifacts.parse_json(artifacts.json_bytes(dict(identity)), folder)
        path = folder / "run.json"
        with artifacts.storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if writes:
                self._lock = FolderLock(folder)
                weakref.finalize(self, self._lock.release)
            there = path.exists()
        if there:
            found = artifacts.read_json(path)
            if found != wanted:
                raise UsageError(
                    f"{folder} already holds another run ({_difference(found, wanted)}): choose another folder, or "
                    "repeat the settings it was started with."
                )
            if not resume:
                raise UsageError(
                    f"{folder} already holds this run: add --resume to continue it, or choose another folder."
                )
        else:
            artifacts.write_json(path, wanted)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint, if any, in the shapes it was saved in; metric lines written after it are dropped."""
        found = checkpoint.load_last(self.folder / "checkpoints")
        path = self.folder / "metrics.jsonl"
        if path.exists() and self.writes:
            step = int(found[1]["step"]) if found else -1
            kept = [line for line in artifacts.read_json_lines(path) if line["step"] <= step]
            artifacts.write_bytes(path, b"".join(_line(record) for record in kept))
        return found

    def save(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Write a checkpoint; its tensors may have any shape."""
        if self.writes:
            checkpoint.save(self.folder / "checkpoints", tensors, plain)

    def log(self, records: list[dict[str, Any]]) -> None:
        """Append validation records."""
        for record in records if self.writes else ():
            artifacts.append_json_line(self.folder / "metrics.jsonl", record)

    def finish(self, results: list[RunResult]) -> None:
        """Write every run's result; the checkpoints are no longer needed."""
        if not self.writes:
            return
        for result in results:
            name = artifacts.check_name(result.name.replace(".", "_"), "run name")
            artifacts.write_tensors(self.folder / "results" / f"{name}.safetensors", result.tensors())
            artifacts.write_json(self.folder / "results" / f"{name}.json", result.plain(), sealed=True)
        with contextlib.suppress(OSError):  # the results are whole: what is tidied up now fails no training
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        self._lock.release()

    def finished(self, names: list[str]) -> list[RunResult] | None:
        """The results, if this training was finished before."""
        results = []
        for name in names:
            path = self.folder / "results" / f"{name.replace('.', '_')}.json"
            if not path.exists():
                return None
            result = _result_of(path)
            result.take_tensors(artifacts.read_tensors(path.with_suffix(".safetensors")))
            results.append(result)
        return results


def _result_of(path: Path) -> RunResult:
    try:
        return RunResult.of_plain(artifacts.read_json(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(
            f"{path} does not hold the result of a run: delete its folder and train again."
        ) from error


def _line(record: Mapping[str, Any]) -> bytes:
    import json

    return (json.dumps(record) + "\n").encode()


def _difference(found: Any, wanted: Any, where: str = "") -> str:
    """The first place where two identities differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *found]:
            if found.get(key) != wanted.get(key):
                return _difference(found.get(key), wanted.get(key), f"{where}.{key}" if where else key)
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
            if one != other:
                return _difference(one, other, f"{where}[{i}]")
    return f"{where} is {short(found)}, asked for {short(wanted)}"


def settings_plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain JSON."""
    return asdict(settings)
