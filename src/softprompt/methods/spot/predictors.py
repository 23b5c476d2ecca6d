"""Which source prompts will help a target, predicted before the money is spent. One interface, each way named and sourced.

| name                    | predicts by                                                        | after                                        |
|-------------------------|--------------------------------------------------------------------|----------------------------------------------|
| `similarity-per-token`  | per-token average cosine of task embeddings                        | SPoT section 3.2                             |
| `similarity-average`    | cosine of average tokens of task embeddings                        | SPoT section 3.2                             |
| `zero-shot-loss`        | loss of each source prompt on the target's training rows, untuned  | the start of the transfer itself             |
| `few-step-loss`         | the same after a handful of tuning steps                           | early curves, as in successive halving        |
| `text-similarity`       | cosine of TF-IDF vectors of the two tasks' inputs                  | a baseline: no model at all                  |
| `data-size`             | log of the source's training rows                                  | a baseline: SPoT section 3.1 on big sources  |

Higher is better for all of them; values are comparable within a target only. A combination of them, fitted without the
target it is used for, is in `softprompt.methods.spot.judging`, with the measures they are judged by.

Letters: S candidates (source prompts), P prompt tokens, H width, R rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import UsageError
from softprompt.library.similarity import Metric, similarity_matrix
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import EncodedSplit

ROWS = 128  # training rows a loss is estimated on


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A source prompt that might be transferred.

    Attributes:
        name: in the library.
        task: it was tuned on.
        prompt: float [P, H]; needed by the losses.
        task_embedding: float [P, H]; needed by the similarities.
        train_rows: training rows of its task; needed by ``data-size``.
        texts: some inputs of its task; needed by ``text-similarity``.
    """

    name: str
    task: str
    prompt: Tensor | None = None
    task_embedding: Tensor | None = None
    train_rows: int | None = None
    texts: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferTarget:
    """A task that a prompt is wanted for.

    Attributes:
        name: of the task.
        task_embeddings: one a seed, float [P, H]; needed by the similarities.
        train: its training rows; needed by the losses.
        texts: some of its inputs; needed by ``text-similarity``.
    """

    name: str
    task_embeddings: Sequence[Tensor] = ()
    train: EncodedSplit | None = None
    texts: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a predictor says of S candidates.

    Attributes:
        values: one a candidate, higher is better; NaN where it cannot say (no data given).
        forward_tokens: positions sent through the backbone to find out, in forward equivalents (a tuning step counts 2).
        uncertainty: standard error of each value, where it has one.
    """

    values: tuple[float, ...]
    forward_tokens: int = 0
    uncertainty: tuple[float, ...] = field(default=())


class Predictor(ABC):
    """Predicts how much each candidate will help a target.

    Attributes:
        name: from the table above.
        source: where it comes from.
    """

    name: str
    source: str

    @abstractmethod
    def predict(self, target: TransferTarget, candidates: Sequence[Candidate]) -> Prediction:
        """Values for the candidates, in their order.

        Raises:
            UsageError: the target lacks what this predictor needs.
        """


class SimilarityPredictor(Predictor):
    """Similarity of task embeddings, averaged over the target's seeds."""

    source = "SPoT section 3.2"

    def __init__(self, metric: Metric = "per_token") -> None:
        self.metric: Metric = metric
        self.name = "similarity-" + metric.replace("_", "-")

    def predict(self, target: TransferTarget, candidates: Sequence[Candidate]) -> Prediction:
        if not target.task_embeddings:
            raise UsageError(
                f"{self.name} needs task embeddings of {target.name}; compute them with 'softprompt embed'."
            )
        known = [c.task_embedding for c in candidates if c.task_embedding is not None]
        by_seed = similarity_matrix(list(target.task_embeddings), known, self.metric).numpy()
        seeds = len(by_seed)
        means = iter(by_seed.mean(0).tolist())
        errors = iter((by_seed.std(0, ddof=1) / math.sqrt(seeds)).tolist() if seeds > 1 else [])
        has = [c.task_embedding is not None for c in candidates]
        return Prediction(
            values=tuple(next(means) if h else math.nan for h in has),
            uncertainty=tuple(next(errors) if h else math.nan for h in has) if seeds > 1 else (),
        )


class ZeroShotLoss(Predictor):
    """Minus the loss (nats a target token) of each source prompt, untuned, on the target's training rows.

    Args:
        backbone: frozen.
        rows: training rows used, the same for all candidates.
        seed: chooses them.
        rows_per_pass: rows of a forward pass, prompts mixed.
    """

    name = "zero-shot-loss"
    source = "loss at the start of the transfer"

    def __init__(self, backbone: Backbone, *, rows: int = ROWS, seed: int = 0, rows_per_pass: int = 64) -> None:
        self.backbone, self.rows, self.seed, self.rows_per_pass = backbone, rows, seed, rows_per_pass

    def predict(self, target: TransferTarget, candidates: Sequence[Candidate]) -> Prediction:
        train = _train(self.name, target)
        known = [c.prompt for c in candidates if c.prompt is not None]
        losses = prompt_losses(
            self.backbone, known, train, chosen_rows(train, self.rows, self.seed), rows_per_pass=self.rows_per_pass
        )
        return _of_losses(losses, [c.prompt is not None for c in candidates], losses.forward_tokens)


class FewStepLoss(Predictor):
    """Minus the loss of each source prompt after a handful of tuning steps on the target, on rows it was not tuned on.

    Args:
        backbone: frozen.
        tune: tunes S prompts [S, P, H] (of one length) together on a split for some steps, and gives them back with the
            forward-token equivalents it took.
        steps: tuning steps.
        rows: held-out training rows the loss is taken on.
        seed: chooses them.
        rows_per_pass: rows of a forward pass.
    """

    name = "few-step-loss"
    source = "early learning curves (successive halving, Jamieson and Talwalkar 2016)"

    def __init__(
        self,
        backbone: Backbone,
        tune: Callable[[Tensor, EncodedSplit, int], tuple[Tensor, int]],
        *,
        steps: int = 20,
        rows: int = ROWS,
        seed: int = 0,
        rows_per_pass: int = 64,
    ) -> None:
        self.backbone, self.tune, self.steps = backbone, tune, steps
        self.rows, self.seed, self.rows_per_pass = rows, seed, rows_per_pass

    def predict(self, target: TransferTarget, candidates: Sequence[Candidate]) -> Prediction:
        train = _train(self.name, target)
        if len(train) < 2:
            raise UsageError(
                f"{self.name} tunes on some training rows and measures on others; {target.name} has {len(train)}."
            )
        held = sorted(chosen_rows(train, min(self.rows, len(train) // 2), self.seed))
        rest = train.select(sorted(set(range(len(train))) - set(held)))
        known = [c.prompt for c in candidates if c.prompt is not None]
        tuned, cost = _tuned(self.tune, known, rest, self.steps)
        losses = prompt_losses(self.backbone, tuned, train, held, rows_per_pass=self.rows_per_pass)
        return _of_losses(losses, [c.prompt is not None for c in candidates], losses.forward_tokens + cost)


class TextSimilarity(Predictor):
    """Cosine of the mean TF-IDF vectors of the two tasks' inputs; the vocabulary is that of all texts given."""

    name = "text-similarity"
    source = "TF-IDF baseline"

    def predict(self, target: TransferTarget, candidates: Sequence[Candidate]) -> Prediction:
        if not target.texts:
            raise UsageError(f"{self.name} needs some inputs of {target.name}, none were given.")
        from sklearn.feature_extraction.text import TfidfVectorizer

        by_task: dict[str, Sequence[str]] = {c.task: c.texts for c in candidates if c.texts}
        groups = [target.texts, *by_task.values()]
        vectors = TfidfVectorizer(sublinear_tf=True).fit_transform([text for group in groups for text in group])
        ends = np.cumsum([len(group) for group in groups])
        means = [
            np.asarray(vectors[end - len(g) : end].mean(axis=0)).ravel() for end, g in zip(ends, groups, strict=True)
        ]
        values = {task: _cosine(means[0], mean) for task, mean in zip(by_task, means[1:], strict=True)}
        return Prediction(values=tuple(values.get(c.task, math.nan) for c in candidates))


class DataSize(Predictor):
    """Log of the number of the source's training rows."""

    name = "data-size"
    source = "SPoT section 3.1: big sources transfer well"

    def predict(self, target: TransferTarget, candidates: Sequence[Candidate]) -> Prediction:
        return Prediction(values=tuple(math.log(c.train_rows) if c.train_rows else math.nan for c in candidates))


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

    def standard_error_S(self) -> Tensor:
        """float64 [S], of the difference to the mean over prompts: what all prompts find hard does not count."""
        rows = self.nll_SR.shape[1]
        if rows < 2:
            return torch.full((self.nll_SR.shape[0],), math.nan, dtype=torch.float64)
        apart_SR = self.nll_SR - self.nll_SR.mean(0, keepdim=True)
        return apart_SR.std(1) * math.sqrt(rows) / self.tokens_R.sum()


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


def _is_hex(text: str) -> bool:
    return bool(text) and all(c in "0123456789abcdef" for c in text.lower())


def _train(name: str, target: TransferTarget) -> EncodedSplit:
    if target.train is None or not len(target.train):
        raise UsageError(f"{name} needs training rows of {target.name}, none were given.")
    return target.train


def _of_losses(losses: PromptLosses, has: Sequence[bool], cost: int) -> Prediction:
    values, errors = iter((-losses.per_token_S()).tolist()), iter(losses.standard_error_S().tolist())
    return Prediction(
        values=tuple(next(values) if h else math.nan for h in has),
        uncertainty=tuple(next(errors) if h else math.nan for h in has),
        forward_tokens=cost,
    )


def _tuned(
    tune: Callable[[Tensor, EncodedSplit, int], tuple[Tensor, int]],
    prompts: Sequence[Tensor],
    split: EncodedSplit,
    steps: int,
) -> tuple[list[Tensor], int]:
    """The prompts tuned together, those of one length in one call, in their order, and the cost."""
    by_length: dict[int, list[int]] = {}
    for s, prompt in enumerate(prompts):
        by_length.setdefault(int(prompt.shape[0]), []).append(s)
    found: dict[int, Tensor] = {}
    cost = 0
    for members in by_length.values():
        tuned_SPH, spent = tune(torch.stack([prompts[s].float() for s in members]), split, steps)
        cost += spent
        found |= dict(zip(members, tuned_SPH.unbind(0), strict=True))
    return [found[s] for s in range(len(prompts))], cost


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale > 0 else 0.0


def predict_all(
    predictors: Sequence[Predictor], target: TransferTarget, candidates: Sequence[Candidate]
) -> Mapping[str, Prediction]:
    """Every predictor's word on the same candidates, by name."""
    return {predictor.name: predictor.predict(target, candidates) for predictor in predictors}
