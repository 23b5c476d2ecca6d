"""What ``auto`` means: rates and starts that fit the kind of backbone, saved as numbers."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.support.models import tiny_backbone

from softprompt.errors import UsageError
from softprompt.prompts.init import default_init, initial_prompt
from softprompt.training.recipes import recipe
from softprompt.training.settings import DECODER_RATE, ENCDEC_RATE, TrainSettings


def test_the_rate_of_a_decoder_follows_its_embedding_table() -> None:
    backbone = tiny_backbone("llama")
    found = recipe("quick").resolved(backbone)
    deviation = float(backbone.embedding_table().std())
    assert found.learning_rate == pytest.approx(DECODER_RATE * deviation, rel=0.05)
    assert found.dropout == 0.0
    assert found.resolved(backbone) == found, "resolved twice is resolved once"


@pytest.mark.parametrize("kind", ["t5", "encdec"])
def test_encoder_decoders_keep_their_rate(kind: str) -> None:
    assert recipe("quick").resolved(tiny_backbone(kind)).learning_rate == ENCDEC_RATE


def test_the_papers_recipes_keep_their_rates() -> None:
    backbone = tiny_backbone("t5")
    assert recipe("spot").resolved(backbone).learning_rate == 0.3
    assert recipe("sharpt-source").resolved(backbone).learning_rate == 0.3


@pytest.mark.parametrize("value", ["often", 0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_auto_or_a_number_above_zero(value: object) -> None:
    with pytest.raises(UsageError, match="learning_rate"):
        recipe("quick", learning_rate=value)


def test_auto_is_adam_s() -> None:
    with pytest.raises(UsageError, match="adam"):
        TrainSettings(steps=1, learning_rate="auto")
    with pytest.raises(UsageError, match="auto"):
        _ = recipe("quick").rate


def test_a_decoder_s_prompt_starts_from_the_task_s_words() -> None:
    backbone = tiny_backbone("gpt2")
    text = "the cat sees a dog"
    start = default_init("source", labels=("yes", "no"), kind=backbone.kind, description=text)
    ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt_PH = initial_prompt(backbone, start, len(ids) + 2, seed=1)
    torch.testing.assert_close(prompt_PH[: len(ids)], backbone.embedding_table()[ids])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody typed this text: as much of it as fits
        initial_prompt(backbone, start, 2, seed=1)
    assert start.record() == {"kind": "text", "text": text, "origin": "the task's description"}


def test_other_backbones_start_as_the_papers_do() -> None:
    assert default_init("source", kind="t5", description="x").kind == "sampled-vocabulary"
    assert default_init("scratch", labels=("a",), kind="t5", description="x").kind == "class-labels"
    assert default_init("scratch", labels=("a",), kind="causal").kind == "class-labels"
