"""The host's memory: what is kept for the next step is bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.models import save_tiny

from softprompt.backbones.engine.host import KeptMemory, resident_bytes
from softprompt.backbones.load import load_backbone


def _trims(sizes: list[int], left: int) -> list[int]:
    """The steps after which pages are given back, of a process that holds these bytes after its steps and ``left`` once emptied."""
    found: list[int] = []
    held = sizes[0]

    def give_back() -> None:
        nonlocal held
        held = left

    memory = KeptMemory(held=lambda: held, give_back=give_back)
    for step, held in enumerate(sizes):  # noqa: B007
        if memory.bound():
            found.append(step)
    return found


def test_freed_memory_is_given_back_when_the_process_has_doubled() -> None:
    # At first 80 are left. The step after holds 100, so 160 (twice 80) is the most.
    assert _trims([100, 100, 159, 160, 161, 110, 160, 164, 166], left=80) == [0, 4, 8]


def test_what_every_step_takes_anew_is_not_given_back_after_every_step() -> None:
    # Model tuning: 20 stay, and each step takes 50 and frees them again. 75 is the most.
    assert _trims([50] * 9, left=20) == [0]
    assert _trims([50, 50, 60, 74, 76, 50, 60, 75], left=20) == [0, 4]


def test_nothing_is_given_back_where_the_system_does_not_say() -> None:
    memory = KeptMemory(held=lambda: 0, give_back=lambda: (_ for _ in ()).throw(AssertionError))
    assert not any(memory.bound() for _ in range(3))


def test_this_process_holds_something() -> None:
    assert resident_bytes() >= 0


def test_few_kernels_are_kept_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # setenv first: then the test's end puts back what was there.
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    folder = str(save_tiny("t5", tmp_path))
    load_backbone(folder, device="cpu")
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    del os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]
    load_backbone(folder, device="cpu")
    assert 0 < int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 1024
