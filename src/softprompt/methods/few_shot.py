"""Few-shot text prompts for a frozen model: which examples stand in the context, how it is written, how it is answered.

A row is asked as

    instruction
    <separator> inputs of example 1 <answer> label word 1
    <separator> ... example k ...
    <separator> inputs of the row <answer>

and answered in two ways: by the likelihood of each label word (closed tasks), and by greedy generation up to the first
line end. Calibration (Zhao et al. 2021) divides label probabilities by those the same context gives content-free rows.
Every call goes through the backbone's interface without a soft prompt, so it works for causal models and for T5.

Letters: B rows, C label words, k examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from softprompt import waits
from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import UsageError
from softprompt.fields import Count, Settings, Whole
from softprompt.inference.evaluate import DEFAULT_BATCH_TOKENS, length_batches
from softprompt.tasks.example import Example, Split
from softprompt.tasks.splits import EncodedSplit
from softprompt.tasks.task import Task
from softprompt.training.stream import keyed_rng

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The content-free rows of Zhao et al. (2021), section 5.1; label probabilities are averaged over them."""


@dataclass(frozen=True, kw_only=True)
class DesignSettings(Settings):
    """How a few-shot prompt is written and answered.

    Attributes:
        shots: k, training examples in the context; 0 for none.
        seed: of their draw.
        balanced: draw the labels of a closed task in turn, not as they come.
        fit: where k examples do not fit the model, take as many as do; otherwise that is an error.
        instruction: first paragraph; empty for none.
        separator: between paragraphs.
        answer: between a row's inputs and its answer.
        label_words: what stands for each label in prompt and answer; the labels themselves where empty.
        max_tokens: limit of the whole prompt; the model's own where 0.
        normalised: compare label words by mean token likelihood, not by their whole likelihood.
        calibrated: Zhao et al. (2021).
        max_answer_tokens: longest generated answer of a free-text task.
    """

    shots: Whole = 16
    seed: int = 0
    balanced: bool = True
    fit: bool = False
    instruction: str = ""
    separator: str = "\n\n"
    answer: str = "\nAnswer:"
    label_words: Mapping[str, str] = field(default_factory=dict)
    max_tokens: Whole = 0
    normalised: bool = False
    calibrated: bool = False
    max_answer_tokens: Count = 64


def draw_examples(split: Split | EncodedSplit, settings: DesignSettings) -> list[Example]:
    """The k training examples of a context, in the order they stand in it; drawn by seed without replacement.

    Raises:
        UsageError: fewer rows than k.
    """
    rows = split.examples
    if settings.shots > len(rows):
        raise UsageError(
            f"{settings.shots} examples were asked for, and the training split has {len(rows)}; ask for fewer."
        )
    order = keyed_rng(settings.seed, "prompt-design").permutation(len(rows))
    if not settings.balanced:
        return [rows[int(i)] for i in order[: settings.shots]]
    by_label: dict[str, list[Example]] = {}
    for example in (rows[int(i)] for i in order):
        by_label.setdefault(example.targets if example.extra.get("label") is not None else "", []).append(example)
    turns = [by_label[label] for label in sorted(by_label)]
    chosen: list[Example] = []
    place = 0
    while len(chosen) < settings.shots:
        chosen.extend(group[place] for group in turns if place < len(group))
        place += 1
    return chosen[: settings.shots]


def words_of(task: Task, backbone: Backbone, settings: DesignSettings) -> dict[str, str]:
    """The label word of each label of a closed task.

    Raises:
        UsageError: a label without a word, a word without a token, or two labels with the same tokens.
    """
    labels = task.labels or ()
    words = {label: settings.label_words.get(label, "") if settings.label_words else label for label in labels}
    extra = sorted(set(settings.label_words) - set(labels))
    missing = [label for label, word in words.items() if not word.strip()]
    if missing or extra:
        problem = f"label {missing[0]!r} of task {task.name!r} has no label word" if missing else (
            f"label word for {extra[0]!r}, which is no label of task {task.name!r}"
        )  # fmt: skip
        raise UsageError(f"{problem}; give --label-word for each of {', '.join(labels)} and no others.")
    ids = {label: tuple(row) for label, row in zip(words, backbone.tokenize_targets(list(words.values())), strict=True)}
    unknown = getattr(backbone.tokenizer, "unk_token_id", None)
    for label, row in ids.items():
        if not backbone.decode([row])[0] or (unknown is not None and unknown in row):
            raise UsageError(
                f"label word {words[label]!r} of label {label!r} has no tokens in {backbone.name}'s vocabulary; give another."
            )
    if len(set(ids.values())) < len(ids):
        raise UsageError(
            f"two labels of task {task.name!r} have the same tokens in {backbone.name}; give each a --label-word of its own."
        )
    return words


def _count(done: int, part: Sized, rows: Sized) -> int:
    """The rows done after a part of them, told."""
    done += len(part)
    waits.tell("answering rows from examples", done, len(rows))
    return done


class FewShotPrompt:
    """A context of examples, and the prompts it makes.

    Args:
        backbone: whose tokenizer and length count.
        task: gives labels.
        examples: in the context, in order.
        settings: how it is written.
    """

    def __init__(self, backbone: Backbone, task: Task, examples: Sequence[Example], settings: DesignSettings) -> None:
        self.backbone, self.task, self.settings = backbone, task, settings
        self.examples = list(examples)
        self.words = words_of(task, backbone, settings)
        own_cue = task.wording is not None and task.wording.has_cue
        self.cue = "" if own_cue else settings.answer
        self.most: int | None = None
        self.limit = settings.max_tokens or backbone.max_length

    def text(self, inputs: str, count: int | None = None) -> str:
        """The prompt of a row, with the first ``count`` examples (all where None)."""
        settings = self.settings
        shown = self.examples if count is None else self.examples[:count]
        parts = [settings.instruction] if settings.instruction else []
        parts += [f"{e.inputs}{self.cue} {self.words.get(e.targets, e.targets)}" for e in shown]
        return settings.separator.join([*parts, f"{inputs}{self.cue}"])

    def room(self, answer_tokens: int) -> int | None:
        """The most tokens of a prompt; None where the model has no limit."""
        if self.limit is None:
            return None
        return self.limit - answer_tokens if self.backbone.kind == "causal" else self.limit

    def fitting(self, rows: Sequence[str], answer_tokens: int) -> int:
        """How many of the examples fit beside every row: the most for which the longest prompt keeps to the limit.

        Returns:
            0..k, or -1 where not even a row alone fits.
        """
        room = self.room(answer_tokens)
        if room is None:
            return len(self.examples)
        longest = max(rows, key=lambda text: len(self.backbone.tokenize_inputs([text])[0]), default="")
        low, high = -1, len(self.examples)
        while low < high:
            middle = (low + high + 1) // 2
            if len(self.backbone.tokenize_inputs([self.text(longest, middle)])[0]) <= room:
                low = middle
            else:
                high = middle - 1
        return low

    def shorten(self, rows: Sequence[str], answer_tokens: int) -> None:
        """Keep to the model's length: with ``fit`` the examples that fit stay, without it too many are an error.

        With ``fit`` a row that is too long by itself is cut, as it is everywhere else, and does not count here.

        Raises:
            UsageError: says how many examples fit.
        """
        room = self.room(answer_tokens)
        if self.settings.fit and room is not None:
            self.most = room
            rows = [row for row in rows if len(self.backbone.tokenize_inputs([self.text(row, 0)])[0]) <= room]
        count = self.fitting(rows, answer_tokens)
        if count == len(self.examples):
            return
        if count < 0 or not self.settings.fit:
            says = f"{count} examples fit" if count >= 0 else "not even the longest row alone fits"
            raise UsageError(
                f"a context of {len(self.examples)} examples of task {self.task.name!r} is too long for the {self.limit} tokens "
                f"of {self.backbone.name}: {says}; lower --shots, or add --fit to take as many as fit."
            )
        self.examples = self.examples[:count]

    def likelihoods(self, inputs: Sequence[str], *, batch_tokens: int = DEFAULT_BATCH_TOKENS) -> Tensor:
        """Log-likelihood of every label word after every row's prompt, float32 [B, C], in nats.

        The whole word with its end token where the model's targets have one; per token where ``normalised``.
        """
        prompts = self.backbone.tokenize_inputs([self.text(text) for text in inputs], self.most)
        words = self.backbone.tokenize_targets(list(self.words.values()))
        found_BC = torch.zeros(len(prompts), len(words))
        longest = sum(map(len, words))  # all label words stand behind one reading of the prompt
        done = 0
        with torch.no_grad():
            for part in length_batches(np.asarray([len(p) + longest for p in prompts]), 0, batch_tokens):
                batch = TokenBatch.of([prompts[int(b)] for b in part], device=self.backbone.device)
                scores = self.backbone.label_scores(batch, None, [words] * len(part))
                found_BC[torch.as_tensor(part)] = torch.stack([row_C.float().cpu() for row_C in scores])
                done = _count(done, part, prompts)
        if self.settings.normalised:
            found_BC /= torch.tensor([float(len(word)) for word in words])
        return found_BC

    def content_free(self) -> Tensor:
        """Log of the label probabilities after content-free rows, averaged over them, float32 [C] (Zhao et al. 2021)."""
        return torch.softmax(self.likelihoods(CONTENT_FREE), 1).mean(0).log()

    def choose(self, likelihood_BC: Tensor) -> list[str]:
        """The label of each row; a tie goes to the first label."""
        score_BC = torch.log_softmax(likelihood_BC, 1)
        if self.settings.calibrated:
            score_BC = score_BC - self.content_free()
        labels = list(self.words)
        return [labels[int(c)] for c in score_BC.argmax(1)]

    def generate(
        self,
        inputs: Sequence[str],
        answer_tokens: int,
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> list[str]:
        """Greedy answers up to the first line end; a label word is turned back into its label."""
        prompts = self.backbone.tokenize_inputs([self.text(text) for text in inputs], self.most)
        answers = [""] * len(prompts)
        done = 0
        for part in length_batches(np.asarray([len(p) for p in prompts]), 0, batch_tokens):
            batch = TokenBatch.of([prompts[int(i)] for i in part], device=self.backbone.device)
            found = self.backbone.decode(self.backbone.generate(batch, None, answer_tokens))
            for i, text in zip(part, found, strict=True):
                answers[int(i)] = self._answer(text)
            done = _count(done, part, prompts)
        return answers

    def _answer(self, text: str) -> str:
        line = text.strip().split("\n", 1)[0].strip()
        for label, word in self.words.items():
            if line.casefold() in (word.casefold(), self._canonical(word).casefold()):
                return label
        return line

    def _canonical(self, word: str) -> str:
        """A word as this tokenizer gives it back."""
        return self.backbone.decode(self.backbone.tokenize_targets([word]))[0]

    def answer_tokens(self) -> int:
        """How many tokens an answer may have."""
        if self.words:
            return max(len(ids) for ids in self.backbone.tokenize_targets(list(self.words.values())))
        return self.settings.max_answer_tokens
