"""What a run gave, as it stands in files."""

from __future__ import annotations

import pytest

from softprompt.training.runs import RunResult


def test_a_cost_that_is_no_number_is_no_result() -> None:
    plain = RunResult(name="mnli-0", seed=0).plain()
    assert RunResult.of_plain(plain).plain() == plain
    with pytest.raises(TypeError, match="seconds is no number"):
        RunResult.of_plain({**plain, "seconds": "cad8ae6c"})
