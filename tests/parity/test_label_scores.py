"""Label scores against the losses of the same rows with each label as their target, one row at a time."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import KINDS, random_batch, random_prompts, tiny_backbone

from softprompt.backbones import causal_hf, seq2seq
from softprompt.batch import Rows, TokenBatch

WHICH = [0, 1, 2, 0, 1]
LABELS = [["yes", "no"], ["good film", "bad", "true story plot"], [], ["neutral"], ["yes", "yes", "no light"]]


def one_by_one(backbone, batch, stack, candidates) -> list[torch.Tensor]:
    found = []
    for b, answers in enumerate(candidates):
        ids = batch.input_BT[b, : int(batch.input_length_B[b])].tolist()
        prompts = None if stack is None else stack.prompts(Rows(run_B=torch.tensor([WHICH[b]])))
        rows = [-backbone.example_losses(TokenBatch.of([ids], [answer]), prompts).nll_B for answer in answers]
        found.append(torch.cat(rows).detach() if rows else torch.zeros(0))
    return found


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_label_scores_are_log_probabilities(kind: str, prompted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal_hf, "_CANDIDATE_POSITIONS", 60)  # a few candidates at a time
    monkeypatch.setattr(seq2seq, "_CANDIDATE_POSITIONS", 60)
    backbone = tiny_backbone(kind)
    batch = random_batch(backbone, targets=False)
    stack = random_prompts(backbone, tuned=False) if prompted else None
    candidates = [backbone.tokenize_targets(labels) for labels in LABELS]
    prompts = None if stack is None else stack.prompts(Rows(run_B=torch.tensor(WHICH)))
    found = backbone.label_scores(batch, prompts, candidates)
    assert [len(row) for row in found] == [len(labels) for labels in LABELS]
    for row, expected in zip(found, one_by_one(backbone, batch, stack, candidates), strict=True):
        assert row.dtype == torch.float32
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_label_scores_in_bfloat16_are_computed_in_float32(kind: str) -> None:
    backbone = tiny_backbone(kind, dtype=torch.bfloat16, width=64)
    batch, stack = random_batch(backbone, targets=False), random_prompts(backbone, tuned=False)
    candidates = [backbone.tokenize_targets(["yes", "no", "true story"])] * batch.size
    prompts = stack.prompts(Rows(run_B=torch.tensor(WHICH)))
    scores = torch.stack(backbone.label_scores(batch, prompts, candidates))
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())
    whole = tiny_backbone(kind, width=64)
    exact = torch.stack(whole.label_scores(batch, prompts, candidates))
    torch.testing.assert_close(scores, exact, rtol=0.1, atol=0.3)
