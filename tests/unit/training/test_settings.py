"""Settings refuse what cannot be meant; recipes keep the papers' numbers."""

import pytest
from tests.support.models import tiny_backbone

from softprompt.errors import UnknownNameError, UsageError
from softprompt.training.recipes import RECIPES, recipe
from softprompt.training.settings import TrainSettings


def test_papers_numbers():
    spot = recipe("spot")
    assert (spot.steps, spot.batch_size, spot.prompt_length, spot.learning_rate) == (262_144, 32, 100, 0.3)
    assert (spot.weight_decay, spot.z_loss, spot.eval_every) == (1e-5, 1e-4, 500)
    assert spot.resolved(tiny_backbone("t5")).dropout == 0.1
    assert spot.embedding_step == 10_000
    assert recipe("spot-30k").steps == 30_000
    assert recipe("spot-target").steps == 100_000
    sharpt = recipe("sharpt-source")
    assert (sharpt.steps, sharpt.prompt_length, sharpt.optimizer, sharpt.warmup_steps) == (80_000, 64, "adam", 4_000)
    assert recipe("sharpt-target").steps == 100_000


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_full_settings(name):
    assert isinstance(recipe(name), TrainSettings)


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="learning_rate"):
        recipe("quick", learnin_rate=1.0)
    with pytest.raises(UnknownNameError, match="quick"):
        recipe("quik")
    with pytest.raises(UnknownNameError, match="adam"):
        recipe("quick", optimizer="adm")


@pytest.mark.parametrize(
    "change",
    [{"prompt_length": 0}, {"steps": 0}, {"dropout": 1.0}, {"learning_rate": 0.0}, {"batch_size": -1}, {"z_loss": -1}],
)
def test_impossible_values_are_refused(change):
    with pytest.raises(UsageError):
        recipe("quick", **change)
