"""Micro-batches of token ids for one optimiser step: a pure function of settings, corpus, step and rank.

Nothing is kept between steps, so a resumed run sees exactly the batches it would have seen.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedded_backbone.corpus import Corpus
from embedded_backbone.model import IGNORED, TokenBatch
from embedded_backbone.objectives import NO_SLOT, Example, ask, draft, prefix_lm, settle, span_corruption
from embedded_backbone.questions import Question

Teacher = Callable[[Sequence[tuple[str, str]]], list[float]]
_FREE_ROWS = (0, 0, 0, 0, 0, 4, 16, 16, 20, 32)
_SLOT_ROWS = (0, 0, 0, 0, 0, 0, 4, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coder:
    """Text to ids and back for one model.

    Attributes:
        tokenizer: a Hugging Face tokenizer.
        inputs_limit: most input tokens; a longer example is left out.
        targets_limit: most target tokens; a longer target is cut.
        slot_rows: rows of a slot prompt; 0 where there are no slots.
    """

    tokenizer: Any
    inputs_limit: int
    targets_limit: int
    slot_rows: int

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the tokenizer's own end marks ([CLS] … [SEP], or … </s>)."""
        coded: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=True)["input_ids"]
        return coded

    def targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Target ids: no start mark, one end mark."""
        start = self.tokenizer.cls_token_id
        coded = [ids[1:] if start is not None and ids[:1] == [start] else ids for ids in self.ids(texts)]
        return [ids if len(ids) <= self.targets_limit else ids[: self.targets_limit] for ids in coded]


def reading_examples(
    rng: random.Random, corpus: Corpus, teacher: Teacher | None, count: int, *, telling: float, short: float
) -> list[Example]:
    """``count`` examples of the reading mixture; ``teacher`` scores the pairs whose label hangs on likeness."""
    drafts = [draft(rng, corpus, telling=telling, short=short) for _ in range(count)]
    pairs = [d.question.pair for d in drafts if d.question is not None and d.question.pair is not None]
    scores = iter(teacher(pairs) if teacher is not None and pairs else [])
    examples: list[Example] = []
    for one in drafts:
        if one.example is not None:
            examples.append(one.example)
            continue
        asked: Question | Example | None = one.question
        if one.question is not None and one.question.pair is not None:
            score = next(scores, None)
            asked = None if score is None else settle(rng, one.question, score)
        if asked is not None:
            examples.append(asked if isinstance(asked, Example) else ask(rng, asked))
    return examples


def reading_batches(
    rng: random.Random, coder: Coder, examples: Sequence[Example], *, micro: int, learn: float = 1.0
) -> list[tuple[TokenBatch, list[str]]]:
    """Examples of like length together, with slots and without apart, each batch with the kinds it holds.

    Args:
        learn: share of the batches with slots in which the slots take a gradient.
    """
    inputs, targets = coder.ids([e.inputs for e in examples]), coder.targets([e.targets for e in examples])
    kept = [at for at in range(len(examples)) if len(inputs[at]) <= coder.inputs_limit]
    batches = []
    for slotted in (False, True):
        group = sorted((at for at in kept if (examples[at].slot != NO_SLOT) == slotted), key=lambda at: len(inputs[at]))
        parts = max(1, round(len(group) / micro))
        for part in range(parts):
            rows = group[part * len(group) // parts : (part + 1) * len(group) // parts]
            if rows:
                extra = rng.choice(_SLOT_ROWS) if slotted else rng.choice(_FREE_ROWS)
                prompt = coder.slot_rows + extra if slotted and coder.slot_rows else extra if coder.slot_rows else 0
                slots = [examples[at].slot for at in rows]
                batch = pad(
                    [inputs[at] for at in rows], [targets[at] for at in rows], coder, slots, prompt, rng.getrandbits(31)
                )
                batch = dataclasses.replace(batch, slots_learn=slotted and rng.random() < learn)
                batches.append((batch, [examples[at].kind for at in rows]))
    return batches


def span_batches(
    rng: random.Random, coder: Coder, corpus: Corpus, count: int, *, micro: int, prefix: bool, noise: float
) -> list[tuple[TokenBatch, list[str]]]:
    """T5's span corruption, or its prefix-LM adaptation, on chunks of ``inputs_limit`` tokens."""
    length = coder.inputs_limit
    chunks = [ids[:-1] for ids in coder.ids([corpus.text(rng)[: length * 12] for _ in range(count)])]
    sentinels = [coder.tokenizer.convert_tokens_to_ids(f"<extra_id_{at}>") for at in range(100)]
    end = coder.tokenizer.eos_token_id
    pairs = []
    for ids in chunks:
        start = int(rng.random() * max(1, len(ids) - length))
        part = ids[start : start + length - 1]
        if len(part) > 8:
            source, target = (
                prefix_lm(rng, part) if prefix else span_corruption(rng, part, sentinels=sentinels, noise=noise)
            )
            pairs.append(([*source, end], [*target, end][: coder.targets_limit]))
    batches = []
    for at in range(0, len(pairs), micro):
        group = pairs[at : at + micro]
        batch = pad([p[0] for p in group], [p[1] for p in group], coder, [NO_SLOT] * len(group), 0, 0)
        batches.append((batch, ["prefix" if prefix else "span"] * len(group)))
    return batches


def pad(
    inputs: Sequence[list[int]],
    targets: Sequence[list[int]],
    coder: Coder,
    slots: list[int],
    prompt_rows: int,
    seed: int,
) -> TokenBatch:
    """Right-padded tensors; the input length rounded up to a multiple of eight."""
    width = -(-max(map(len, inputs)) // 8) * 8
    depth = max(map(len, targets))
    ids = torch.full((len(inputs), width), int(coder.tokenizer.pad_token_id))
    mask = torch.zeros_like(ids)
    labels = torch.full((len(inputs), depth), IGNORED)
    for row, (source, target) in enumerate(zip(inputs, targets, strict=True)):
        ids[row, : len(source)] = torch.tensor(source)
        mask[row, : len(source)] = 1
        labels[row, : len(target)] = torch.tensor(target)
    return TokenBatch(
        ids_BT=ids, mask_BT=mask, labels_BD=labels, slot_B=torch.tensor(slots), prompt_rows=prompt_rows, seed=seed
    )


def candidate_words(
    batches: Sequence[TokenBatch], always: Tensor, vocabulary: int, extra: int, seed: int
) -> Tensor | None:
    """The words [C] that targets are scored against: those of the batches, ``always``, and ``extra`` drawn ones."""
    if extra <= 0:
        return None
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, vocabulary, (extra,), generator=generator)
    gold = [batch.labels_BD[batch.labels_BD != IGNORED] for batch in batches]
    words: Tensor = torch.unique(torch.cat([*gold, always, drawn]))
    return words
