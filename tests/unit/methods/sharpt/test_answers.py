"""Adapted prompts are read as they were tuned: their wording is kept, labels are scored on decoder-only backbones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.small_tasks import RECIPE, SETTINGS, WordEncoder, adapt, small_data, sources

from softprompt.batch import Rows, TokenBatch
from softprompt.inference.predict import predict
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.method import AdaptedPrompt
from softprompt.methods.sharpt.space import load_space
from softprompt.methods.sharpt.train import untrained_space
from softprompt.tasks.wording import Wording

WORDING = Wording(
    task="fish", form="template", template="fish {text}", columns=("text",), labels=("yes", "no"), metrics=("accuracy",)
)
TEXTS = ["cat red", "dog runs", "cat eats", "dog green"]


def adapted(kind: str, wording: Wording | None) -> tuple[Any, CachedEncoder, AdaptedPrompt]:
    backbone, encoder = tiny_backbone(kind), CachedEncoder(WordEncoder())
    space = untrained_space(backbone, encoder, sources(backbone), RECIPE)
    target = small_data(backbone, "fish")
    target = replace(target, task=replace(target.task, wording=wording))
    (made,) = adapt(backbone, encoder, space, [target], SETTINGS)
    return backbone, encoder, made


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_prompt_keeps_its_wording_and_scores_labels_on_decoders(kind: str, tmp_path: Path) -> None:
    backbone, encoder, made = adapted(kind, WORDING)
    made.space.save(tmp_path / "prompt")
    space = load_space(tmp_path / "prompt")
    assert (space.wording, space.task) == (WORDING.record(), "fish")
    prompter = space.prompter(backbone, encoder)
    found = predict(backbone, prompter, TEXTS, space)
    worded = [f"fish {text}" for text in TEXTS]
    assert predict(backbone, prompter, worded, space, as_is=True) == found
    if kind == "llama":
        rows = Rows(run_B=torch.zeros(4, dtype=torch.int64), inputs=worded)
        labels = backbone.tokenize_targets(["yes", "no"])
        batch = TokenBatch.of(backbone.tokenize_inputs(worded))
        scores = backbone.label_scores(batch, prompter.prompts(rows), [labels] * 4)
        assert [row.label for row in found.rows] == [("yes", "no")[int(row.argmax())] for row in scores]


def test_without_a_wording_texts_are_taken_as_they_are() -> None:
    backbone, encoder, made = adapted("t5", None)
    assert made.space.wording is None
    prompter = made.space.prompter(backbone, encoder)
    as_is = predict(backbone, prompter, ["fish cat"], made.space, as_is=True, max_new_tokens=2)
    assert predict(backbone, prompter, ["fish cat"], made.space, max_new_tokens=2) == as_is
