"""Two processes in one run folder: one works, the other is told who does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from softprompt.errors import UsageError
from softprompt.training import lock as module
from softprompt.training.lock import NAME, FolderLock
from softprompt.training.run_dir import RunDir

HOLD = """
import sys, time
from pathlib import Path
from softprompt.training.run_dir import RunDir
held = RunDir(Path(sys.argv[1]), {"a": 1}, resume=True)
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow  # the campaign has it in every check, with processes that are forks
def test_the_second_process_is_told_who_works_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with another_process(folder) as process:
        for resume in (True, False):
            with pytest.raises(UsageError, match=f"in use by process {process.pid} on this machine, since 20"):
                RunDir(folder, {"a": 1}, resume=resume)
        with pytest.raises(UsageError, match="in use by process"):
            RunDir(folder, {"another": 1}, resume=False)
        RunDir(folder, {"a": 1}, resume=True, writes=False)  # a reader of the same training
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads((folder / NAME).read_text())["pid"] == process.pid, "it left its lock behind"
        RunDir(folder, {"a": 1}, resume=True)


def test_a_lock_of_another_machine_is_stated(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps({"pid": 7, "host": "node-12", "since": "2026-01-02T03:04:05+00:00", "started": "1"}))
    with pytest.raises(UsageError, match=r"process 7 on another machine, node-12, since 2026-01-02.* delete .*\.lock"):
        FolderLock(tmp_path)
    path.unlink()
    FolderLock(tmp_path).release()


@pytest.mark.slow
def test_without_locks_of_the_system_the_process_itself_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_try_lock", lambda file: None)
    with another_process(tmp_path / "run") as process:
        with pytest.raises(UsageError, match=f"process {process.pid}"):
            FolderLock(tmp_path / "run")
        written = json.loads((tmp_path / "run" / NAME).read_text())
        (tmp_path / "run" / NAME).write_text(json.dumps({**written, "started": "1"}))  # the number came again
        FolderLock(tmp_path / "run").release()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}', "\x00" * 10_000])
def test_what_is_no_lock_holds_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    FolderLock(tmp_path).release()


def test_the_same_process_may_come_again(tmp_path: Path) -> None:
    first = RunDir(tmp_path / "run", {"a": 1}, resume=False)
    again = RunDir(tmp_path / "run", {"a": 1}, resume=True)
    assert (tmp_path / "run" / NAME).read_text()
    again.finish([])
    assert (tmp_path / "run" / NAME).read_text() == ""
    del first
