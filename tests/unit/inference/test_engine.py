"""Mixed batches answer as single requests do, whatever the prompt, its length, or the neighbours."""

import pytest
import torch
from tests.support.models import corpus, random_prompts, tiny_backbone

from softprompt.batch import Rows, TokenBatch
from softprompt.errors import UnknownNameError, UsageError
from softprompt.inference.engine import Engine, Request, Served, from_library
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.prompts.stack import PromptStack


@pytest.fixture(scope="module", params=["t5", "encdec", "llama"])
def backbone(request):
    return tiny_backbone(request.param)


@pytest.fixture
def library(backbone, tmp_path):
    library = Library(tmp_path / "library")
    generator = torch.Generator().manual_seed(0)
    for task, length in (("alpha", 3), ("beta", 6), ("gamma", 1)):
        library.add(
            PromptRecord(
                task=task,
                prompt=torch.randn(length, backbone.hidden_size, generator=generator),
                backbone_name=backbone.name,
                backbone_fingerprint=backbone.fingerprint,
                backbone_kind=backbone.kind,
            )
        )
    return library


def requests():
    names = ["alpha@0", "beta@0", None, "gamma@0", "alpha@0", None, "beta@0"]
    return [
        Request(prompt=name, text=text, max_new_tokens=2 + i % 3)
        for i, (name, text) in enumerate(zip(names, corpus(len(names), 5), strict=True))
    ]


def test_mixed_answers_equal_single_ones(backbone, library):
    engine = Engine(backbone, from_library(library, backbone), batch_tokens=60)
    together = engine.answer(requests())
    for request, answer in zip(requests(), together, strict=True):
        assert engine.answer([request]) == [answer]
        assert answer.prompt == request.prompt


def test_an_unknown_prompt_offers_names(backbone, library):
    engine = Engine(backbone, from_library(library, backbone))
    with pytest.raises(UnknownNameError, match="alpha@0"):
        engine.answer([Request(prompt="alpa@0", text="a film")])


def test_too_long_a_text_is_refused(library, backbone):
    if backbone.max_length is None:
        pytest.skip("relative positions have no limit")
    engine = Engine(backbone, from_library(library, backbone))
    with pytest.raises(UsageError, match="shorten the text"):
        engine.answer([Request(prompt="beta@0", text="film " * 500)])


def test_the_least_recently_used_prompt_leaves(backbone, library):
    prompt_bytes = 9 * 4 * backbone.hidden_size  # alpha and beta
    engine = Engine(backbone, from_library(library, backbone), prompt_bytes=prompt_bytes)
    first = engine.prompter("alpha@0")
    engine.prompter("beta@0")
    assert engine.prompter("alpha@0") is first
    engine.prompter("gamma@0")
    assert engine.prompter("alpha@0") is first
    engine.prompter("beta@0")  # beta has left and comes again: alpha or gamma goes
    assert engine.prompter("beta@0") is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["t5", "umt5", "encdec", "llama", "gpt2"])
def test_rows_that_join_and_leave_are_answered_as_alone(kind, dtype):
    backbone = tiny_backbone(kind, dtype=dtype)
    prompts = random_prompts(backbone, (3, 6, 1), tuned=False)
    texts = corpus(9, 7)
    ids = backbone.tokenize_inputs(texts)
    depths = [1 + (5 * i) % 11 for i in range(9)]

    def batch(rows):
        return TokenBatch.of([ids[r] for r in rows]), prompts.prompts(Rows(run_B=torch.tensor([r % 3 for r in rows])))

    alone = [backbone.generate(*batch([r]), depths[r])[0] for r in range(9)]
    written, order, decoding = {r: [] for r in range(9)}, [], None

    def take(rows, tokens):
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                written[row].append(token)
        return [
            i
            for i, (r, t) in enumerate(zip(rows, tokens, strict=True))
            if t is not None and len(written[r]) < depths[r]
        ]

    for arriving in ([0, 1, 2], [], [3], [4, 5], [], [], [6, 7, 8], *[[]] * 12):
        if decoding is not None:
            decoding.advance()
            stay = take(order, decoding.tokens)
            order = [order[i] for i in stay]
            decoding.keep(stay) if stay else None
            decoding = decoding if stay else None
        if arriving:
            begun = backbone.decoding(*batch(arriving), max(depths[r] for r in arriving))
            stay = take(arriving, begun.tokens)
            if stay:
                begun.keep(stay)
                order += [arriving[i] for i in stay]
                decoding.join(begun) if decoding is not None else None
                decoding = decoding or begun
    assert not order
    assert [written[r] for r in range(9)] == alone


def test_prompts_whose_own_keys_are_alike_are_not_taken_for_one_another():
    """Two SharPT spaces both call a prompt ``0/skill-3``; what is remembered of one is never the other's."""
    backbone = tiny_backbone("llama")
    stacks = [PromptStack(torch.randn(1, 5, backbone.hidden_size), keys=["0/skill-3"]) for _ in range(2)]

    def answers(key):
        engine = Engine(backbone, lambda name: Served(prompter=stacks[int(name)], key=key(name)))
        asked = [Request(prompt=name, text=text, max_new_tokens=8) for name in "0101" for text in corpus(3, 5)]
        return [answer.text for one in asked for answer in engine.answer([one])]

    remembered = answers(lambda name: f"space-{name}")
    assert remembered == answers(lambda name: None)
    assert remembered[:3] != remembered[3:6]
