"""Subsets of rows hold whole groups where a metric judges groups: MultiRC's questions are never cut through."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from softprompt.inference.evaluate import halves, seeded_rows
from softprompt.tasks.catalog import DECLARATIONS, make
from softprompt.tasks.sources import MemorySource
from softprompt.tasks.task import Task


def questions(count: int) -> Task:
    """MultiRC with ``count`` questions of two to eleven answers each."""
    rows: list[dict[str, Any]] = [
        {"paragraph": "P.", "question": f"Q{q}?", "answer": f"A{a}", "label": a % 2, "idx": {"paragraph": q // 5, "question": q, "answer": 100 * q + a}}
        for q in range(count)
        for a in range(2 + q % 10)
    ]  # fmt: skip
    return make(DECLARATIONS["multirc"], MemorySource(splits={"validation": rows}))


def mostly_right(task: Task, examples: Any) -> list[str]:
    """Answers of which three in four are right, drawn independently."""
    draw = np.random.default_rng(0)
    words = task.labels or ()
    return [e.targets if draw.random() < 0.75 else words[1 - words.index(e.targets)] for e in examples]


def test_exact_match_of_a_subset_is_that_of_the_whole() -> None:
    task = questions(800)
    whole = task.split("validation").examples
    answers = dict(zip([e.key for e in whole], mostly_right(task, whole), strict=True))

    def exact(rows: Any) -> float:
        return task.score([answers[e.key] for e in rows], rows)["group_em"]

    full = exact(whole)
    assert full < 30
    subset = task.split("validation", max_rows=1500, seed=3).examples
    assert 1450 <= len(subset) <= 1500
    rows = seeded_rows(len(whole), 1500, 0, task.groups(whole))
    assert 1450 <= len(rows) <= 1500
    first, second = halves(len(whole), 0, task.groups(whole))
    assert exact(subset) == pytest.approx(full, abs=4)
    assert exact([whole[int(r)] for r in rows]) == pytest.approx(full, abs=4)
    for half in (first, second):
        assert exact([whole[int(r)] for r in half]) == pytest.approx(full, abs=4)
    assert exact([whole[int(r)] for r in seeded_rows(len(whole), 1500, 0)]) > full + 10  # rows drawn alone inflate it


def test_no_group_is_cut() -> None:
    task = questions(60)
    whole = task.split("validation").examples
    groups = task.groups(whole)
    sizes = Counter(groups)
    subset = task.split("validation", max_rows=50, seed=1).examples
    assert all(sizes[group] == count for group, count in Counter(task.groups(subset)).items())
    for seed in range(5):
        rows = seeded_rows(len(whole), 50, seed, groups)
        assert all(sizes[group] == count for group, count in Counter(groups[int(r)] for r in rows).items())
        first, second = halves(len(whole), seed, groups)
        assert not {groups[int(r)] for r in first} & {groups[int(r)] for r in second}
        assert sorted([*first, *second]) == list(range(len(whole)))
    assert len(task.split("validation", max_rows=1).examples) in sizes.values()
    few, more = (task.split("validation", max_rows=most, seed=2).examples for most in (40, 90))
    assert {e.key for e in few} < {e.key for e in more}


def test_rows_that_are_judged_alone_are_drawn_as_before() -> None:
    rows = np.random.default_rng(np.random.SeedSequence([7, 100])).permutation(100)[:30]
    assert (seeded_rows(100, 30, 7) == np.sort(rows)).all()
    assert (seeded_rows(100, 30, 7, [str(i) for i in range(100)]) == np.sort(rows)).all()
    order = np.random.default_rng(np.random.SeedSequence([7, 101, 2])).permutation(101)
    first, second = halves(101, 7)
    assert (first == np.sort(order[:50])).all()
    assert (second == np.sort(order[50:])).all()
