"""The host's memory: what is kept for the next step is bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.models import save_tiny

from softprompt.backbones.engine.host import KeptMemory, resident_bytes
from softprompt.backbones.load import load_backbone


def test_freed_memory_is_given_back_when_the_process_has_doubled() -> None:
    sizes, given = [100, 80, 150, 161, 70, 159, 161, 90], []
    memory = KeptMemory(held=lambda: sizes.pop(0), give_back=lambda: given.append(len(sizes)))
    # At first 80 are left; 161 is more than twice that, and 70 are left: the floor never falls.
    assert [memory.bound() for _ in range(5)] == [True, False, True, False, True]
    assert len(given) == 3
    assert not sizes


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
