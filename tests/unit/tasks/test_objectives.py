"""Unsupervised objectives, and documents streamed through them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models import tiny_backbone

from softprompt.errors import UnknownNameError, UsageError
from softprompt.tasks.objectives import chunks, noise_mask, prefix_lm, span_corruption
from softprompt.tasks.preprocessors import prefix_lm as prefix_lm_form
from softprompt.tasks.sources import MemorySource
from softprompt.tasks.streaming import stream_examples, stream_objective
from softprompt.tasks.task import Task

SENTINELS = list(range(999, 899, -1))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_chunks() -> None:
    assert [c.tolist() for c in chunks(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []


def test_prefix_lm_cuts_anywhere_inside() -> None:
    ids = np.arange(5, dtype=np.int32)
    cuts = set()
    for seed in range(100):
        inputs, targets = prefix_lm(ids, rng(seed))
        assert np.concatenate([inputs, targets]).tolist() == ids.tolist()
        cuts.add(len(inputs))
    assert cuts == {1, 2, 3, 4}
    with pytest.raises(UsageError, match="at least 2 tokens"):
        prefix_lm(ids[:1], rng())


@given(st.integers(2, 600), st.integers(0, 10))
def test_noise_masks_have_the_density_and_spans_asked_for(length: int, seed: int) -> None:
    mask = noise_mask(length, rng(seed))
    noise = min(max(round(length * 0.15), 1), length - 1)
    assert mask.sum() == noise
    starts = int(np.sum(mask & ~np.concatenate([[False], mask[:-1]])))
    assert starts == min(max(round(noise / 3), 1), length - noise)
    assert not mask[0]


@given(st.integers(2, 300), st.integers(0, 10))
def test_span_corruption_can_be_undone(length: int, seed: int) -> None:
    ids = np.arange(length, dtype=np.int32)
    inputs, targets = span_corruption(ids, SENTINELS, rng(seed))
    spans: dict[int, list[int]] = {}
    for i in targets.tolist():
        if i in SENTINELS:
            mark = i
            spans[mark] = []
        else:
            spans[mark].append(i)
    # Sentinel k stands in the inputs for span k, and in the targets before it.
    restored: list[int] = []
    for i in inputs.tolist():
        restored += spans[i] if i in SENTINELS else [i]
    assert list(spans) == SENTINELS[: len(spans)]
    assert restored == ids.tolist()


def test_span_corruption_by_hand() -> None:
    ids = np.arange(10, 20, dtype=np.int32)
    inputs, targets = span_corruption(ids, SENTINELS, rng(1), density=0.3)
    assert inputs.dtype == targets.dtype == np.int32
    assert inputs.tolist().count(999) == 1
    assert targets[0] == 999
    assert len(inputs) == 8
    assert len(targets) == 4
    with pytest.raises(UsageError, match="the tokenizer has 1 sentinels"):
        span_corruption(np.arange(100, dtype=np.int32), [7], rng())


def documents() -> Iterator[dict[str, Any]]:
    for i in range(50):
        yield {"text": " ".join(["cat dog red river tree"] * (1 + i % 12))}


SOURCE = MemorySource(splits={"train": documents}, what="documents")


def test_a_stream_of_examples_goes_on_from_any_row() -> None:
    made = Task(
        name="c4",
        category="x",
        labels=None,
        metrics=("exact_text",),
        source=SOURCE,
        form=lambda r: prefix_lm_form(r, prefix=None),
    )
    whole = list(stream_examples(made))
    assert len(whole) == 50
    start = whole[19][0]
    assert [e for _, e in stream_examples(made, start=start)] == [e for _, e in whole[20:]]


@pytest.mark.parametrize("objective", ["prefix_lm", "span_corruption"])
def test_documents_become_pairs_of_ids_that_fit_and_can_be_made_again(objective: str) -> None:
    backbone = tiny_backbone("t5")
    # T5's single span of a short chunk always lies at its end, so span corruption needs longer ones to vary.
    length = 30 if objective == "prefix_lm" else 64
    if objective == "span_corruption" and "<extra_id_0>" not in backbone.tokenizer.get_vocab():
        backbone.tokenizer.add_tokens([f"<extra_id_{k}>" for k in range(20)])
    whole = list(stream_objective(SOURCE, backbone, objective, length=length, seed=3))
    assert len(whole) >= 50
    assert max(len(inputs) for _, inputs, _ in whole) <= length
    end = backbone.tokenize_targets([""], None)[0]
    assert all(targets[-len(end) :].tolist() == end for _, _, targets in whole)
    again = list(stream_objective(SOURCE, backbone, objective, length=length, seed=3, start=10))
    expected = [(n, i.tolist(), t.tolist()) for n, i, t in whole if n > 10]
    assert [(n, i.tolist(), t.tolist()) for n, i, t in again] == expected
    other = list(stream_objective(SOURCE, backbone, objective, length=length, seed=4))
    assert [t.tolist() for _, _, t in other] != [t.tolist() for _, _, t in whole]


def test_wrong_objectives() -> None:
    with pytest.raises(UnknownNameError, match="did you mean prefix_lm"):
        next(stream_objective(SOURCE, tiny_backbone("t5"), "prefixlm"))
    with pytest.raises(UsageError, match="sentinels"):
        next(stream_objective(SOURCE, tiny_backbone("gpt2"), "span_corruption"))
