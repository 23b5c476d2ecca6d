"""How answers are found: generated, or the most probable label."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import random_prompts, tiny_backbone

from softprompt.batch import Rows, TokenBatch
from softprompt.errors import UnknownNameError, UsageError
from softprompt.inference.evaluate import EvalJob, answers, evaluate, scoring_of
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Example, Split
from softprompt.tasks.task import Task
from softprompt.training.recipes import recipe

LABELS = ("yes", "no", "good film")


def small_task(labels: tuple[str, ...] | None = LABELS) -> tuple[Task, Split]:
    texts = ["the cat sees a dog", "one bird", "a red house near the river and the tree", "no", "light"]
    rows = [
        Example(key=f"t/validation/{i}", inputs=t, targets=LABELS[i % 3], extra={"label": i % 3} if labels else {})
        for i, t in enumerate(texts)
    ]
    task = Task(name="t", category="test", labels=labels, metrics=("accuracy",), source=None, form=None)  # type: ignore[arg-type]
    return task, Split.of("validation", rows)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_the_most_probable_label_is_the_answer(kind: str) -> None:
    backbone = tiny_backbone(kind)
    task, split = small_task()
    encoded = encode_split(split, backbone, max_input_tokens=None, max_target_tokens=None)
    stack = random_prompts(backbone, lengths=(3, 5), tuned=False)
    jobs = [EvalJob(run=n, task=task, split=encoded, scoring="labels") for n in range(2)]
    found = answers(backbone, stack, jobs, batch_tokens=24)
    candidates = backbone.tokenize_targets(list(LABELS))
    for n, answered in enumerate(found):
        for i, (text, tokens) in enumerate(answered):
            prompts = stack.prompts(Rows(run_B=torch.tensor([n])))
            losses = [
                float(backbone.example_losses(TokenBatch.of([encoded.inputs(i)], [c]), prompts).nll_B)
                for c in candidates
            ]
            assert text == LABELS[min(range(3), key=losses.__getitem__)]
            assert tokens == len(encoded.inputs(i)) + 5 + sum(map(len, candidates))
    evaluation = evaluate(backbone, stack, jobs)[0]
    assert set(evaluation.predictions) <= set(LABELS)
    assert 0 <= evaluation.scores["score"] <= 100


def test_automatic_scoring_is_by_label_for_decoders_alone() -> None:
    llama, t5 = tiny_backbone("llama"), tiny_backbone("t5")
    assert scoring_of(llama, LABELS, "auto") == "labels"
    assert scoring_of(llama, None, "auto") == "generate"
    assert scoring_of(t5, LABELS, "auto") == "generate"
    assert scoring_of(t5, LABELS, "labels") == "labels"
    with pytest.raises(UsageError, match="without labels"):
        scoring_of(llama, None, "labels")
    with pytest.raises(UnknownNameError, match="generate"):
        scoring_of(llama, LABELS, "generated")  # type: ignore[arg-type]


def test_settings_know_scoring_and_a_dropout_that_the_backbone_decides() -> None:
    plain = recipe("spot")
    assert (plain.scoring, plain.dropout) == ("auto", "auto")
    llama, others = tiny_backbone("llama"), [tiny_backbone("t5"), tiny_backbone("encdec")]
    assert plain.resolved(llama).dropout == 0.0
    assert [plain.resolved(backbone).dropout for backbone in others] == [0.1, 0.1]
    assert plain.having(dropout=0.25).resolved(llama).dropout == 0.25
    for wrong in ("some", 1.0, -0.1, None):
        with pytest.raises(UsageError, match="dropout"):
            plain.having(dropout=wrong)
    with pytest.raises(UnknownNameError, match="scoring"):
        plain.having(scoring="label")
