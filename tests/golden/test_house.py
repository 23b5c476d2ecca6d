"""The whole way through the house gives what it gave; ``python -m tests.golden.house --write`` stores new results."""

from pathlib import Path

import pytest
from tests.golden.house import WAYS, apart, compare, differences


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * (way in ("quickstart", "study"))) for way in WAYS]
)
def test_the_way_gives_what_it_gave(way: str, tmp_path: Path) -> None:
    found = compare(way, tmp_path)
    assert not found, "\n".join(found[:20])


def test_a_difference_is_seen() -> None:
    import torch

    stored = {"score": 50.0, "curve": [[2, 1.0, 50.0]], "run": "a"}
    assert not differences({"score": 50.0, "curve": [[2, 1.0001, 50.0]], "run": "a"}, stored)
    assert len(differences({"score": 51.0, "curve": [[2, 1.1, 50.0]], "run": "b"}, stored)) == 3
    assert apart(torch.ones(3), torch.tensor([1.0, 1.0, 1.1])) > 5e-3
