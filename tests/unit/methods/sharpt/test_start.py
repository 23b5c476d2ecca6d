"""Where spaces and generators start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.small_tasks import WordEncoder

from softprompt.batch import Rows
from softprompt.errors import UnknownNameError, UsageError
from softprompt.methods.sharpt.start import (
    StartSettings,
    kmeans,
    standardisation,
    start_skills,
    start_space,
    word_scale,
)
from softprompt.prompts.latent import LatentSettings

TEXTS = [f"{a} {b}" for a in ("cat", "dog", "bird", "fish") for b in ("red", "green", "blue", "tree", "runs")]


def test_kmeans_finds_separate_clouds() -> None:
    rng = np.random.default_rng(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.from_numpy(rng.standard_normal((3, 40, 2)).astype(np.float32))).flatten(
        0, 1
    )
    found = kmeans(points, 3, np.random.default_rng(1))
    order = torch.cdist(centres, found).argmin(1)
    torch.testing.assert_close(found[order], torch.stack([points[i * 40 : i * 40 + 40].mean(0) for i in range(3)]))


def test_kmeans_with_repeated_points_stays_finite() -> None:
    points = torch.tensor([[1.0, 2.0]]).repeat(6, 1)
    assert torch.equal(kmeans(points, 3, np.random.default_rng(0)), points[:3])


def test_skills_are_seeded() -> None:
    encodings = WordEncoder().encode(TEXTS)
    for init in ("k-means", "sampled", "normal", "random"):
        settings = StartSettings(skill_count=4, skill_init=init)  # type: ignore[arg-type]
        assert torch.equal(start_skills(encodings, settings, 1), start_skills(encodings, settings, 1))
        assert not torch.equal(start_skills(encodings, settings, 1), start_skills(encodings, settings, 2))
    sampled = start_skills(encodings, StartSettings(skill_count=4, skill_init="sampled"), 0)
    assert all((encodings == row).all(1).any() for row in sampled)


def test_standardised_encodings_have_mean_zero_and_unit_spread() -> None:
    encodings = WordEncoder().encode(TEXTS) * 7 + 3
    centre, spread = standardisation(encodings)
    own = (encodings - centre) / spread
    torch.testing.assert_close(own.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert own.square().mean().sqrt().item() == pytest.approx(1.0, abs=1e-5)
    assert standardisation(torch.ones(3, 5))[1] == 1.0


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("task_prompt", [True, False])
def test_prompts_start_at_the_scale_of_words(balanced: bool, task_prompt: bool) -> None:
    backbone = tiny_backbone("t5", width=48)
    encoder = WordEncoder()
    prompts = start_space(
        backbone, encoder, encoder.encode(TEXTS), [0, 1], prompt_length=6,
        start=StartSettings(skill_count=4, balanced=balanced, task_prompt=task_prompt),
    )  # fmt: skip
    batch = prompts.prompts(Rows(run_B=torch.tensor([0, 1] * 10), inputs=TEXTS))
    size = batch.unique_UPH.detach().square().mean().sqrt().item()
    assert 0.7 < size / word_scale(backbone) < 1.6


def test_units_change_no_function() -> None:
    """Balanced or not, the start gives the same prompts: only what a step does differs."""
    backbone, encoder = tiny_backbone("t5"), WordEncoder()
    rows = Rows(run_B=torch.zeros(20, dtype=torch.int64), inputs=TEXTS)
    made = []
    for balanced in (True, False):
        prompts = start_space(
            backbone, encoder, encoder.encode(TEXTS), [3], prompt_length=6,
            start=StartSettings(skill_count=4, balanced=balanced),
        )  # fmt: skip
        batch = prompts.prompts(rows)
        made.append(batch.unique_UPH[batch.which_B].detach())
    torch.testing.assert_close(made[0], made[1], rtol=1e-5, atol=1e-5)


def test_a_balanced_step_moves_a_prompt_entry_by_about_the_rate() -> None:
    backbone, encoder = tiny_backbone("t5", width=48), WordEncoder()
    rows = Rows(run_B=torch.zeros(20, dtype=torch.int64), inputs=TEXTS)
    start = StartSettings(skill_count=4)
    rate = 0.01
    for name in ("position", "w2", "b2", "b1", "w1"):
        prompts = start_space(backbone, encoder, encoder.encode(TEXTS), [3], prompt_length=6, start=start)
        before = prompts.prompts(rows).unique_UPH.detach()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # what Adam does at first: every entry by the rate, in some direction
            value = prompts.tensors[name]
            value += rate * torch.sign(torch.randn(value.shape, generator=generator))
        moved = (prompts.prompts(rows).unique_UPH.detach() - before).abs().max()
        assert moved < 3 * rate, name
        assert moved > 0, name


def test_bad_starts_are_refused() -> None:
    backbone, encoder = tiny_backbone("t5"), WordEncoder()
    with pytest.raises(
        UsageError, match="64 skills were asked for with a k-means start, which has 20 source instances"
    ):
        start_space(backbone, encoder, encoder.encode(TEXTS), [0], prompt_length=4)
    with pytest.raises(UsageError, match="skill_count must be at least 1"):
        StartSettings(skill_count=0)
    with pytest.raises(UnknownNameError, match="k-means"):
        StartSettings(skill_init="kmeans")  # type: ignore[arg-type]


def test_no_space_has_no_skills() -> None:
    backbone, encoder = tiny_backbone("t5"), WordEncoder()
    latent = LatentSettings(latent_space=False)
    prompts = start_space(backbone, encoder, encoder.encode(TEXTS), [0], prompt_length=4, latent=latent)
    assert "skills" not in prompts.tensors
    assert prompts.prompts(Rows(run_B=torch.zeros(20, dtype=torch.int64), inputs=TEXTS)).aux_loss_B is None
