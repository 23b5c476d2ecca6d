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
from softprompt.tasks.chat import wording


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What a name stands for.

    Attributes:
        prompter: gives the prompt.
        run: the run in it.
        wording: turns a request's text into what the backbone reads (a chat template); None leaves it.
    """

    prompter: Prompter
    run: int = 0
    wording: Callable[[str], str] | None = None


# Gives what a name stands for; raises UnknownNameError where there is none.
Resolve = Callable[[str], Served]


def from_library(library: Library, backbone: Backbone) -> Resolve:
    """Names are prompts of a library, checked against the backbone when they are first asked for.

    Texts for a prompt that was tuned on conversations are put into the same conversation.
    """

    def resolve(name: str) -> Served:
        prompt = library.load(name, backbone).float().to(backbone.device)
        chat = library.get(name).manifest.chat
        worded = wording(chat, backbone.tokenizer) if chat is not None else None
        return Served(prompter=PromptStack.of([prompt], keys=[name]), wording=worded)

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
        self._served: OrderedDict[str, Served] = OrderedDict()

    def prompter(self, name: str) -> Served:
        """What a name stands for, loaded if it is not in memory.

        Raises:
            UnknownNameError: there is no such prompt.
            IncompatibleBackboneError: it belongs to another backbone.
        """
        if name not in self._served:
            self._served[name] = self._resolve(name)
            if len(self._served) > self._kept:
                self._served.popitem(last=False)
        self._served.move_to_end(name)
        return self._served[name]

    def worded(self, request: Request) -> str:
        """A request's text as its prompt's inputs were worded."""
        if request.prompt is None:
            return request.text
        wording = self.prompter(request.prompt).wording
        return request.text if wording is None else wording(request.text)

    def check(self, request: Request) -> int:
        """The positions a request needs, answer left out; refuses what the backbone cannot hold.

        Raises:
            UsageError: too long, or max_new_tokens below 1.
            UnknownNameError: no such prompt.
        """
        (ids,) = self.backbone.tokenize_inputs([self.worded(request)])
        return self._needed(request, len(ids))

    def _needed(self, request: Request, tokens: int) -> int:
        """``check`` where the text's tokens are known."""
        if request.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, got {request.max_new_tokens}.")
        length = self.prompter(request.prompt).prompter.prompt_length if request.prompt is not None else 0
        most = self.backbone.max_length
        if most is not None and tokens + length > most:
            raise UsageError(
                f"the text has {tokens} tokens and its prompt {length}; backbone '{self.backbone.name}' holds {most} "
                "positions: shorten the text."
            )
        return tokens + length

    @torch.no_grad()
    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of the requests; see ``check`` for what is refused."""
        inputs = self.backbone.tokenize_inputs([self.worded(request) for request in requests])
        needed = [self._needed(request, len(ids)) for request, ids in zip(requests, inputs, strict=True)]
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
            served, texts = self.prompter(name), [self.worded(requests[i]) for i in mine]
            part = served.prompter.prompts(
                Rows(
                    run_B=torch.full((len(mine),), served.run, dtype=torch.int64, device=device),
                    inputs=texts,
                    keys=[f"request/{text}" for text in texts],
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
