"""Initialisers: the official code's rules, seeded."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import tiny_backbone

from softprompt.errors import IncompatibleBackboneError, NonFiniteError, UnknownNameError, UsageError
from softprompt.prompts.init import InitSettings, default_init, initial_prompt, initial_prompts

BACKBONE = tiny_backbone("t5")
TABLE = BACKBONE.embedding_table()


def which_rows(prompt: torch.Tensor) -> list[int]:
    """The vocabulary id of each row, found by equality."""
    matches = (prompt[:, None, :] == TABLE[None]).all(-1)
    assert matches.any(1).all(), "a row is no vocabulary row"
    return matches.int().argmax(1).tolist()


def test_sampled_vocabulary_draws_without_replacement_from_the_first_ids() -> None:
    settings = InitSettings(kind="sampled-vocabulary", sampled_ids=50)
    ids = which_rows(initial_prompt(BACKBONE, settings, 50, seed=0))
    assert sorted(ids) == list(range(50)), "all of them once, pad, eos and unk among them"
    few = which_rows(initial_prompt(BACKBONE, settings, 10, seed=0))
    assert len(set(few)) == 10
    assert InitSettings().sampled_ids == 5000


def test_a_small_vocabulary_is_drawn_whole_and_then_again() -> None:
    size = TABLE.shape[0]
    ids = which_rows(initial_prompt(BACKBONE, InitSettings(), size + 7, seed=1))
    assert sorted(ids[:size]) == list(range(size))
    assert len(set(ids[size:])) == 7


def test_uniform_is_from_zero_to_a_half() -> None:
    prompt = initial_prompt(BACKBONE, InitSettings(kind="uniform"), 200, seed=0)
    assert float(prompt.min()) >= 0.0
    assert float(prompt.max()) < 0.5
    assert float(prompt.mean()) == pytest.approx(0.25, abs=0.01)


def test_class_labels_are_means_of_sub_words() -> None:
    labels = ("entailment", "not entailment", "cat")
    prompt = initial_prompt(BACKBONE, InitSettings(kind="class-labels", labels=labels), 8, seed=3)
    for row, label in zip(prompt, labels, strict=False):
        ids = BACKBONE.tokenizer(label, add_special_tokens=False)["input_ids"]
        assert torch.allclose(row, TABLE[ids].mean(0))
    assert len(BACKBONE.tokenizer("not entailment", add_special_tokens=False)["input_ids"]) > 1
    sampled = initial_prompt(BACKBONE, InitSettings(), 8, seed=3)
    assert torch.equal(prompt[3:], sampled[3:]), "the rest is sampled vocabulary of the same seed"


def test_text_gives_one_row_a_token() -> None:
    ids = BACKBONE.tokenizer("the cat runs near a tree", add_special_tokens=False)["input_ids"]
    settings = InitSettings(kind="text", text="the cat runs near a tree")
    prompt = initial_prompt(BACKBONE, settings, len(ids) + 4, seed=0)
    assert torch.equal(prompt[: len(ids)], TABLE[ids])
    which_rows(prompt)
    with pytest.warns(UserWarning, match=f"the first {len(ids) - 2} are used"):
        short = initial_prompt(BACKBONE, settings, len(ids) - 2, seed=0)
    assert torch.equal(short, TABLE[ids[:-2]])
    with pytest.warns(UserWarning, match="3 class labels do not fit a prompt of 2"):
        initial_prompt(BACKBONE, InitSettings(kind="class-labels", labels=("yes", "no", "cat")), 2, seed=0)


def test_a_given_prompt_is_copied() -> None:
    source = torch.randn(4, BACKBONE.hidden_size)
    prompt = initial_prompt(BACKBONE, InitSettings(kind="prompt", prompt=source), 4, seed=0)
    assert torch.equal(prompt, source)
    prompt[0] = 0
    assert source[0].any()
    named = InitSettings(kind="prompt", prompt=source, origin="mnli@0")
    with pytest.raises(UsageError, match=r"'mnli@0' has 4 tokens and prompt_length is 5.*set prompt_length to 4"):
        initial_prompt(BACKBONE, named, 5, seed=0)
    with pytest.raises(IncompatibleBackboneError, match="width"):
        initial_prompt(BACKBONE, InitSettings(kind="prompt", prompt=torch.randn(4, 3)), 4, seed=0)
    with pytest.raises(NonFiniteError):
        initial_prompt(BACKBONE, InitSettings(kind="prompt", prompt=source / 0), 4, seed=0)


@pytest.mark.parametrize(
    "settings",
    [
        InitSettings(),
        InitSettings(kind="uniform"),
        InitSettings(kind="text", text="a cat"),
        InitSettings(kind="class-labels", labels=("yes",)),
    ],
)
def test_seeds_decide_and_nothing_else(settings: InitSettings) -> None:
    one = initial_prompt(BACKBONE, settings, 6, seed=7)
    torch.manual_seed(99)
    assert torch.equal(one, initial_prompt(BACKBONE, settings, 6, seed=7))
    assert one.dtype == torch.float32
    other = initial_prompt(BACKBONE, settings, 6, seed=8)
    assert not torch.equal(one, other)
    assert torch.equal(initial_prompts(BACKBONE, settings, 6, [7, 8]), torch.stack([one, other]))


def test_roles_have_the_papers_initialisers() -> None:
    assert default_init("source", labels=("a", "b")).kind == "sampled-vocabulary"
    scratch = default_init("scratch", labels=("a", "b"))
    assert (scratch.kind, scratch.labels) == ("class-labels", ("a", "b"))
    assert default_init("scratch").kind == "sampled-vocabulary", "a task without labels"
    transfer = default_init("transfer", prompt=torch.ones(1, 2), origin="mnli@0")
    assert transfer.kind == "prompt"
    assert transfer.record() == {"kind": "prompt", "origin": "mnli@0"}
    with pytest.raises(UnknownNameError, match="did you mean source"):
        default_init("sourc")  # type: ignore[arg-type]


def test_bad_settings_are_one_sentence() -> None:
    with pytest.raises(UnknownNameError, match="did you mean uniform"):
        InitSettings(kind="unifrom")  # type: ignore[arg-type]
    for bad in ({"kind": "class-labels"}, {"kind": "text", "text": " "}, {"kind": "prompt"}):
        with pytest.raises(UsageError, match="initialising from"):
            InitSettings(**bad)
    with pytest.raises(UsageError, match="at least one token"):
        initial_prompt(BACKBONE, InitSettings(), 0, seed=0)
    with pytest.raises(UsageError, match="has no token"):
        initial_prompt(BACKBONE, InitSettings(kind="class-labels", labels=("",)), 2, seed=0)
