"""Skill use, collapse and task relations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.small_tasks import WordEncoder

from softprompt.errors import DataError, UsageError
from softprompt.methods.sharpt.relations import relations, task_representation
from softprompt.methods.sharpt.use import SkillWatch, skill_use
from softprompt.prompts.latent import GENERATOR, LatentPrompts, LatentSettings

M, H, P = 2, 3, 2


def prompts_with(skills: list[list[float]]) -> LatentPrompts:
    shapes = {"position": (1, P, H), "w1": (1, H, M), "b1": (1, H), "w2": (1, H, H), "b2": (1, H)}
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    tensors["skills"] = torch.tensor([skills])
    return LatentPrompts(tensors, WordEncoder(M), tuned=("skills", *GENERATOR))


AT = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]])


def test_use_counts_rows() -> None:
    use = skill_use(prompts_with([[0.0, 0.0], [5.0, 5.0], [99.0, 99.0]]), AT)
    assert use.counts == (2, 2, 0)
    assert use.dead == 1
    assert use.perplexity == pytest.approx(2.0)
    assert use.distance == pytest.approx(0.5)
    assert not use.collapsed
    assert use.sentence() == "2 of 3 skills used, perplexity 2.0, 1 dead"


def test_collapse_is_named() -> None:
    use = skill_use(prompts_with([[99.0, 99.0], [2.0, 2.0]]), AT)
    assert use.collapsed
    assert "collapsed: skill 1 takes 100 % of the rows" in use.sentence()
    assert not skill_use(prompts_with([[2.0, 2.0]]), AT).collapsed


def test_use_is_measured_at_the_start_now_and_then_and_at_the_end() -> None:
    log: list[dict[str, Any]] = []
    prompts = prompts_with([[0.0, 0.0], [99.0, 99.0]])
    prompts.watch = SkillWatch(AT, names=["a"], every=10, last=25, log=log.append)
    for step in range(26):
        prompts.after_step(step)
    assert [record["step"] for record in log] == [0, 10, 20, 25]
    assert (log[0]["run"], log[0]["used"], log[0]["dead"]) == ("a", 1, 1)
    assert prompts.tensors["skills"][0, 1].tolist() == [99.0, 99.0]


def test_keep_takes_the_runs_along() -> None:
    watch = SkillWatch(AT, names=["a", "b"], every=3, last=9, log=print).keep([1])
    assert (watch.names, watch.every, watch.last) == (("b",), 3, 9)


def test_relations_are_cosines_of_average_one_hots() -> None:
    prompts = prompts_with([[0.0, 0.0], [5.0, 5.0], [50.0, 50.0]])
    near, far, mixed = AT[:2], AT[2:], torch.cat([AT[:2], AT[2:3]])
    found = relations(prompts, {"near": near, "far": far}, {"mixed": mixed, "near": near})
    assert found.use["mixed"] == pytest.approx((2 / 3, 1 / 3, 0.0))
    expected = torch.tensor([[2 / 5**0.5, 1.0], [1 / 5**0.5, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found.cosine_AB, expected)
    assert found.nearest("mixed")[0][0] == "near"
    assert found.plain()["cosine"][0][1] == pytest.approx(1.0)
    assert found.rows == {"near": 2, "far": 2, "mixed": 3}


def test_bad_requests() -> None:
    prompts = prompts_with([[0.0, 0.0]])
    with pytest.raises(DataError, match="without rows"):
        task_representation(prompts, torch.zeros(0, 2))
    bare = LatentPrompts(
        {n: t for n, t in prompts.tensors.items() if n != "skills"},
        WordEncoder(M),
        settings=LatentSettings(latent_space=False),
    )
    with pytest.raises(UsageError, match="no skills to count"):
        skill_use(bare, AT)
    with pytest.raises(UsageError, match="at least 1"):
        SkillWatch(AT, names=[], every=0, last=1, log=print)
