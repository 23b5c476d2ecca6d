"""16 processes add and remove, and are killed at random: nothing acknowledged is lost, nothing half-written is seen."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from softprompt.library.record import MANIFEST
from softprompt.library.store import Library

# What a writer acknowledges it appends to its own log, after the call returned.
WRITER = """
import os, sys
from multiprocessing import current_process
import torch
from softprompt.errors import SoftpromptError
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library

torch.set_num_threads(1)

def work(folder, logs, writer):
    library = Library(folder)
    log = os.open(f"{logs}/{writer}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    generator = torch.Generator().manual_seed(writer)
    for i in range(10_000):
        prompt = torch.randn(8, 16, generator=generator)
        record = PromptRecord(task=f"w{writer}", seed=i, prompt=prompt, task_embedding=prompt + 1, backbone_name="tiny",
                              backbone_fingerprint="f" * 64, backbone_kind="t5", versions={})
        library.add(record)
        os.write(log, f"+w{writer}@{i}\\n".encode())
        try:  # everybody wants this name; one wins
            library.add(PromptRecord(task="shared", seed=i, prompt=prompt, backbone_name="tiny", origin=f"w{writer}",
                                     backbone_fingerprint="f" * 64, backbone_kind="t5", versions={}))
            os.write(log, f"+shared@{i}\\n".encode())
        except SoftpromptError:
            pass
        if i % 4 == 3:
            os.write(log, f"?w{writer}@{i - 1}\\n".encode())
            library.remove(f"w{writer}@{i - 1}")
            os.write(log, f"-w{writer}@{i - 1}\\n".encode())
        if i % 8 == 5:
            library.list()  # rewrites the derived caches meanwhile

folder, logs = sys.argv[1:]
for writer in range(16):  # one interpreter start for all: fork after the imports
    pid = os.fork()
    if pid == 0:
        try:
            work(folder, logs, writer)
        finally:
            os._exit(1)
    print(pid, flush=True)
for _ in range(16):
    os.wait()
"""


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    folder, logs = tmp_path / "prompts", tmp_path / "logs"
    logs.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    starter = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(logs)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert starter.stdout is not None
    writers = [int(starter.stdout.readline()) for _ in range(16)]
    draw = random.Random(0)
    draw.shuffle(writers)
    library = Library(folder)
    # The killing starts when there is enough to lose, however slow the machine is.
    deadline = time.monotonic() + 120
    while sum(log.read_text().count("+") for log in logs.iterdir()) <= 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = time.monotonic()
    seen = 0
    for i, pid in enumerate(writers):
        while time.monotonic() - begun < 1.0 + 0.25 * i:
            for name in library.names()[:20]:
                # A reader in the middle of it all: what is listed is whole, or was removed meanwhile.
                if (folder / name / MANIFEST).exists():
                    problems = library.verify([name])
                    assert not problems or not (folder / name / MANIFEST).exists(), problems
                    seen += 1
        time.sleep(draw.random() * 0.05)
        os.kill(pid, signal.SIGKILL)
    starter.wait(timeout=20)
    starter.stdout.close()

    lines = [line for log in sorted(logs.iterdir()) for line in log.read_text().split("\n")[:-1]]
    added = [line[1:] for line in lines if line[0] == "+"]
    in_doubt = {line[1:] for line in lines if line[0] == "?"}  # removal was at least begun
    removed = {line[1:] for line in lines if line[0] == "-"}
    assert len(added) == len(set(added)), "two writers were told that they had won one name"
    assert len(added) > 100
    assert seen > 0
    present = set(library.names())
    assert set(added) - in_doubt <= present, "an acknowledged prompt is lost"
    assert not removed & present, "an acknowledged removal came back"
    assert library.verify() == {}
    assert {entry.name for entry in Library(folder).list()} == present
    assert {entry.name for entry in library.list()} == present
    visible = [name for name in os.listdir(folder) if not name.startswith(".")]
    assert set(visible) == present, "a half-written folder stands there under a prompt's name"
    library.sweep(older_than_s=0)
    assert not [name for name in os.listdir(folder) if name.startswith(".tmp-")]
