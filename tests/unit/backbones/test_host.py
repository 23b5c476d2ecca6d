"""The host's memory: what is kept for the next step is bounded."""

from __future__ import annotations

from softprompt.backbones.host import KeptMemory, resident_bytes


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
