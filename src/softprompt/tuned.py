"""A tuned prompt in the hand: answer texts with it, score it on a task, write it for PEFT, push it to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt import artifacts, waits
from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError, one_line
from softprompt.inference.evaluate import EvalJob
from softprompt.inference.evaluate import evaluate as evaluate_jobs
from softprompt.inference.predict import Prediction
from softprompt.inference.predict import predict as predict_rows
from softprompt.library.formats.adapter import folder_files
from softprompt.library.places import prompt_at
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library, StoredPrompt, check_backbone
from softprompt.methods.beside import majority
from softprompt.methods.sharpt.method import AdaptedPrompt
from softprompt.methods.sharpt.space import Space, space_encoder
from softprompt.prompts.prompter import Prompter
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import answer_room, encode_split, input_room
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import Input, Kept, as_tuned, for_backbone

Promptlike = PromptRecord | StoredPrompt | AdaptedPrompt | Space | str | Path | None
"""What answers can be given with: a tuned prompt, one of a library, an adapted one of SharPT, the folder of a run or of a
prompt; None is the bare backbone."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TunedPrompt(PromptRecord):
    """A prompt with the backbone that it was tuned on; ``Library.add`` takes it as it is.

    Attributes:
        backbone: the frozen model.
    """

    backbone: Backbone

    @classmethod
    def of(cls, record: PromptRecord, backbone: Backbone) -> TunedPrompt:
        """A record with its backbone."""
        return cls(**{f.name: getattr(record, f.name) for f in fields(record)}, backbone=backbone)

    def __repr__(self) -> str:
        score = f", score {self.scores['score']:.1f}" if "score" in self.scores else ""
        return one_line(f"<TunedPrompt {self.library_name}: {len(self.prompt)} tokens on {self.backbone_name}{score}>")

    def predict(self, texts: str | Sequence[Input], *, progress: bool = True) -> list[Prediction]:
        """Answers with label probabilities; see `predict`."""
        return predict(self.backbone, self, texts, progress=progress)

    def to_peft(self, folder: str | Path, *, replace: bool = False) -> Path:
        """Write the bare PEFT adapter, for ``PeftModel.from_pretrained(model, folder)``; returns the folder.

        Raises:
            UsageError: the folder exists and ``replace`` is False.

        Example:
            >>> prompt.to_peft("films-peft").name
            'films-peft'
        """
        from softprompt.library.formats.peft import write_peft

        write_peft(
            folder, self.prompt, backbone_name=self.backbone_name, backbone_kind=self.backbone_kind, replace=replace
        )
        return Path(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = True, message: str = "", api: Any = None) -> str:
        """Upload it with its card and manifest as a Hub repository of its own; returns the commit."""
        from softprompt.library.formats.hub import push_prompt

        with tempfile.TemporaryDirectory() as place:
            return push_prompt(Library(place).add(self), repo_id, private=private, message=message, api=api)


@dataclass(frozen=True, kw_only=True, repr=False)
class Score:
    """What a prompt scores on a split.

    Attributes:
        task: name of the task.
        split: of the task.
        rows: how many were scored.
        scores: percent by metric, and ``score``, their mean.
        majority: the score of always giving the most frequent label of the training rows; None for free text.
        predictions: one answer a row, as the backbone writes it.
    """

    task: str
    split: str
    rows: int
    scores: Mapping[str, float]
    majority: float | None
    predictions: Sequence[str]

    @property
    def score(self) -> float:
        """The task's score in percent: the mean of its metrics."""
        return self.scores["score"]

    def __repr__(self) -> str:
        beside = "" if self.majority is None else f", most frequent label {self.majority:.1f}"
        return one_line(f"<Score {self.score:.1f} on {self.rows} {self.split} rows of {self.task}{beside}>")


def predict(
    backbone: Backbone, prompt: Promptlike, texts: str | Sequence[Input], *, progress: bool = True
) -> list[Prediction]:
    """Answer texts, or rows of columns, worded as the prompt was tuned.

    Args:
        backbone: frozen; the one the prompt was tuned on.
        prompt: from `tune`, a library, `adapt` or a run's folder; None for the bare backbone.
        texts: a text, texts, or dicts of the prompt's columns.
        progress: show a bar.

    Returns:
        For each text its answer: ``output``, ``label`` and, where the task has labels, ``probabilities`` by label
        (softmax over the labels' log-probabilities).

    Raises:
        IncompatibleBackboneError: the prompt was made on another backbone.
        UsageError: a row has not the prompt's columns.

    Example:
        >>> [answer] = sp.predict(backbone, prompt, "a lovely film")
        >>> answer.label in ("bad", "good"), round(sum(answer.probabilities.values()), 3)
        (True, 1.0)
    """
    prompter, kept = opened(backbone, prompt)
    rows = [texts] if isinstance(texts, str) else list(texts)
    if not rows:
        return []
    with waits.shown(progress):
        return predict_rows(backbone, prompter, rows, kept, probabilities=True).rows


def evaluate(
    backbone: Backbone,
    prompt: Promptlike,
    task: Task,
    *,
    split: str = "validation",
    max_rows: int | None = None,
    progress: bool = True,
) -> Score:
    """Score a prompt on a task's split; the answers are those of `predict`.

    Args:
        backbone: frozen; the one the prompt was tuned on.
        prompt: from `tune`, a library, `adapt` or a run's folder; None for the bare backbone.
        task: from `load_task` or ``Task.from_rows``.
        split: ``train``, ``validation`` or ``test``.
        max_rows: at most this many rows, drawn by seed 0; all where None.
        progress: show a bar.

    Raises:
        IncompatibleBackboneError: the prompt was made on another backbone.
        DataError: the split is missing, or a row cannot be used.

    Example:
        >>> sp.evaluate(backbone, prompt, task, progress=False)
        <Score ... on 4 validation rows of films, most frequent label 50.0>
    """
    prompter, kept = opened(backbone, prompt)
    own = for_backbone(task, backbone.kind)
    worded = as_tuned(own, kept, backbone.tokenizer) if kept is not None else own
    most = answer_room(backbone, None)
    room = input_room(backbone, prompter, worded.labels, most)
    with waits.shown(progress):
        rows = worded.split(split, max_rows=max_rows)
        encoded = encode_split(rows, backbone, max_input_tokens=room, max_target_tokens=None)
        job = EvalJob(run=0, task=worded, split=encoded)
        (found,) = evaluate_jobs(backbone, prompter, [job], max_target_tokens=most)
        known = worded.labels and not worded.streamed  # a stream is not read twice
        train = worded.split("train") if known and split != "train" else rows
    return Score(
        task=task.name, split=split, rows=len(rows), scores=found.scores, predictions=found.predictions,
        majority=majority(worded, train.examples, rows.examples) if known else None,
    )  # fmt: skip


def opened(backbone: Backbone, prompt: Promptlike) -> tuple[Prompter | None, Kept | None]:
    """The prompter of what a user gave, and what it keeps of its task.

    Raises:
        IncompatibleBackboneError: it was made on another backbone.
        UsageError: it is nothing that answers.
    """
    if isinstance(prompt, str | Path):
        prompt = prompt_at(prompt)
    if prompt is None:
        return None, None
    if isinstance(prompt, AdaptedPrompt):
        prompt = prompt.space
    if isinstance(prompt, Space):
        return prompt.prompter(backbone, space_encoder(prompt, backbone)), prompt
    if isinstance(prompt, StoredPrompt):
        prompt.check_backbone(backbone)
        return _stack(prompt.prompt(), backbone), prompt.manifest
    if not isinstance(prompt, PromptRecord):
        raise UsageError(
            f"a prompt is what tune or adapt returns, one of a library, or a run's folder; got a {type(prompt).__name__}."
        )
    if prompt.backbone_fingerprint != backbone.fingerprint:
        check_backbone(folder_files(prompt)[0], backbone)
    return _stack(prompt.prompt, backbone), prompt


def _stack(prompt_PH: Tensor, backbone: Backbone) -> PromptStack:
    """One prompt, known by its content: a name may stand for another prompt later in the same program."""
    prompt_PH = prompt_PH.detach().to("cpu", torch.float32)
    key = artifacts.sha256_bytes(prompt_PH.contiguous().numpy().tobytes())
    return PromptStack.of([prompt_PH.to(backbone.device)], keys=[key])
