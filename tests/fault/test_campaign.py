"""The short form of the campaign: a few cases of every row, in every check."""

from __future__ import annotations

import pytest
from tests.fault.campaign import NAMES, row_of, run_cases

DEAR = ("api",)  # ten seconds for a handful of generated examples


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in DEAR else n for n in NAMES])
def test_no_promise_is_broken(name: str) -> None:
    row = row_of(name)
    tally = run_cases(row, row.short)
    assert not tally.failures, "\n".join(tally.failures[:5])
    assert tally.counts, "no case told what came of it"
