"""``torchrun -m softprompt train``: several processes, one run directory, one library, one answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.cli import make_tasks
from tests.support.models import save_tiny

from softprompt.library.store import Library


def launched(folder: Path, out: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """``train`` under torchrun with two processes."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "softprompt", "train", "--task", str(folder / "tasks" / "mood"), "--backbone", str(folder / "model")),
        *(
            "--out",
            str(folder / out),
            "--steps",
            "4",
            "--prompt-length",
            "3",
            "--batch-size",
            "3",
            "--set",
            "eval_every=2",
        ),
        *("--set", "embedding_step=2", "--dtype", "float32", "--device", "cpu", "--json", *flags),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


@pytest.mark.slow
def test_two_processes_leave_one_prompt_and_speak_once(tmp_path: Path) -> None:
    save_tiny("t5", tmp_path / "model")
    make_tasks(tmp_path / "tasks", "mood")
    scores = []
    for out, flags in (("plain", ()), ("shards", ("--sharded", "--checkpointing"))):
        done = launched(tmp_path, out, *flags)
        assert done.returncode == 0, done.stderr[-2000:]
        answer = json.loads(done.stdout)  # one document: the other process is silent
        (name,) = [row["name"] for row in answer["prompts"]]
        stored = Library(tmp_path / out / "library").get(name)
        assert stored.manifest.recipe["precision"] == "float32"
        assert stored.manifest.recipe["peak_memory_bytes"] > 1 << 20
        assert done.stderr.count("backbone ") == 1
        scores.append(stored.manifest.score)
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_shards_in_a_single_process_are_refused(tmp_path: Path) -> None:
    save_tiny("t5", tmp_path / "model")
    make_tasks(tmp_path / "tasks", "mood")
    command = [
        *(sys.executable, "-m", "softprompt", "train", "--task", str(tmp_path / "tasks" / "mood"), "--sharded"),
        *("--backbone", str(tmp_path / "model"), "--out", str(tmp_path / "run"), "--steps", "2"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "torchrun" in done.stderr
