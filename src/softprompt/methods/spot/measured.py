"""What predictors of transfer measure with the backbone: losses, label scores and states of many prompts on the same rows.

Letters: S source prompts, P prompt tokens, H width, R rows, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softprompt import waits
from softprompt.backbones.base import Backbone
from softprompt.batch import PromptBatch, TokenBatch
from softprompt.errors import UnknownNameError, UsageError
from softprompt.library.store import Library
from softprompt.methods.spot.predictor_names import LABELLED, MEASURED, STEPS, tuning_steps
from softprompt.methods.spot.predictors import Floats, calibrated_losses, label_losses, logme
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.splits import EncodedSplit
from softprompt.training.data import TaskData
from softprompt.training.loop import train_prompts
from softprompt.training.settings import TrainSettings

ROWS = 64
"""Training rows that a predictor looks at."""
TRAINING_FACTOR = 2
"""As `softprompt.methods.method.TRAINING_FACTOR`: a tuning step goes forward and back."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictorValues:
    """What one predictor says.

    Attributes:
        values: by source prompt, higher is better.
        forward_tokens: forward-token equivalents it took.
    """

    values: tuple[float, ...]
    forward_tokens: int


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


def predict(
    names: Sequence[str], backbone: Backbone, prompts: Sequence[Tensor], data: TaskData, settings: TrainSettings
) -> dict[str, PredictorValues]:
    """What predictors say of source prompts on a target, by name; rows are the same for all.

    Args:
        names: of `MEASURED`.
        backbone: frozen.
        prompts: S of them, each float [P_s, H].
        data: of the target; its training rows are looked at.
        settings: of a run on the target, for the predictors that tune.

    Raises:
        UnknownNameError: another name.
        UsageError: a predictor that needs labels on a target without, or too few rows.
    """
    _check(names, data)
    split, rows = data.train, chosen_rows(data.train, ROWS, 0)
    found: dict[str, PredictorValues] = {}
    if "label-loss" in names:
        logs, gold, cost = label_logs(backbone, prompts, data, rows)
        found["label-loss"] = PredictorValues(values=tuple(-calibrated_losses(logs, gold)), forward_tokens=cost)
    if "zero-shot-loss" in names:
        told = prompt_losses(backbone, prompts, split, rows)
        found["zero-shot-loss"] = PredictorValues(
            values=tuple((-told.per_token_S()).tolist()), forward_tokens=told.forward_tokens
        )
    if "logme" in names:
        states_SRH, cost = answer_states(backbone, prompts, split, rows)
        known, gold = _gold(data, rows)
        values = tuple(logme(states[known], gold) for states in states_SRH.numpy())
        found["logme"] = PredictorValues(values=values, forward_tokens=cost)
    if tuning_steps(names):
        found |= loss_decreases([name for name in names if name in STEPS], backbone, prompts, data, settings)
    return {name: found[name] for name in names}


def _check(names: Sequence[str], data: TaskData) -> None:
    for name in names:
        if name not in MEASURED:
            raise UnknownNameError("predictor", name, MEASURED)
        if name in LABELLED and not data.task.labels:
            raise UsageError(
                f"predictor '{name}' needs a task with labels, and '{data.task.name}' has none: use zero-shot-loss."
            )


def library_predictions(
    name: str, backbone: Backbone, library: Library, prompts: Sequence[str], data: TaskData, settings: TrainSettings
) -> dict[str, float]:
    """What one predictor says of a library's prompts, by their names."""
    tensors = [library.load(prompt, backbone).float() for prompt in prompts]
    found = predict([name], backbone, tensors, data, settings)[name]
    return dict(zip(prompts, found.values, strict=True))


def chosen_rows(split: EncodedSplit, count: int, seed: int) -> list[int]:
    """At most ``count`` rows of a split, drawn without replacement; the same for the same split content and seed."""
    draw = np.random.default_rng([seed, int(split.fingerprint[:8], 16) if _is_hex(split.fingerprint[:8]) else 0])
    return [int(i) for i in draw.permutation(len(split))[:count]]


def _is_hex(text: str) -> bool:
    return bool(text) and all(c in "0123456789abcdef" for c in text.lower())


def _passes(
    backbone: Backbone, prompts: Sequence[Tensor], split: EncodedSplit, rows: Sequence[int], size: int
) -> Iterator[tuple[list[tuple[int, int]], TokenBatch, PromptBatch, int]]:
    """(prompt, row) pairs of a forward pass, prompts mixed and rows of like length together; their batch, and its positions."""
    if not rows:
        raise UsageError("prompts cannot be scored on no rows; give at least one.")
    if not prompts:
        return
    stack = PromptStack.of([prompt.to(backbone.device) for prompt in prompts])
    order = sorted(range(len(rows)), key=lambda r: (len(split.inputs(rows[r])), r))
    pairs = [(s, r) for r in order for s in range(len(prompts))]
    for begin in range(0, len(pairs), size):
        part = pairs[begin : begin + size]
        inputs = [split.inputs(rows[r]).tolist() for _, r in part]
        batch = TokenBatch.of(inputs, [split.targets(rows[r]).tolist() for _, r in part], backbone.device)
        run_B = torch.tensor([s for s, _ in part], dtype=torch.int64, device=backbone.device)
        yield part, batch, stack(run_B), sum(map(len, inputs)) + sum(stack.lengths[s] for s, _ in part)
        waits.tell("measuring prompts on rows", min(begin + size, len(pairs)), len(pairs))


@torch.no_grad()
def prompt_losses(
    backbone: Backbone, prompts: Sequence[Tensor], split: EncodedSplit, rows: Sequence[int], *, rows_per_pass: int = 64
) -> PromptLosses:
    """Score many prompts on the same rows.

    Args:
        backbone: frozen.
        prompts: S of them, each float [P_s, H], of any length.
        split: the tokenised rows.
        rows: R numbers into it.
        rows_per_pass: rows of a forward pass; two prompts on one row are two rows.

    Raises:
        UsageError: no rows.
    """
    nll_SR = torch.zeros(len(prompts), len(rows), dtype=torch.float64)
    tokens_R = torch.tensor([len(split.targets(i)) for i in rows], dtype=torch.int64)
    forward_tokens = 0
    for part, batch, given, positions in _passes(backbone, prompts, split, rows, rows_per_pass):
        found = backbone.example_losses(batch, given).nll_B.to("cpu", torch.float64)
        for (s, r), value in zip(part, found.tolist(), strict=True):
            nll_SR[s, r] = value
            positions += int(tokens_R[r])
        forward_tokens += positions
    return PromptLosses(nll_SR=nll_SR, tokens_R=tokens_R, forward_tokens=forward_tokens)


def _gold(data: TaskData, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """Places among ``rows`` whose answer is one of the task's labels, and the index of that label."""
    labels = list(data.task.labels or ())
    told = [(r, labels.index(t)) for r, i in enumerate(rows) if (t := data.train.examples[i].targets) in labels]
    if not told:
        raise UsageError(f"none of the training rows of '{data.task.name}' has one of its labels: check its data.")
    return [r for r, _ in told], [label for _, label in told]


@torch.no_grad()
def label_logs(
    backbone: Backbone, prompts: Sequence[Tensor], data: TaskData, rows: Sequence[int], *, rows_per_pass: int = 64
) -> tuple[Floats, list[int], int]:
    """Log-probabilities of a task's labels under many prompts [S, R', C], the gold labels [R'], and the positions it took.

    R' are the rows whose answer is a label.
    """
    known, gold = _gold(data, rows)
    ids = backbone.tokenize_targets(list(data.task.labels or ()))
    logs = np.zeros((len(prompts), len(known), len(ids)), dtype=np.float64)
    forward_tokens = 0
    for part, batch, given, positions in _passes(
        backbone, prompts, data.train, [rows[r] for r in known], rows_per_pass
    ):
        for (s, r), row in zip(part, backbone.label_scores(batch, given, [ids] * len(part)), strict=True):
            logs[s, r] = row.to("cpu", torch.float64).numpy()
        forward_tokens += positions + len(part) * sum(map(len, ids))
    return logs, gold, forward_tokens


@torch.no_grad()
def answer_states(
    backbone: Backbone, prompts: Sequence[Tensor], split: EncodedSplit, rows: Sequence[int], *, rows_per_pass: int = 64
) -> tuple[Tensor, int]:
    """float64 [S, R, H], the states that answers are predicted from, and the positions it took."""
    states: Tensor | None = None
    forward_tokens = 0
    for part, batch, given, positions in _passes(backbone, prompts, split, rows, rows_per_pass):
        found = backbone.answer_states(batch, given).to("cpu", torch.float64)
        if states is None:
            states = torch.zeros(len(prompts), len(rows), found.shape[1], dtype=torch.float64)
        for (s, r), row in zip(part, found, strict=True):
            states[s, r] = row
        forward_tokens += positions
    return torch.zeros(0, len(rows), 0, dtype=torch.float64) if states is None else states, forward_tokens


def loss_decreases(
    names: Sequence[str], backbone: Backbone, prompts: Sequence[Tensor], data: TaskData, settings: TrainSettings
) -> dict[str, PredictorValues]:
    """How much one and five steps lower the loss of each prompt [P, H], on rows that were not tuned on.

    The loss is over the labels alone where the task has labels. All prompts tune in one batch on the same rows, without a
    warm-up, which would make the first steps nothing.

    Raises:
        UsageError: fewer than two rows.
    """
    train, steps = data.train, tuning_steps(names)
    if len(train) < 2:
        raise UsageError(f"loss-decrease tunes on some training rows and measures on others; there are {len(train)}.")
    held = sorted(chosen_rows(train, min(ROWS, len(train) // 2), 0))
    rest = train.select(sorted(set(range(len(train))) - set(held)))
    part = TaskData(task=data.task, train=rest, validation=data.validation)
    runs = [part.run(f"candidate-{i}", 0, validated=False) for i in range(len(prompts))]
    short = min(STEPS[name] for name in names)
    changed = settings.having(steps=steps, eval_every=steps, embedding_step=short, warmup_steps=0, patience=0)
    stack = PromptStack.of([prompt.to(backbone.device) for prompt in prompts], tuned=True)
    results = train_prompts(backbone, stack, runs, changed)
    before, cost = _held_losses(backbone, prompts, data, held)
    found = {}
    for name in names:
        kept = [(r.final if STEPS[name] == steps or r.embedding is None else r.embedding)["prompt"] for r in results]
        tuned = [
            values[: len(prompt)] for values, prompt in zip(kept, prompts, strict=True)
        ]  # shorter ones were padded
        after, again = _held_losses(backbone, tuned, data, held)
        spent = sum(r.tokens for r in results) * STEPS[name] // steps * TRAINING_FACTOR
        found[name] = PredictorValues(values=tuple(before - after), forward_tokens=cost + again + spent)
    return found


def _held_losses(
    backbone: Backbone, prompts: Sequence[Tensor], data: TaskData, rows: Sequence[int]
) -> tuple[Floats, int]:
    if data.task.labels:
        logs, gold, cost = label_logs(backbone, prompts, data, rows)
        return label_losses(logs, gold), cost
    found = prompt_losses(backbone, prompts, data.train, rows)
    return np.asarray(found.per_token_S().numpy()), found.forward_tokens
