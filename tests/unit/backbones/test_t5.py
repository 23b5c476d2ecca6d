"""What is particular to T5: tying by the tensors, activations, memory options, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.models import KINDS, random_batch, random_prompts, save_tiny, tiny_backbone, tiny_t5, tiny_tokenizer

from softprompt.backbones.base import Dropout
from softprompt.backbones.engine.layers import relative_buckets
from softprompt.backbones.load import load_backbone, wrap
from softprompt.batch import Rows
from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.prompts.stack import PromptStack

WHICH = torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("flag", [True, False])
def test_tying_is_read_off_the_tensors_and_not_the_flag(tied: bool, flag: bool, tmp_path: Path) -> None:
    import json

    folder = save_tiny("t5-gated-tied" if tied else "t5-gated-untied", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = flag
    config.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(str(folder), dtype="float32")
    assert backbone.tied is tied
    batch = random_batch(backbone)
    expected = tiny_backbone("t5-gated-tied" if tied else "t5-gated-untied").logits(batch, None)
    torch.testing.assert_close(backbone.logits(batch, None), expected)


@pytest.mark.parametrize("act", ["relu", "gated-silu", "gated-gelu", "gated-relu"])
def test_every_feed_forward_kind_equals_hugging_face(act: str) -> None:
    backbone = wrap(tiny_t5(act=act), tiny_tokenizer("t5"), name="x")
    batch = random_batch(backbone, rows=1)
    start = torch.cat([torch.tensor([0]), batch.target_BD[0, :-1]])[None]
    expected = backbone.hf_model(batch.input_BT, decoder_input_ids=start).logits
    torch.testing.assert_close(backbone.logits(batch, None), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_equal_those_of_transformers(bidirectional: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-400, 400)
    theirs = T5Attention._relative_position_bucket(distance, bidirectional, 32, 128)
    ours = relative_buckets(distance, bidirectional=bidirectional, buckets=32, max_distance=128)
    assert bool((ours == theirs).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_changes_nothing(kind: str, dtype: torch.dtype) -> None:
    found = []
    for on in (False, True):
        backbone = tiny_backbone(kind, dtype=dtype, width=32)
        backbone.checkpointing = on
        batch, stack = random_batch(backbone), random_prompts(backbone)
        dropout = Dropout(rate=0.1, key_B=torch.arange(5))
        losses = backbone.example_losses(batch, stack.prompts(Rows(run_B=WHICH)), dropout)
        losses.nll_B.sum().backward()
        found.append((losses.nll_B.detach(), stack.prompts_NPH.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=0)


def test_long_targets_are_scored_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.backbones.engine import losses as module

    found = []
    for pieces in (512, 2):
        monkeypatch.setattr(module, "_TOKENS_AT_ONCE", pieces)
        backbone = tiny_backbone("t5")
        batch, stack = random_batch(backbone), random_prompts(backbone)
        losses = backbone.example_losses(batch, stack.prompts(Rows(run_B=WHICH)))
        (losses.nll_B + 1e-4 * losses.log_z_sq_B).sum().backward()
        found.append((losses.nll_B.detach(), losses.log_z_sq_B.detach(), stack.prompts_NPH.grad))
    for whole, split in zip(*found, strict=True):
        torch.testing.assert_close(whole, split)


@pytest.mark.parametrize("kind", ["t5", "encdec", "llama"])
def test_a_prompt_of_another_width_is_refused(kind: str) -> None:
    backbone = tiny_backbone(kind)
    batch = random_batch(backbone, rows=2)
    stack = PromptStack(torch.zeros(1, 3, backbone.hidden_size + 1))
    with pytest.raises(IncompatibleBackboneError, match="width"):
        backbone.example_losses(batch, stack.prompts(Rows(run_B=torch.zeros(2, dtype=torch.int64))))


def test_inputs_are_trimmed_and_then_ended() -> None:
    backbone = tiny_backbone("t5")
    (row,) = backbone.tokenize_inputs(["one two three four five six seven"], 4)
    assert len(row) == 4
    assert row[-1] == backbone.end_id
    assert backbone.tokenize_inputs([]) == []
    (whole,) = backbone.tokenize_targets(["one two"])
    assert backbone.decode([whole]) == ["one two"]


def test_rows_with_nothing_in_them() -> None:
    backbone = tiny_backbone("t5")
    batch = random_batch(backbone, rows=2).select(torch.tensor([], dtype=torch.int64))
    assert backbone.example_losses(batch, None).nll_B.shape == (0,)


def test_the_longest_row_is_refused_where_positions_end() -> None:
    backbone = tiny_backbone("encdec", positions=16)
    stack = random_prompts(backbone, lengths=(14,))
    with pytest.raises(UsageError, match="16"):
        backbone.example_losses(random_batch(backbone, rows=1), stack.prompts(Rows(run_B=torch.tensor([0]))))
