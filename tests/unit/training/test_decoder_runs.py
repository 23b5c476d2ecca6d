"""Training on a decoder-only backbone: prompts pass the layers once a step, and the promises of every training hold."""

from __future__ import annotations

import pytest
import torch
from tests.support.decoders import tiny_decoder
from tests.support.models import tiny_backbone
from tests.support.words import SETTINGS, examples, prompts, runs_of, train

from softprompt.backbones.base import Backbone
from softprompt.errors import Interrupted
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Split
from softprompt.tasks.splits import EncodedSplit
from softprompt.training.group import Group

AUTO = SETTINGS.having(dropout="auto")


def splits_of(backbone: Backbone) -> tuple[EncodedSplit, EncodedSplit]:
    made = [
        encode_split(Split.of(name, examples(count, seed)), backbone, max_input_tokens=None, max_target_tokens=None)
        for name, count, seed in (("train", 40, 1), ("validation", 24, 2))
    ]
    return made[0], made[1]


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, progress) -> None:
        if progress.step == self.step:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_is_bit_exact(dtype: torch.dtype, tmp_path) -> None:
    backbone = tiny_decoder("llama", dtype=dtype)
    splits, start = splits_of(backbone), prompts(backbone, 2)
    whole = train(backbone, splits, [1, 2], start, AUTO)
    with pytest.raises(Interrupted, match="--resume"):
        train(backbone, splits, [1, 2], start, AUTO, folder=tmp_path / "run", observer=StopAt(3))
    resumed = train(backbone, splits, [1, 2], start, AUTO, folder=tmp_path / "run", resume=True)
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one.final["prompt"], other.final["prompt"])
        assert torch.equal(one.best["prompt"], other.best["prompt"])
        assert one.curve == other.curve


@pytest.mark.parametrize("name", ["llama", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_together_equals_apart_with_shared_prompts(name: str) -> None:
    backbone = tiny_decoder(name, dtype=torch.float64)
    splits, start = splits_of(backbone), prompts(backbone, 3)
    together = train(backbone, splits, [1, 2, 3], start, AUTO)
    for n, seed in enumerate([1, 2, 3]):
        (alone,) = train(backbone, splits, [seed], start[n : n + 1], AUTO)
        torch.testing.assert_close(alone.final["prompt"], together[n].final["prompt"], rtol=1e-5, atol=1e-6)
        assert [r["score"] for r in alone.curve] == [r["score"] for r in together[n].curve]


def test_a_step_computes_each_prompt_once() -> None:
    backbone = tiny_decoder("llama")
    splits, start = splits_of(backbone), prompts(backbone, 2)
    group = Group(
        backbone, PromptStack(start, tuned=True), runs_of(splits, [1, 2]), AUTO.having(micro_batch_tokens=10_000)
    )
    passed: list[int] = []
    run = backbone._through_layers
    backbone._through_layers = lambda x_SH, *rest: passed.append(len(x_SH)) or run(x_SH, *rest)
    group.step()
    taken = [pick for stream in (s.__class__([40], (1.0,), seed) for s, seed in zip(group.streams, (1, 2), strict=True))
             for pick in stream.take(4)]  # fmt: skip
    texts = sum(len(splits[0].inputs(row)) + len(splits[0].targets(row)) - 1 for _, row in taken)
    assert passed == [2 * SETTINGS.prompt_length + texts]


def test_dropout_is_off_by_default_on_decoders_alone() -> None:
    for backbone, rate in ((tiny_decoder("llama"), 0.0), (tiny_backbone("gpt2"), 0.0), (tiny_backbone("t5"), 0.1)):
        group = Group(
            backbone, PromptStack(prompts(backbone, 1), tuned=True), runs_of(splits_of(backbone), [1]), AUTO
        )  # fmt: skip
        assert group.settings.dropout == rate
        assert (group._dropout([(0, 0, 0)]) is None) == (rate == 0.0)
