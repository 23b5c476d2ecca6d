"""Which source prompts will help a target, guessed before the money is spent; higher is better, within a target only.

| name                    | predicts by                                                        | after                                        |
|-------------------------|--------------------------------------------------------------------|----------------------------------------------|
| `zero-shot-loss`        | loss of each source prompt on the target's training rows, untuned  | the start of the transfer itself             |
| `few-step-loss`         | the same after a handful of tuning steps, on rows not tuned on     | early curves, as in successive halving       |
| `text-similarity`       | cosine of TF-IDF vectors of the two tasks' inputs                  | a baseline: no model at all                  |
| `data-size`             | log of the source's training rows                                  | a baseline: SPoT section 3.1 on big sources  |

The similarities of task embeddings (SPoT section 3.2) are in `softprompt.library.similarity`.

Letters: S source prompts, P prompt tokens, H width, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import UsageError
from softprompt.library.store import Library
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import EncodedSplit

ROWS = 128
"""Training rows that a loss is estimated on."""
Tune = Callable[[Tensor, EncodedSplit], tuple[Tensor, int]]
"""Tunes S prompts [S, P, H] together on a split; gives them back with the forward-token equivalents it took."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptLosses:
    """Losses of S prompts on the same R rows.

    Attributes:
        nll_SR: float64 [S, R], nats, summed over a row's target tokens.
        tokens_R: int64 [R], target tokens of each row.
        forward_tokens: positions that went through the backbone.
    """

    nll_SR: Tensor
    tokens_R: Tensor
    forward_tokens: int

    def per_token_S(self) -> Tensor:
        """float64 [S], nats a target token."""
        return self.nll_SR.sum(1) / self.tokens_R.sum()


def chosen_rows(split: EncodedSplit, count: int, seed: int) -> list[int]:
    """At most ``count`` rows of a split, drawn without replacement; the same for the same split content and seed."""
    draw = np.random.default_rng([seed, int(split.fingerprint[:8], 16) if _is_hex(split.fingerprint[:8]) else 0])
    return [int(i) for i in draw.permutation(len(split))[:count]]


@torch.no_grad()
def prompt_losses(
    backbone: Backbone, prompts: Sequence[Tensor], split: EncodedSplit, rows: Sequence[int], *, rows_per_pass: int = 64
) -> PromptLosses:
    """Score many prompts on the same rows, prompts mixed within a pass and rows of like length together.

    Args:
        backbone: frozen.
        prompts: S of them, each float [P_s, H], of any length.
        split: the tokenised rows.
        rows: R numbers into it.
        rows_per_pass: rows of a forward pass; two prompts on one row are two rows.

    Raises:
        UsageError: no rows.
    """
    if not rows:
        raise UsageError("prompts cannot be scored on no rows; give at least one.")
    nll_SR = torch.zeros(len(prompts), len(rows), dtype=torch.float64)
    tokens_R = torch.tensor([len(split.targets(i)) for i in rows], dtype=torch.int64)
    if not prompts:
        return PromptLosses(nll_SR=nll_SR, tokens_R=tokens_R, forward_tokens=0)
    stack = PromptStack.of([prompt.to(backbone.device) for prompt in prompts])
    order = sorted(range(len(rows)), key=lambda r: (len(split.inputs(rows[r])), r))
    pairs = [(s, r) for r in order for s in range(len(prompts))]
    forward_tokens = 0
    for begin in range(0, len(pairs), rows_per_pass):
        part = pairs[begin : begin + rows_per_pass]
        inputs = [split.inputs(rows[r]).tolist() for _, r in part]
        targets = [split.targets(rows[r]).tolist() for _, r in part]
        batch = TokenBatch.of(inputs, targets, backbone.device)
        run_B = torch.tensor([s for s, _ in part], dtype=torch.int64, device=backbone.device)
        found = backbone.example_losses(batch, stack(run_B)).nll_B.to("cpu", torch.float64)
        for (s, r), value in zip(part, found.tolist(), strict=True):
            nll_SR[s, r] = value
        forward_tokens += sum(map(len, inputs)) + sum(map(len, targets)) + sum(stack.lengths[s] for s, _ in part)
    return PromptLosses(nll_SR=nll_SR, tokens_R=tokens_R, forward_tokens=forward_tokens)


def zero_shot_losses(
    backbone: Backbone, prompts: Sequence[Tensor], train: EncodedSplit, *, rows: int = ROWS, seed: int = 0
) -> PromptLosses:
    """The loss of each source prompt [P_s, H], untuned, on the same training rows of a target.

    Args:
        backbone: frozen.
        prompts: S of them.
        train: the target's training rows.
        rows: how many of them.
        seed: chooses them.
    """
    return prompt_losses(backbone, prompts, train, chosen_rows(train, rows, seed))


def library_losses(backbone: Backbone, library: Library, names: Sequence[str], train: EncodedSplit) -> dict[str, float]:
    """`zero_shot_losses` of a library's prompts by name, nats a target token."""
    prompts = [library.load(name, backbone).float() for name in names]
    return dict(zip(names, zero_shot_losses(backbone, prompts, train).per_token_S().tolist(), strict=True))


def few_step_losses(
    backbone: Backbone, prompts_SPH: Tensor, train: EncodedSplit, tune: Tune, *, rows: int = ROWS, seed: int = 0
) -> tuple[PromptLosses, int]:
    """The losses after a handful of tuning steps, on rows that were not tuned on, with the cost of the tuning.

    Args:
        backbone: frozen.
        prompts_SPH: the source prompts, of one length.
        train: the target's training rows.
        tune: does the steps.
        rows: held-out training rows the loss is taken on; at most half of them.
        seed: chooses them.

    Raises:
        UsageError: fewer than two rows.
    """
    if len(train) < 2:
        raise UsageError(f"few-step-loss tunes on some training rows and measures on others; there are {len(train)}.")
    held = sorted(chosen_rows(train, min(rows, len(train) // 2), seed))
    rest = train.select(sorted(set(range(len(train))) - set(held)))
    tuned_SPH, cost = tune(prompts_SPH, rest)
    return prompt_losses(backbone, list(tuned_SPH), train, held), cost


def text_similarities(target: Sequence[str], sources: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Cosine of the mean TF-IDF vectors of a target's inputs and of each source task's; the vocabulary is all of theirs."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    groups = [target, *sources.values()]
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform([text for group in groups for text in group])
    ends = np.cumsum([len(group) for group in groups])
    means = [np.asarray(vectors[end - len(g) : end].mean(axis=0)).ravel() for end, g in zip(ends, groups, strict=True)]
    return {name: _cosine(means[0], mean) for name, mean in zip(sources, means[1:], strict=True)}


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale else 0.0


def _is_hex(text: str) -> bool:
    return bool(text) and all(c in "0123456789abcdef" for c in text.lower())
