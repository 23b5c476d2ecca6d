"""Prompt design: hand-written prompts, Hugging Face's own losses, calibration, and bad input."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.small_tasks import small_task

from softprompt.errors import UsageError
from softprompt.methods.few_shot import CONTENT_FREE, DesignSettings, FewShotPrompt, draw_examples, words_of
from softprompt.methods.prompt_design import prompt_design
from softprompt.tasks.example import Example, Split
from softprompt.tasks.task import Task


def examples(count: int = 6) -> list[Example]:
    return [
        Example(key=f"t/train/{i}", inputs=f"the cat {i}", targets=("yes", "no")[i % 2], extra={"label": i % 2})
        for i in range(count)
    ]


def few_shot(backbone: Any, shown: list[Example], task: Task | None = None, **changes: Any) -> FewShotPrompt:
    return FewShotPrompt(backbone, task or small_task(), shown, DesignSettings(**changes))


def test_a_few_shot_prompt_as_written_by_hand() -> None:
    prompt = few_shot(tiny_backbone("t5"), examples(2), instruction="Is it a cat?")
    assert prompt.text("the dog") == (
        "Is it a cat?\n"
        "\n"
        "the cat 0\n"
        "Answer: yes\n"
        "\n"
        "the cat 1\n"
        "Answer: no\n"
        "\n"
        "the dog\n"
        "Answer:"
    )  # fmt: skip
    assert prompt.text("the dog", 1) == (
        "Is it a cat?\n\nthe cat 0\nAnswer: yes\n\nthe dog\nAnswer:"
    )  # fmt: skip


def test_without_examples_or_instruction_the_row_stands_alone() -> None:
    assert few_shot(tiny_backbone("t5"), []).text("the dog") == "the dog\nAnswer:"


def test_separators_answers_and_label_words_are_free() -> None:
    prompt = few_shot(
        tiny_backbone("t5"), examples(2), separator=" | ", answer=" =>", label_words={"yes": "true", "no": "false"}
    )
    assert prompt.text("the dog") == "the cat 0 => true | the cat 1 => false | the dog =>"


def test_examples_are_drawn_by_seed() -> None:
    split = Split.of("train", examples(20))
    drawn = [e.key for e in draw_examples(split, DesignSettings(shots=6, seed=3))]
    assert drawn == [e.key for e in draw_examples(split, DesignSettings(shots=6, seed=3))]
    assert drawn != [e.key for e in draw_examples(split, DesignSettings(shots=6, seed=4))]
    assert len(set(drawn)) == 6
    balanced = draw_examples(split, DesignSettings(shots=6))
    assert [e.targets for e in balanced] == ["no", "yes"] * 3
    skewed = Split.of(
        "train", [*examples(2), *[dataclasses.replace(e, key=f"x{i}") for i, e in enumerate(examples(20)[::2])]]
    )
    assert sum(e.targets == "no" for e in draw_examples(skewed, DesignSettings(shots=6))) == 1
    plain = draw_examples(split, DesignSettings(shots=6, balanced=False))
    assert len({e.key for e in plain}) == 6


@pytest.mark.parametrize("kind", ["t5", "t5-gated-untied", "encdec", "gpt2", "llama"])
@pytest.mark.parametrize("normalised", [False, True])
def test_label_likelihoods_match_hugging_faces_loss(kind: str, normalised: bool) -> None:
    backbone = tiny_backbone(kind)
    prompt = few_shot(backbone, examples(3), normalised=normalised, label_words={"yes": "yes", "no": "not good"})
    rows = ["the dog sees a tree", "a bird"]
    found = prompt.likelihoods(rows, batch_tokens=90)
    model = backbone.hf_model
    for b, row in enumerate(rows):
        inputs = torch.tensor(backbone.tokenize_inputs([prompt.text(row)])[0])
        for c, word in enumerate(("yes", "not good")):
            target = torch.tensor(backbone.tokenize_targets([word])[0])
            if backbone.kind == "causal":
                labels = torch.cat([torch.full_like(inputs, -100), target])[None]
                loss = model(input_ids=torch.cat([inputs, target])[None], labels=labels).loss
            elif backbone.kind == "t5":
                loss = model(input_ids=inputs[None], labels=target[None]).loss
            else:
                decoder = torch.cat([torch.tensor([backbone.start_id]), target[:-1]])[None]  # type: ignore[attr-defined]
                logits = model(input_ids=inputs[None], decoder_input_ids=decoder).logits[0]
                loss = torch.nn.functional.cross_entropy(logits, target)
            expected = -loss if normalised else -loss * len(target)
            torch.testing.assert_close(found[b, c], expected, rtol=1e-4, atol=1e-4)


def test_the_most_likely_label_is_chosen_and_ties_go_first() -> None:
    prompt = few_shot(tiny_backbone("t5"), examples(2))
    likelihood = torch.tensor([[-1.0, -2.0], [-3.0, -2.0], [-1.0, -1.0]])
    assert prompt.choose(likelihood) == ["yes", "no", "yes"]


def test_calibration_divides_by_content_free_probabilities() -> None:
    """Zhao et al. 2021, equation 1 with W = diag(p)^-1 and b = 0, by hand."""
    backbone = tiny_backbone("t5")
    prompt = few_shot(backbone, examples(2), calibrated=True)
    free = prompt.likelihoods(CONTENT_FREE).exp()
    p_free = (free / free.sum(1, keepdim=True)).mean(0)
    torch.testing.assert_close(prompt.content_free().exp(), p_free)
    rows = [f"the {animal} {word}" for animal in ("cat", "dog", "bird") for word in ("sees", "runs", "eats")]
    likelihood = prompt.likelihoods(rows)
    p = likelihood.exp() / likelihood.exp().sum(1, keepdim=True)
    expected = [("yes", "no")[int(i)] for i in (p / p_free).argmax(1)]
    assert prompt.choose(likelihood) == expected
    biased = likelihood + torch.tensor([0.0, 50.0])
    assert set(few_shot(backbone, examples(2)).choose(biased)) == {"no"}


def test_answers_end_at_the_line_and_words_become_labels() -> None:
    prompt = few_shot(tiny_backbone("t5"), [], label_words={"yes": "true", "no": "false"})
    assert prompt._answer(" True\nnext line") == "yes"
    assert prompt._answer("maybe so") == "maybe so"
    assert prompt._answer("") == ""


def test_a_whole_task_is_answered_both_ways() -> None:
    backbone, task = tiny_backbone("t5"), small_task()
    before = backbone.weights_digest()
    result = prompt_design(backbone, task, DesignSettings(shots=4, calibrated=True))
    assert backbone.weights_digest() == before
    assert result.likelihood is not None
    gold = [e.targets for e in task.split("validation").examples]
    right = sum(p == g for p, g in zip(result.likelihood_predictions, gold, strict=True))
    assert result.likelihood["score"] == pytest.approx(100 * right / len(gold))
    assert set(result.likelihood_predictions) <= {"yes", "no"}
    assert 0 <= result.generation["score"] <= 100
    assert len(result.examples) == 4
    assert all(key.startswith("animals/train/") for key in result.examples)
    again = prompt_design(backbone, task, DesignSettings(shots=4, calibrated=True), batch_tokens=100)
    assert again.likelihood_predictions == result.likelihood_predictions


@pytest.mark.parametrize("kind", ["encdec", "gpt2", "llama"])
def test_other_kinds_of_backbones_answer_too(kind: str) -> None:
    result = prompt_design(tiny_backbone(kind), small_task(), DesignSettings(shots=1))
    assert result.likelihood is not None
    assert len(result.generation_predictions) == 8


def test_a_free_text_task_is_generated_only() -> None:
    task = dataclasses.replace(small_task(), labels=None, metrics=("exact_match", "answer_f1"))
    split = task.split("train")
    rows = [dataclasses.replace(e, extra={"answers": [e.targets]}) for e in split.examples]
    result = prompt_design(
        tiny_backbone("t5"),
        task,
        DesignSettings(shots=2, max_answer_tokens=3),
        validation=Split.of("validation", rows[:4]),
    )
    assert result.likelihood is None
    assert result.likelihood_predictions == []
    assert len(result.generation_predictions) == 4


def test_a_context_too_long_says_how_many_fit() -> None:
    backbone = tiny_backbone("encdec", positions=64)
    task = small_task()
    prompt = few_shot(backbone, examples(6), shots=6)
    rows = ["the dog", "the dog sees a tree near the house"]
    fits = prompt.fitting(rows, 2)
    assert 0 < fits < 6
    longest = max(len(backbone.tokenize_inputs([prompt.text(rows[1], n)])[0]) for n in range(fits + 1))
    assert longest <= 64 < len(backbone.tokenize_inputs([prompt.text(rows[1], fits + 1)])[0])
    with pytest.raises(
        UsageError, match=rf"6 examples of task 'animals' is too long for the 64 tokens .*: {fits} examples fit"
    ):
        prompt.shorten(rows, 2)
    shorter = few_shot(backbone, examples(6), shots=6, fit=True)
    shorter.shorten(rows, 2)
    assert len(shorter.examples) == fits
    with pytest.raises(UsageError, match="not even the longest row alone fits"):
        few_shot(backbone, examples(2), max_tokens=4, fit=True).shorten(rows, 2)
    with pytest.raises(UsageError, match="examples fit"):
        prompt_design(backbone, task, DesignSettings(shots=20))
    assert len(prompt_design(backbone, task, DesignSettings(shots=20, fit=True)).examples) < 20


def test_bad_requests_are_refused() -> None:
    backbone, task = tiny_backbone("t5"), small_task()
    with pytest.raises(
        UsageError, match="label 'no' of task 'animals' has no label word; give --label-word for each of yes, no"
    ):
        words_of(task, backbone, DesignSettings(label_words={"yes": "true"}))
    with pytest.raises(UsageError, match="'maybe', which is no label"):
        words_of(task, backbone, DesignSettings(label_words={"yes": "a", "no": "the", "maybe": "x"}))
    with pytest.raises(UsageError, match="has no tokens"):
        words_of(task, backbone, DesignSettings(label_words={"yes": "\u2603", "no": "no"}))
    with pytest.raises(UsageError, match="have the same tokens"):
        words_of(task, backbone, DesignSettings(label_words={"yes": "no", "no": "no"}))
    with pytest.raises(UsageError, match="25 examples were asked for, and the training split has 24"):
        prompt_design(backbone, task, DesignSettings(shots=25))
    with pytest.raises(UsageError, match="must not be negative"):
        DesignSettings(shots=-1)
