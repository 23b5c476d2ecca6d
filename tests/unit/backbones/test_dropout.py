"""Dropout: right in mean and variance, keyed by row and site, blind to the batch."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import KINDS, random_batch, random_prompts, tiny_backbone

from softprompt.backbones.base import Dropout
from softprompt.backbones.engine.dropout import Masks
from softprompt.backbones.engine.packing import Layout
from softprompt.batch import Rows

CPU = torch.device("cpu")


def _channels(keys: torch.Tensor, site: int = 3, width: int = 400, rate: float = 0.1) -> torch.Tensor:
    found = Masks(Dropout(rate=rate, key_B=keys), CPU).channels(site, width)
    assert found is not None
    return found


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_mean_and_variance(rate: float) -> None:
    mask = _channels(torch.arange(1000), rate=rate).double()
    count = mask.numel()
    expected = rate / (1 - rate)  # variance of Bernoulli(1 - rate) / (1 - rate)
    assert abs(float(mask.mean()) - 1) < 5 * (expected / count) ** 0.5
    assert abs(float(mask.var()) / expected - 1) < 0.05
    assert set(mask.unique().tolist()) == {0.0, float(mask.max())}
    # The rate of zeros itself, and by channel: no channel is favoured.
    assert abs(float((mask == 0).double().mean()) - rate) < 5 * (rate * (1 - rate) / count) ** 0.5
    by_channel = (mask == 0).double().mean(0)
    assert float((by_channel - rate).abs().max()) < 6 * (rate * (1 - rate) / 1000) ** 0.5


def test_rows_sites_and_channels_are_independent() -> None:
    mask = (_channels(torch.arange(400), width=300) == 0).double()
    other = (_channels(torch.arange(400), site=4, width=300) == 0).double()
    noise = 5 / (400 * 300) ** 0.5
    for a, b in ((mask, other), (mask[:-1], mask[1:]), (mask[:, :-1], mask[:, 1:]), (mask[:, :-4], mask[:, 4:])):
        correlation = float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))
        assert abs(correlation) < noise


def test_a_row_has_its_own_stream_whatever_its_place() -> None:
    keys = torch.tensor([5, -17, 1 << 60, 8])
    together = _channels(keys)
    for b in range(4):
        torch.testing.assert_close(_channels(keys[b : b + 1]), together[b : b + 1], rtol=0, atol=0)
    assert bool((_channels(keys) == _channels(keys.flip(0)).flip(0)).all())


def test_attention_masks_follow_the_row_and_its_positions() -> None:
    keys = torch.tensor([3, 9])
    both = Masks(Dropout(rate=0.3, key_B=keys), CPU).keys(2, Layout((5, 70), CPU), 4)
    alone = Masks(Dropout(rate=0.3, key_B=keys[1:]), CPU).keys(2, Layout((70,), CPU), 4)
    assert both is not None
    assert alone is not None
    torch.testing.assert_close(both[5:], alone, rtol=0, atol=0)
    assert 0.15 < float((both == 0).double().mean()) < 0.45


@pytest.mark.parametrize("kind", KINDS)
def test_losses_with_dropout_belong_to_the_row(kind: str) -> None:
    backbone = tiny_backbone(kind)
    batch, stack = random_batch(backbone), random_prompts(backbone, tuned=False)
    prompts = stack.prompts(Rows(run_B=torch.tensor([0, 1, 2, 0, 1])))
    dropout = Dropout(rate=0.1, key_B=torch.tensor([11, 12, 13, 14, 15]))
    together = backbone.example_losses(batch, prompts, dropout).nll_B
    plain = backbone.example_losses(batch, prompts).nll_B
    assert bool((together != plain).all())
    for b in range(batch.size):
        row = torch.tensor([b])
        alone = backbone.example_losses(batch.select(row), prompts.select(row), dropout.select(row)).nll_B
        torch.testing.assert_close(alone, together[b : b + 1], rtol=1e-5, atol=1e-5)
    again = backbone.example_losses(batch, prompts, dropout).nll_B
    torch.testing.assert_close(again, together, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_in_the_gradient_is_that_of_the_forward_pass(kind: str) -> None:
    backbone = tiny_backbone(kind, dtype=torch.float64)
    batch, stack = random_batch(backbone, rows=3), random_prompts(backbone, lengths=(3,))
    direction = torch.randn(stack.prompts_NPH.shape)
    dropout = Dropout(rate=0.2, key_B=torch.tensor([1, 2, 3]))

    def loss(shift: float) -> torch.Tensor:
        moved = type(stack)(stack.prompts_NPH.double() + shift * direction.double(), tuned=True)
        found = backbone.example_losses(batch, moved.prompts(Rows(run_B=torch.zeros(3, dtype=torch.int64))), dropout)
        total = found.nll_B.double().sum()
        if shift == 0:
            total.backward()
            return (moved.prompts_NPH.grad * direction).sum().double()
        return total.detach()

    step = 1e-6  # small enough that no ReLU turns on or off between the two
    slope = (loss(step) - loss(-step)) / (2 * step)
    torch.testing.assert_close(loss(0.0), slope, rtol=1e-2, atol=1e-3)


def test_a_rate_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        Masks(Dropout(rate=1.0, key_B=torch.arange(2)), CPU)
