"""docs/reliability.md says what the records of the campaign say."""

from __future__ import annotations

from pathlib import Path

from tests.fault.campaign import filled


def test_the_tables_are_those_of_the_records(repo: Path) -> None:
    page = (repo / "docs" / "reliability.md").read_text()
    assert filled(page) == page, "python scripts/campaign.py --write puts the records' figures in their place"
    assert page.count("| promise |") == 1
