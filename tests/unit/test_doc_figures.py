"""Every measured figure of the evidence pages, of sharpt.md and of the README is the one of its committed record."""

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.support.scripts import loaded


@pytest.fixture(scope="module")
def script(repo: Path) -> ModuleType:
    return loaded(repo / "scripts" / "doc_figures.py")


@pytest.fixture(scope="module")
def names(script: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = script.records()
    return found


def test_every_figure_is_that_of_its_record(script: ModuleType, names: dict[str, Any]) -> None:
    wrong = [line for page in script.PAGES for line in script.check(script.ROOT / page, names)]
    assert not wrong, "run python scripts/doc_figures.py\n" + "\n".join(wrong)
    assert all((script.ROOT / page).is_file() for page in script.PAGES)
    evidence = {str(path.relative_to(script.ROOT)) for path in (script.ROOT / "docs").glob("evidence*.md")}
    assert evidence | {"docs/sharpt.md", "README.md", "docs/soft-prompts.md", "docs/ranking.md"} <= set(script.PAGES)


def test_a_wrong_a_missing_and_an_uncovered_figure_are_seen(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    known = {"score": lambda: "71.4 [-0.5, +2.0]"}
    right = "# Page\n\nIt scores 71.4 [\u22120.5, +2.0] at `0.3` in 95 % intervals.\n<!-- figures: score() -->\n"
    for text, told in (
        (right, None),
        (right.replace("71.4", "71.5"), "should have 71.4"),
        (right.replace("+2.0", "-2.0"), "should have +2.0"),
        (right.replace(", +2.0", ""), "its records give ['71.4', '-0.5', '+2.0']"),
        (right + "\n## More\n\nAnd 12 % of it.\n", "line 8: the text has ['12'], its records give []"),
        (right.replace("<!-- figures: score() -->\n", ""), "its records give []"),
    ):
        page.write_text(text)
        wrong = script.check(page, known)
        assert (not wrong) if told is None else (len(wrong) == 1 and told in wrong[0]), (text, wrong)
    page.write_text(right.replace("71.4", "60.0"))
    script.check(page, known, write=True)
    assert "It scores 71.4 [" in page.read_text()


def test_what_counts_as_a_figure(script: ModuleType) -> None:
    text = "T5 1.1 and `1.5`, 8,000 rows, +3 points, 6.2 %, 90 %, k = 3, MiniLM-L6-v2, 1,234.5 and \u22120.4 [link](a-1.5.md)"
    assert script.figures(text) == ["+3", "6.2", "90", "1,234.5", "-0.4"]
    assert (script.one(85.05), script.signed(3.65), script.signed(-0.02)) == ("85.1", "+3.7", "-0.0")


def test_what_adafactors_counter_gave_is_that_of_its_record(repo: Path) -> None:
    lines = (repo / "benchmarks" / "results" / "adafactor_counter.jsonl").read_text().splitlines()
    page = (repo / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for told in map(json.loads, lines):
        means = [float(np.mean(scores)) for scores in (told["scratch"], told["transfer"], told["last"]["scratch"])]
        assert f"| {told['counter']:,} | {' | '.join(f'{mean:.1f}' for mean in means)} |" in page


def test_labels_that_rows_beside_them_change_are_those_of_the_record(repo: Path) -> None:
    lines = (repo / "benchmarks" / "results" / "label_stability.jsonl").read_text().splitlines()
    last = {told["backbone"]: told for told in map(json.loads, lines)}
    page = (repo / "docs" / "backbone.md").read_text(encoding="utf-8")
    for name, told in last.items():
        assert f"{told['changed']} of {told['labels']:,} on `{name}`" in page


def test_the_sweep_of_rates_is_on_its_page(repo: Path) -> None:
    """Every cell of the table in docs/log.md, from the committed records of recipes/decoder_defaults.py."""
    lines = (repo / "benchmarks" / "results" / "decoder_defaults.jsonl").read_text(encoding="utf-8").splitlines()
    start = {"description": "words of the task", "sampled": "sampled vocabulary"}
    wanted = {}
    for line in map(json.loads, lines):
        if line.get("steps") != 60 or line.get("batch_size") != 8:
            continue
        by_task: dict[str, list[float]] = {}
        for run, found in line["runs"].items():
            by_task.setdefault(run.rsplit("-", 1)[0], []).append(found["score"])
        means = [sum(scores) / len(scores) for scores in by_task.values()]
        wanted[start[line["start"]], str(line["units"])] = [f"{v:.1f}" for v in (*means, sum(means) / len(means))]
    page = (repo / "docs" / "log.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (words of the task|sampled vocabulary) \| ([\d.]+) \| ((?:[\d.]+ \| ){3}[\d.]+) \|$", page, re.MULTILINE
    )
    assert {(begun, rate): cells.split(" | ") for begun, rate, cells in rows} == wanted
    assert len(wanted) == 7
