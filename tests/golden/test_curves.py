"""Golden loss curves; ``python -m tests.golden.curves`` prints the difference and stores new ones with --write."""

import json

import pytest
from tests.golden.curves import CASES, STORED, curve, name_of


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_curve_has_not_changed(case):
    stored = json.loads(STORED.read_text())
    assert curve(*case) == pytest.approx(stored[name_of(case)], rel=2e-4, abs=2e-5)
