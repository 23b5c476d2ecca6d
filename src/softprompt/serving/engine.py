"""Answers requests for many prompts from one frozen backbone, in one batch (SPoT section 5: mixed-task inference).

Pure: no threads and no network here. Requests of different prompts, of different lengths and kinds, share one forward
pass; an answer does not depend on its neighbours beyond float rounding (to 2e-6 in fp32 logits).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from softprompt.backbones.base import Backbone, TokenBatch
from softprompt.errors import UsageError
from softprompt.inference.evaluate import length_batches
from softprompt.library.store import Library
from softprompt.prompts.batch import PromptBatch, Prompter, Rows
from softprompt.prompts.stack import PromptStack


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to answer.

    Attributes:
        prompt: name of the prompt; None for the bare backbone.
        text: the input, worded as the task words its own.
        max_new_tokens: longest answer.
    """

    prompt: str | None
    text: str
    max_new_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Its answer.

    Attributes:
        text: what the backbone wrote.
        prompt: name of the prompt it was asked with.
        tokens: positions that went through the backbone: prompt, input and answer.
    """

    text: str
    prompt: str | None
    tokens: int


# Gives the prompter of a name and the run in it; raises UnknownNameError where there is none.
Resolve = Callable[[str], tuple[Prompter, int]]


def from_library(library: Library, backbone: Backbone) -> Resolve:
    """Names are prompts of a library, checked against the backbone when they are first asked for."""

    def resolve(name: str) -> tuple[Prompter, int]:
        prompt = library.load(name, backbone).float().to(backbone.device)
        return PromptStack.of([prompt], keys=[name]), 0

    return resolve


class Engine:
    """Answers batches of mixed requests.

    Args:
        backbone: frozen.
        resolve: gives the prompter of a name.
        batch_tokens: most padded positions in one forward pass.
        kept: prompters kept in memory; the least recently used one leaves first.
    """

    def __init__(self, backbone: Backbone, resolve: Resolve, *, batch_tokens: int = 8192, kept: int = 1024) -> None:
        self.backbone = backbone
        self._resolve = resolve
        self._batch_tokens = batch_tokens
        self._kept = kept
        self._prompters: OrderedDict[str, tuple[Prompter, int]] = OrderedDict()

    def prompter(self, name: str) -> tuple[Prompter, int]:
        """The prompter of a name, loaded if it is not in memory.

        Raises:
            UnknownNameError: there is no such prompt.
            IncompatibleBackboneError: it belongs to another backbone.
        """
        if name not in self._prompters:
            self._prompters[name] = self._resolve(name)
            if len(self._prompters) > self._kept:
                self._prompters.popitem(last=False)
        self._prompters.move_to_end(name)
        return self._prompters[name]

    def check(self, request: Request) -> int:
        """The positions a request needs, answer left out; refuses what the backbone cannot hold.

        Raises:
            UsageError: too long, or max_new_tokens below 1.
            UnknownNameError: no such prompt.
        """
        if request.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, got {request.max_new_tokens}.")
        (ids,) = self.backbone.tokenize_inputs([request.text])
        length = self.prompter(request.prompt)[0].prompt_length if request.prompt is not None else 0
        most = self.backbone.max_length
        if most is not None and len(ids) + length > most:
            raise UsageError(
                f"the text has {len(ids)} tokens and its prompt {length}; backbone '{self.backbone.name}' holds {most} "
                "positions: shorten the text."
            )
        return len(ids) + length

    @torch.no_grad()
    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of the requests; see ``check`` for what is refused."""
        needed = [self.check(request) for request in requests]
        inputs = self.backbone.tokenize_inputs([request.text for request in requests])
        answers: list[Answer | None] = [None] * len(requests)
        budgets = np.asarray([request.max_new_tokens for request in requests])
        for depth in np.unique(budgets):
            group = np.flatnonzero(budgets == depth)
            for part in length_batches(np.asarray(needed)[group], 0, self._batch_tokens):
                rows = group[part]
                batch = TokenBatch.of([inputs[r] for r in rows], device=self.backbone.device)
                chosen = [requests[r] for r in rows]
                outputs = self.backbone.generate(batch, self._prompts(chosen), int(depth))
                for r, ids, text in zip(rows, outputs, self.backbone.decode(outputs), strict=True):
                    answers[r] = Answer(text=text, prompt=requests[r].prompt, tokens=needed[r] + len(ids))
        return [answer for answer in answers if answer is not None]

    def _prompts(self, requests: Sequence[Request]) -> PromptBatch | None:
        """One batch of prompts from all prompters that the requests name."""
        names = sorted({r.prompt for r in requests if r.prompt is not None})
        if not names:
            return None
        device, width = self.backbone.device, self.backbone.hidden_size
        parts: list[PromptBatch] = []
        which_B = torch.zeros(len(requests), dtype=torch.int64, device=device)
        # The first unique prompt is empty: requests without a prompt use it.
        lengths, keys, offset = [0], [None], 1
        for name in names:
            mine = [i for i, r in enumerate(requests) if r.prompt == name]
            prompter, run = self.prompter(name)
            part = prompter.prompts(
                Rows(
                    run_B=torch.full((len(mine),), run, dtype=torch.int64, device=device),
                    inputs=[requests[i].text for i in mine],
                    keys=[f"request/{requests[i].text}" for i in mine],
                )
            )
            which_B[torch.tensor(mine, device=device)] = part.which_B + offset
            parts.append(part)
            lengths.extend(part.length_U)
            keys.extend([name] * len(part.length_U))  # type: ignore[list-item]
            offset += len(part.length_U)
        unique_UPH = torch.zeros(offset, max(p.unique_UPH.shape[1] for p in parts), width, device=device)
        start = 1
        for part in parts:
            count, length, _ = part.unique_UPH.shape
            unique_UPH[start : start + count, :length] = part.unique_UPH
            start += count
        return PromptBatch(unique_UPH=unique_UPH, which_B=which_B, length_U=tuple(lengths), key_U=tuple(keys))
