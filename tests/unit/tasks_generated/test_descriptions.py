"""Decoder-only backbones start prompts from a task's description: every generated task has one in its natural wording."""

from __future__ import annotations

import pytest

from softprompt.tasks.generated import GENERATED


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_a_natural_wording_says_what_the_task_is(name: str) -> None:
    task = GENERATED[name]()
    assert task.description is None, "the papers' form is as it was"
    description = task.worded("natural").description
    assert description is not None
    assert description.endswith(".")
