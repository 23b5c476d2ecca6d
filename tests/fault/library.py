"""Sixteen writers fill one library, replace and remove, and are killed; readers look all along.

A writer that was killed is started again where it stopped, until each has added 200 prompts. What it was told it writes into
a log of its own; a name is in doubt between the call and the line.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tests.fault.apart import start
from tests.fault.campaign import Row, Tally

from softprompt.errors import DataError, SoftpromptError, UnknownNameError
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library

WRITERS = 16


def _record(writer: int, number: int, version: int, task: str = "") -> PromptRecord:
    prompt = torch.full((2, 4), float(writer * 1000 + number)) + version / 8
    return PromptRecord(
        task=task or f"w{writer}", seed=number, prompt=prompt, task_embedding=prompt + 1, backbone_name="tiny",
        backbone_fingerprint="f" * 64, backbone_kind="t5", versions={}, steps=version,
    )  # fmt: skip


def _write(folder: Path, logs: Path, writer: int, adds: int) -> Any:
    """Add what is not added yet; every third is replaced, every eighth removed; every fifth time a name that all want."""
    library = Library(folder)
    log = os.open(logs / str(writer), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    done = (logs / str(writer)).read_text()

    def told(line: str) -> None:
        os.write(log, f"{line}\n".encode())

    for i in range(adds):
        name = f"w{writer}@{i}"
        if f"={name}\n" in done:
            continue
        try:
            library.add(_record(writer, i, 0))
        except SoftpromptError:
            assert name in library  # added before this writer was killed
        told(f"+{name}")
        if i % 3 == 0:
            told(f"~{name}")
            library.add(_record(writer, i, 1), replace=True)
            told(f"!{name}")
        if i % 5 == 0:  # everybody wants this name; one wins
            with contextlib.suppress(SoftpromptError):
                library.add(_record(writer, i, 0, task="shared"))
                told(f"*shared@{i}")
        if i % 8 == 7:
            told(f"?{name}")
            if name in library:
                library.remove(name)
            told(f"-{name}")
        told(f"={name}")
        if i % 16 == 5:
            library.list()
    return None


def _read(folder: Path, stop: Path) -> Any:
    """Look until told to stop: what is listed loads whole, or was removed meanwhile."""
    library, looks, wrong = Library(folder), 0, []
    draw = random.Random(os.getpid())
    while not stop.exists():
        names = library.names()
        for name in draw.sample(names, min(5, len(names))):
            try:
                stored = library.get(name)
                prompt, first = stored.prompt(), stored.manifest.steps
                key, second = stored.task_embedding(), stored.manifest.steps
            except (UnknownNameError, DataError):
                continue  # removed between the listing and the reading
            except SoftpromptError as error:
                wrong.append(f"{name}: {error}")
                continue
            looks += 1
            if name.startswith("shared"):
                continue
            number = torch.tensor(float(name.partition("@")[0][1:]) * 1000 + int(name.partition("@")[2]))
            # A replacement between the two readings shows in the manifest, and each belongs to the one that it was read with.
            if bool((prompt != number + (first or 0) / 8).any()) or bool((key != number + (second or 0) / 8 + 1).any()):
                wrong.append(f"{name}: the numbers of another prompt")
        library.list()
        wrong += [f"{name}: {told}" for name, told in library.index.problems.items()]
        time.sleep(0.01)
    return [looks, wrong[:5]]


def _round(adds: int, folder: Path, kills: int, seed: int) -> tuple[Counter[str], list[str]]:
    folder.mkdir()
    place, logs, stop = folder / "prompts", folder / "logs", folder / "stop"
    logs.mkdir()
    draw = random.Random(seed)
    readers = [start(_read, place, stop) for _ in range(2)]
    writers = {w: start(_write, place, logs, w, adds) for w in range(WRITERS)}
    killed, errors = 0, []
    while writers:
        time.sleep(draw.random() * 0.1)
        if killed < kills:
            victim = draw.choice(sorted(writers))
            os.kill(writers[victim][1], signal.SIGKILL)
            killed += 1
        for w, (end, pid) in list(writers.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            with os.fdopen(end, "rb") as pipe:
                answer = pipe.read()
            del writers[w]
            if os.WIFSIGNALED(status):
                writers[w] = start(_write, place, logs, w, adds)
            elif b"Traceback" in answer:
                errors.append(f"writer {w}: {answer.decode()[-500:]}")
    stop.touch()
    looks, seen = 0, []
    for end, pid in readers:
        with os.fdopen(end, "rb") as pipe:
            value, error = json.loads(pipe.read())
        os.waitpid(pid, 0)
        errors += [error[-500:]] if error else []
        looks += value[0] if value else 0
        seen += value[1] if value else []
    lines = [line for log in sorted(logs.iterdir()) for line in log.read_text().splitlines()]
    counts = Counter(
        {"adds acknowledged": len({x for x in lines if x[0] == "+"}), "kills": killed, "looks of readers": looks}
    )
    return counts, errors + seen + _lost(place, lines)


def _lost(place: Path, lines: list[str]) -> list[str]:
    library = Library(place)
    by = {sign: {line[1:] for line in lines if line[0] == sign} for sign in "+~!?-=*"}
    present, wrong = set(library.names()), []
    if len(by["*"]) < sum(line[0] == "*" for line in lines):
        wrong.append("two writers were told that they had won one name")
    if gone := by["*"] - present:
        wrong.append(f"won and lost: {sorted(gone)[:3]}")
    if gone := by["+"] - by["?"] - present:
        wrong.append(f"acknowledged and lost: {sorted(gone)[:3]}")
    if back := by["-"] & present:
        wrong.append(f"removed and there: {sorted(back)[:3]}")
    if problems := library.verify():
        wrong.append(f"damaged: {dict(list(problems.items())[:3])}")
    for name in by["!"] & present:
        if library.get(name).manifest.steps != 1:
            wrong.append(f"{name}: a replacement that was acknowledged is lost")
    if {entry.name for entry in library.list()} != present:
        wrong.append("the index says something else than the folders")
    library.sweep(older_than_s=0)
    if left := [name for name in os.listdir(place) if name.startswith(".tmp-")]:
        wrong.append(f"left behind: {left[:3]}")
    return wrong


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: the i-th prompt of each of 16 writers, i below 200; a kill for every fourth case."""
    tally = Tally()
    counts, failures = _round(len(cases), folder / "round", len(cases) // 2, cases[0])
    tally.counts, tally.failures = counts, failures
    return tally


ROW = Row(
    name="library", promise="A library loses nothing that it acknowledged, and shows nothing partial",
    tried="prompts added by each of 16 writers, some replaced or removed, with kills and two readers all along",
    cases=200, short=range(8), piece=40, run=run,
)  # fmt: skip
