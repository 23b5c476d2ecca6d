"""Skills are tuned in units that leave them where rows are: Eq. 4 alone must not collapse the space.

Letters: S encodings, m encoder width, K skills.
"""

from __future__ import annotations

import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.small_tasks import WordEncoder
from torch import Tensor

from softprompt.errors import UsageError
from softprompt.methods.sharpt.recipes import sharpt_recipe
from softprompt.methods.sharpt.start import StartSettings, start_space
from softprompt.methods.sharpt.use import SkillUse, skill_use
from softprompt.prompts.latent import PreparedRows
from softprompt.training.optim import gradient_norm_N, make_optimizer
from softprompt.training.settings import TrainSettings

S, M, K = 1200, 128, 32


def encodings() -> Tensor:
    """Rows of many overlapping kinds in 128 dimensions, most of their spread in a few: as sentence encodings lie."""
    g = torch.Generator().manual_seed(0)
    spectrum_m = torch.arange(1, M + 1, dtype=torch.float32) ** -0.5
    kinds_Km = torch.randn(60, M, generator=g)
    return 0.3 + 0.05 * (kinds_Km[torch.randint(60, (S,), generator=g)] + torch.randn(S, M, generator=g)) * spectrum_m


def after_equation_4(start: StartSettings, settings: TrainSettings, *, steps: int = 400) -> SkillUse:
    """Skill use once E was tuned by ||sg(e0) - e_k|| alone, with the trainer's own optimiser."""
    encoding_Sm, encoder, settings = encodings(), WordEncoder(M), settings.resolved(tiny_backbone("t5"))
    prompts = start_space(
        tiny_backbone("t5"), encoder, encoding_Sm, [0], prompt_length=2, start=start, rate=settings.rate,
    )  # fmt: skip
    tuned = {"skills": prompts.tensors["skills"]}
    optimizer = make_optimizer(tuned, settings.having(warmup_steps=10))
    own_Sm, g = prompts.standardise(encoding_Sm), torch.Generator().manual_seed(1)
    for step in range(steps):
        rows = torch.randperm(S, generator=g)[:32]
        tuned["skills"].grad = None
        prepared = PreparedRows(run_B=torch.zeros(32, dtype=torch.int64), encoding_Bm=own_Sm[rows])
        loss = prompts(prepared).aux_loss_B
        assert loss is not None
        loss.mean().backward()
        optimizer.step(step, gradient_norm_N(tuned))
    return skill_use(prompts, encoding_Sm)


@pytest.mark.parametrize("recipe", [pytest.param("quick", marks=pytest.mark.slow), "balanced"])
def test_the_codebook_loss_alone_keeps_skills_in_use(recipe: str) -> None:
    found = sharpt_recipe(recipe)
    use = after_equation_4(
        StartSettings(skill_count=K, skill_step=found.start.skill_step), found.source.having(batch_size=32)
    )
    assert K - use.dead >= 24, use.sentence()
    assert use.perplexity >= 16, use.sentence()


def test_steps_of_a_standard_deviation_do_collapse_the_space() -> None:
    """What a space tuned in a prompt's units met: the test above can fail."""
    use = after_equation_4(StartSettings(skill_count=K, skill_step=1.12), sharpt_recipe("quick").source)
    assert K - use.dead <= 8, use.sentence()


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("rate", [0.005, 0.3])
def test_a_step_moves_a_skill_alike_whatever_the_rate_and_the_words_size(balanced: bool, rate: float) -> None:
    encoder = WordEncoder()
    texts = [f"{a} {b}" for a in ("cat", "dog", "bird") for b in ("red", "green", "blue")]
    prompts = start_space(
        tiny_backbone("t5"), encoder, encoder.encode(texts), [0], prompt_length=2,
        rate=rate, start=StartSettings(skill_count=3, balanced=balanced),
    )  # fmt: skip
    before = prompts.effective("skills").detach().clone()
    prompts.tensors["skills"].data += rate
    torch.testing.assert_close(prompts.effective("skills").detach() - before, torch.full_like(before, 0.03))


def test_a_step_that_is_no_number_is_refused() -> None:
    for unit in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="skill_step must be above 0"):
            StartSettings(skill_step=unit)
