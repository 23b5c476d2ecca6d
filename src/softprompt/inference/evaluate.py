"""Evaluation: answers, exact postprocessing, metrics in percent.

Answers are generated greedily, as the papers do it for T5, or (where the task has labels) the label is taken that the
backbone finds most probable behind the text: one pass, no decoding loop, and no answer is invalid. Rows of many runs and tasks share forward passes; the encoder runs once a row. Letters as in ``backbones/base.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import torch

from softprompt import distributed as parallel
from softprompt import waits
from softprompt.backbones.base import Backbone
from softprompt.batch import PromptBatch, Rows, TokenBatch
from softprompt.errors import UnknownNameError, UsageError
from softprompt.fields import Scoring
from softprompt.prompts.prompter import Prompter
from softprompt.tasks.encoded import target_limit
from softprompt.tasks.splits import EncodedSplit
from softprompt.tasks.task import Task

DEFAULT_BATCH_TOKENS = 8192

Answer = tuple[str, int, float | None, Sequence[float]]
"""Its text, the positions it took, and where labels were scored the loss of the gold one and the log-probability of each, nats."""
SCORINGS: tuple[Scoring, ...] = get_args(Scoring)
"""How answers are found; ``auto``: by label for decoder-only backbones on tasks with labels, else generated."""


@dataclass(frozen=True, kw_only=True)
class EvalJob:
    """One run on some rows of one task's split.

    Attributes:
        run: which run of the prompter; 0 where there is no prompter.
        task: gives the metrics.
        split: the tokenised rows.
        rows: int [n], which rows; all where None.
        scoring: how answers are found.
    """

    run: int
    task: Task
    split: EncodedSplit
    rows: np.ndarray | None = None
    scoring: Scoring = "auto"

    def row_numbers(self) -> np.ndarray:
        """The rows as an array."""
        return np.arange(len(self.split)) if self.rows is None else np.asarray(self.rows)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one job gave.

    Attributes:
        scores: metric name to percent, and ``score``, their mean.
        predictions: one text a row, in the order of the job's rows; where labels were scored, one of the labels.
        tokens: input, prompt and generated positions that went through the backbone.
        label_loss: where labels were scored, the mean over rows of the negative log-probability of the gold label among the
            labels, nats; None where answers were generated or no gold is a label.
    """

    scores: dict[str, float]
    predictions: list[str]
    tokens: int = field(default=0, compare=False)
    label_loss: float | None = None


def canonical_text(backbone: Backbone) -> Callable[[str], str]:
    """How a text looks after this backbone's tokenizer: gold texts are compared in that form."""
    memory: dict[str, str] = {}

    def canonical(text: str) -> str:
        if text not in memory:
            memory[text] = backbone.decode(backbone.tokenize_targets([text]))[0]
        return memory[text]

    return canonical


def answer_budget(backbone: Backbone, task: Task, split: EncodedSplit, most: int) -> int:
    """How many tokens an answer may have: the longest label of a closed task, ``most`` (0: the task's own) for free text."""
    if task.labels:
        return max(len(ids) for ids in backbone.tokenize_targets(list(task.labels)))
    return target_limit(backbone, task, most)


def scoring_of(backbone: Backbone, labels: Sequence[str] | None, wanted: Scoring) -> Literal["labels", "generate"]:
    """How answers are found for a task with these labels (None: free text).

    Raises:
        UsageError: labels were asked for where there are none, or the name is unknown.
    """
    if wanted not in SCORINGS:
        raise UnknownNameError("scoring", wanted, SCORINGS)
    if wanted == "labels" and not labels:
        raise UsageError("scoring by label was asked for a task without labels: use scoring generate.")
    if wanted == "auto":
        return "labels" if backbone.kind == "causal" and labels else "generate"
    return wanted


def length_batches(lengths: np.ndarray, prompt_length: int, batch_tokens: int) -> list[np.ndarray]:
    """Row indices grouped by length so that padded positions stay under ``batch_tokens`` (at least one row each)."""
    order = np.argsort(-lengths, kind="stable")
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        width = int(lengths[order[start]]) + prompt_length
        count = max(1, batch_tokens // max(1, width))
        batches.append(order[start : start + count])
        start += count
    return batches


@torch.no_grad()
def answers(
    backbone: Backbone,
    prompter: Prompter | None,
    jobs: Sequence[EvalJob],
    *,
    max_target_tokens: int = 64,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> list[list[tuple[str, int]]]:
    """Answers of every job's rows without scoring them (test splits have no gold labels); rows share forward passes.

    Args:
        backbone: the frozen model.
        prompter: makes the prompts; None for none.
        jobs: what to answer.
        max_target_tokens: longest free-text answer; 0 for as long as each task says.
        batch_tokens: most padded encoder positions in one pass.

    Returns:
        For each job, (text, positions that went through the backbone) of its rows in order.
    """
    found = _answered(backbone, prompter, jobs, max_target_tokens, batch_tokens)
    return [[(text, tokens) for text, tokens, *_ in job] for job in found]


def _answered(
    backbone: Backbone,
    prompter: Prompter | None,
    jobs: Sequence[EvalJob],
    max_target_tokens: int,
    batch_tokens: int,
) -> list[list[Answer]]:
    """As `answers`, with the loss of the gold label where labels were scored."""
    place = [(j, int(r)) for j, job in enumerate(jobs) for r in job.row_numbers()]
    ways = _ways(backbone, jobs, place, max_target_tokens)
    lengths = np.asarray([_length(jobs[j].split, r, way) for (j, r), way in zip(place, ways, strict=True)], np.int64)
    prompt_length = prompter.prompt_length if prompter is not None else 0
    found: dict[int, Answer] = {}
    waits.tell("answering rows", 0, len(place))
    batch_tokens = min(parallel.gather(batch_tokens))  # a process short of memory asks for less: all must cut alike
    for way in dict.fromkeys(ways):
        group = np.asarray([i for i in range(len(place)) if ways[i] == way], dtype=np.int64)
        parts = length_batches(lengths[group] + way.behind, prompt_length, batch_tokens)
        for part in parallel.shares(parts, in_step=backbone.sharded):
            rows = [(jobs[place[i][0]], place[i][1]) for i in group[part]]
            targets = [job.split.targets(r) for job, r in rows] if way.of_targets else None
            batch = TokenBatch.of([job.split.inputs(r) for job, r in rows], targets, device=backbone.device)
            answered = way.answer(backbone, batch, prompts_for(backbone, prompter, rows))
            for i, (job, row), (text, tokens, logs) in zip(group[part], rows, answered, strict=True):
                loss = way.loss(job.split.examples[row].targets, logs)
                found[int(i)] = (text, int(lengths[i]) + prompt_length + tokens, loss, logs)
            waits.tell("answering rows", len(found), len(place))
    for other in parallel.gather(found):
        found.update(other)
    edges = np.cumsum([0, *(len(job.row_numbers()) for job in jobs)])
    return [[found[i] for i in range(edges[j], edges[j + 1])] for j in range(len(jobs))]


def evaluate(
    backbone: Backbone,
    prompter: Prompter | None,
    jobs: Sequence[EvalJob],
    *,
    max_target_tokens: int = 64,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> list[Evaluation]:
    """Scores and predictions of every job; see ``answers`` for the arguments.

    Returns:
        One evaluation a job, in order.

    Raises:
        UsageError: a job has no rows, or no row has a gold label.
    """
    found = _answered(backbone, prompter, jobs, max_target_tokens, batch_tokens)
    canonical = canonical_text(backbone)
    results: list[Evaluation] = []
    for job, answered in zip(jobs, found, strict=True):
        texts = [text for text, *_ in answered]
        losses = [loss for _, _, loss, _ in answered if loss is not None]
        examples = [job.split.examples[int(r)] for r in job.row_numbers()]
        scores = job.task.score(texts, examples, canonical=canonical)
        tokens = sum(count for _, count, *_ in answered)
        mean = float(np.mean(losses)) if losses else None
        results.append(Evaluation(scores=scores, predictions=texts, tokens=tokens, label_loss=mean))
    return results


def _length(split: EncodedSplit, row: int, way: Way) -> int:
    """Positions of a row's text, its target included where that is read too."""
    return len(split.inputs(row)) + (len(split.targets(row)) if way.of_targets else 0)


def label_probabilities(
    backbone: Backbone,
    prompter: Prompter | None,
    job: EvalJob,
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> np.ndarray:
    """The probability of each label among the labels, for each row of a job; see ``answers`` for the arguments.

    Returns:
        float32 [rows, labels] in 0..1, each row sums to 1; labels in index order. It is the softmax of the summed
        log-probabilities of each label's tokens: labels of more tokens are not made longer or shorter.

    Raises:
        UsageError: the task has no labels.
    """
    if not job.task.labels:
        raise UsageError(f"task {job.task.name!r} has no labels: its answers are free text, without probabilities.")
    (found,) = _answered(backbone, prompter, [replace(job, scoring="labels")], 1, batch_tokens)
    return np.exp(np.asarray([logs for *_, logs in found], dtype=np.float32)).reshape(len(found), -1)


@dataclass(frozen=True)
class Way:
    """How the rows of some jobs are answered.

    Attributes:
        labels: the candidate answers; None where answers are generated.
        depth: the most tokens of a generated answer.
        behind: positions of the candidate answers behind a row's text.
        of_targets: the answer is the loss of the row's target (`softprompt.tasks.metrics.loss_answer`).
    """

    labels: tuple[str, ...] | None
    depth: int
    behind: int = 0
    of_targets: bool = False

    def answer(
        self, backbone: Backbone, batch: TokenBatch, prompts: PromptBatch | None
    ) -> list[tuple[str, int, list[float]]]:
        """By row, its answer, the positions that this took behind the row's text, and the labels' log-probabilities."""
        if self.of_targets:
            return [(text, 0, []) for text in _target_losses(backbone, batch, prompts)]
        if self.labels is None:
            outputs = backbone.generate(batch, prompts, self.depth)
            return [(text, len(ids), []) for text, ids in zip(backbone.decode(outputs), outputs, strict=True)]
        candidates = backbone.tokenize_targets(list(self.labels))
        texts = backbone.decode(candidates)
        scores = backbone.label_scores(batch, prompts, [candidates] * batch.size)
        return [(texts[int(row.argmax())], self.behind, row.log_softmax(-1).tolist()) for row in scores]

    def loss(self, gold: str, logs: Sequence[float]) -> float | None:
        """Nats of the gold label among the labels; None where it is none of them, or nothing was scored."""
        return -logs[self.labels.index(gold)] if self.labels is not None and gold in self.labels else None


@torch.no_grad()
def _target_losses(backbone: Backbone, batch: TokenBatch, prompts: PromptBatch | None) -> list[str]:
    """By row, the loss of its target as an answer."""
    from softprompt.tasks.metrics import loss_answer

    losses = backbone.example_losses(batch, prompts).nll_B.tolist()
    return [loss_answer(loss, depth) for loss, depth in zip(losses, batch.target_lengths, strict=True)]


def _ways(
    backbone: Backbone, jobs: Sequence[EvalJob], place: Sequence[tuple[int, int]], max_target_tokens: int
) -> list[Way]:
    """How each (job, row) is answered: as the task that judges the row says, which in a union differs by row."""
    known: dict[tuple[int, int], Way] = {}
    ways = []
    for j, row in place:
        judge = jobs[j].task.judge_of(jobs[j].split.examples[row])
        if (j, id(judge)) not in known:
            known[j, id(judge)] = _way(backbone, jobs[j], judge, max_target_tokens)
        ways.append(known[j, id(judge)])
    return ways


def _way(backbone: Backbone, job: EvalJob, judge: Task, max_target_tokens: int) -> Way:
    if judge.judged_by_loss:
        return Way(None, 0, of_targets=True)
    free_part = judge is not job.task and not judge.labels
    if free_part or scoring_of(backbone, judge.labels, job.scoring) == "generate":
        return Way(None, answer_budget(backbone, judge, job.split, max_target_tokens))
    return by_label(backbone, judge.labels or ())


def by_label(backbone: Backbone, labels: Sequence[str]) -> Way:
    """Answers are the most probable of these labels (the first of equally probable ones)."""
    return Way(tuple(labels), 0, sum(len(ids) for ids in backbone.tokenize_targets(list(labels))))


def prompts_for(
    backbone: Backbone, prompter: Prompter | None, rows: Sequence[tuple[EvalJob, int]]
) -> PromptBatch | None:
    """The prompts of some rows of evaluation jobs."""
    if prompter is None:
        return None
    examples = [job.split.examples[r] for job, r in rows]
    return prompter.prompts(
        Rows(
            run_B=torch.tensor([job.run for job, _ in rows], device=backbone.device),
            inputs=[e.inputs for e in examples],
            keys=[e.key for e in examples],
        )
    )


def seeded_rows(size: int, most: int, seed: int, groups: Sequence[str] | None = None) -> np.ndarray:
    """A seeded subset of row numbers in ascending order; all of them where ``most`` is 0 or not smaller.

    Args:
        size: rows in all.
        most: rows in the subset.
        seed: of the draw.
        groups: what each row is judged together with (`Task.groups`): whole groups are drawn, as many as fit, at least
            one. None where rows are judged alone.
    """
    if most <= 0 or size <= most:
        return np.arange(size)
    number, members = _grouped(size, groups)
    order = np.random.default_rng(np.random.SeedSequence([seed, len(members)])).permutation(len(members))
    fitting = max(1, int(np.searchsorted(np.cumsum(members[order]), most, side="right")))
    return np.flatnonzero(np.isin(number, order[:fitting]))


def halves(size: int, seed: int, groups: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint seeded halves of the rows: one to choose on, one to report on; a group lies on one side."""
    number, members = _grouped(size, groups)
    order = np.random.default_rng(np.random.SeedSequence([seed, len(members), 2])).permutation(len(members))
    first = order[: int(np.searchsorted(np.cumsum(members[order]), size // 2, side="right"))]
    on_first = np.isin(number, first)
    return np.flatnonzero(on_first), np.flatnonzero(~on_first)


def _grouped(size: int, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """(number of each row's group, counted in order of appearance [size]; rows of each group)."""
    if groups is None:
        return np.arange(size), np.ones(size, dtype=np.int64)
    numbers: dict[str, int] = {}
    number = np.asarray([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    return number, np.bincount(number, minlength=len(numbers))
