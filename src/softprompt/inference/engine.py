"""Answers requests for many prompts from one frozen backbone, in one batch (SPoT section 5: mixed-task inference).

Pure: no threads and no network here. Requests of different prompts, of different lengths and kinds, share one forward
pass; an answer does not depend on its neighbours beyond float rounding (to 2e-6 in fp32 logits). A prompt's labels are
scored or generated as `softprompt.inference.predict` does it, so both give the same answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.base import Backbone, Decoding
from softprompt.batch import PromptBatch, Rows, TokenBatch
from softprompt.errors import UnknownNameError, UsageError
from softprompt.inference.evaluate import canonical_text, length_batches, scoring_of
from softprompt.prompts.prompter import Prompter
from softprompt.tasks.tuned import Input, Kept, reader, wording_of
from softprompt.tasks.wording import Wording

if TYPE_CHECKING:
    from softprompt.library.store import Library


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to answer.

    Attributes:
        prompt: name of the prompt; None for the bare backbone.
        text: the input: a text, or a row of the columns its prompt's wording reads.
        max_new_tokens: longest answer in free text; a prompt with labels answers with one of them.
        as_is: the text is worded already.
    """

    prompt: str | None
    text: Input
    max_new_tokens: int = 64
    as_is: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Its answer.

    Attributes:
        text: what the backbone wrote, or the most probable label.
        prompt: name of the prompt it was asked with.
        tokens: positions that went through the backbone: prompt, input and answer.
        label: name of the label the text stands for; None where it stands for none or the task has none.
    """

    text: str
    prompt: str | None
    tokens: int
    label: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What a name stands for.

    Attributes:
        prompter: gives the prompt.
        run: the run in it.
        read: turns a request's text or row into what the backbone reads, as it was worded in training; None leaves it.
        label_of: the name of the label that an answer stands for; None where there are none.
        labels: names of the labels; None where there are none.
        candidates: token ids of the answer that stands for each label, with the end token.
        texts: those answers, as the backbone gives them back.
        scored: whether the most probable label is the answer; otherwise it is generated.
        key: identity for caches: another one wherever the prompt is another one.
        chat: whether texts are put into a conversation.
    """

    prompter: Prompter
    run: int = 0
    read: Callable[[Input], str] | None = None
    label_of: Callable[[str], str | None] | None = None
    labels: tuple[str, ...] | None = None
    candidates: Sequence[Sequence[int]] = ()
    texts: Sequence[str] = ()
    scored: bool = False
    key: str | None = None
    chat: bool = False

    @property
    def bytes(self) -> int:
        """Bytes its tensors take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.prompter.trained().values())


# Gives what a name stands for; raises UnknownNameError where there is none.
Resolve = Callable[[str], Served]
# Changes whenever a name stands for something else; None where it stands for nothing.
Version = Callable[[str], str | None]


def served(prompter: Prompter, kept: Kept, backbone: Backbone, key: str | None = None) -> Served:
    """A prompter's run 0, reading texts as what the prompt keeps of its task says.

    Raises:
        IncompatibleBackboneError: the tokenizer has another chat template.
    """
    wording = wording_of(kept)
    made = Served(
        prompter=prompter, read=reader(kept, backbone.tokenizer), key=key, chat=kept.chat is not None,
        label_of=partial(wording.label_of, canonical=canonical_text(backbone)) if wording is not None else None,
    )  # fmt: skip
    return made if wording is None or not wording.label_words else _labelled(made, wording, kept, backbone)


def _labelled(plain: Served, wording: Wording, kept: Kept, backbone: Backbone) -> Served:
    words = wording.label_words or ()
    candidates = backbone.tokenize_targets(list(words))
    return Served(
        prompter=plain.prompter, read=plain.read, label_of=plain.label_of, key=plain.key, chat=plain.chat,
        labels=wording.labels or tuple(words), candidates=candidates, texts=backbone.decode(candidates),
        scored=scoring_of(backbone, words, kept_scoring(kept)) == "labels",
    )  # fmt: skip


def kept_scoring(kept: Kept | None) -> Any:
    """How a prompt's answers are found: as it was validated, ``auto`` where that was not recorded."""
    return getattr(kept, "scoring", None) or "auto"


def from_library(library: Library, backbone: Backbone) -> Resolve:
    """Names are prompts of a library, checked against the backbone when they are first asked for.

    Texts are worded as those the prompt was tuned on, and put into the same conversation where there was one.
    """

    def resolve(name: str) -> Served:
        stack = library.stack([name], backbone)
        return served(stack, library.get(name).manifest, backbone, stack.keys[0])

    return resolve


def first_of(served: Mapping[str, Served], otherwise: Resolve | None = None) -> Resolve:
    """Names that stand for something already in memory, e.g. prompts generated by SharPT; others are asked ``otherwise``."""

    def resolve(name: str) -> Served:
        if name in served:
            return served[name]
        if otherwise is None:
            raise UnknownNameError("prompt", name, served)
        return otherwise(name)

    return resolve


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A request that was read, worded, tokenised and found to fit.

    Attributes:
        request: what was asked.
        served: what its prompt's name stood for then; None for the bare backbone.
        worded: what the backbone reads.
        ids: its tokens.
        length: prompt tokens.
        depth: the most tokens of the answer.
    """

    request: Request
    served: Served | None
    worded: str
    ids: Sequence[int]
    length: int
    depth: int

    @property
    def scored(self) -> bool:
        """Whether the answer is the most probable label."""
        return self.served is not None and self.served.scored

    @property
    def positions(self) -> int:
        """Prompt and text."""
        return self.length + len(self.ids)

    def answer(self, text: str, tokens: int) -> Reply:
        """The answer with this text, which took so many positions behind prompt and text."""
        label_of = self.served.label_of if self.served is not None else None
        label = label_of(text) if label_of is not None else None
        return Reply(text=text, prompt=self.request.prompt, tokens=self.positions + tokens, label=label)


class Engine:
    """Answers batches of mixed requests.

    Args:
        backbone: frozen.
        resolve: gives the prompter of a name.
        version: tells when a name stands for something else, which is then resolved again; names never change where None.
        batch_tokens: most padded positions in one forward pass.
        prompt_bytes: of the prompts kept in memory; the least recently used one leaves first.
    """

    def __init__(
        self, backbone: Backbone, resolve: Resolve, *, version: Version | None = None, batch_tokens: int = 8192,
        prompt_bytes: int = 1 << 30,
    ) -> None:  # fmt: skip
        self.backbone = backbone
        self.batch_tokens = batch_tokens
        self._resolve, self._version = resolve, version
        self._prompt_bytes = prompt_bytes
        self._served: OrderedDict[str, tuple[str | None, Served]] = OrderedDict()
        self._lock = Lock()  # requests are prepared beside the thread that answers

    def prompter(self, name: str) -> Served:
        """What a name stands for now, loaded if it is not in memory.

        Raises:
            UnknownNameError: there is no such prompt.
            IncompatibleBackboneError: it belongs to another backbone.
        """
        with self._lock:
            version = self._version(name) if self._version is not None else None
            found = self._served.pop(name, None)
            if found is None or found[0] != version:
                found = (version, self._resolve(name))
            self._served[name] = found
            held = sum(one.bytes for _, one in self._served.values()) if len(self._served) > 1 else 0
            while held > self._prompt_bytes and len(self._served) > 1:
                held -= self._served.popitem(last=False)[1][1].bytes
            return found[1]

    def prepare(self, request: Request, *, like: Prepared | None = None) -> Prepared:
        """Read, word, tokenise and check a request; safe beside a thread that answers.

        Args:
            request: one text.
            like: another text of the same request: its prompt is taken as it was then, whatever has replaced it since.

        Raises:
            UsageError: too long, a row where a text is needed, or max_new_tokens below 1.
            UnknownNameError: no such prompt.
        """
        if request.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, got {request.max_new_tokens}.")
        if like is not None:
            known = like.served
        else:
            known = self.prompter(request.prompt) if request.prompt is not None else None
        text = self._worded(request, known)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                "the text holds half of a character (a lone surrogate): send whole Unicode text."
            ) from None
        (ids,) = self.backbone.tokenize_inputs([text])
        length = known.prompter.prompt_length if known is not None else 0
        if known is None or not known.candidates:
            depth = request.max_new_tokens
        else:
            lengths = [len(candidate) for candidate in known.candidates]
            depth = sum(lengths) if known.scored else max(lengths)
        made = Prepared(request=request, served=known, worded=text, ids=ids, length=length, depth=depth)
        self.check_fits(made)
        return made

    def _worded(self, request: Request, known: Served | None) -> str:
        """A request's text as its prompt's inputs were worded."""
        if known is not None and known.read is not None and not request.as_is:
            return known.read(request.text)
        if not isinstance(request.text, str):
            raise UsageError("a row of columns was given where a text is read as it is: give its text.")
        return request.text

    def check_fits(self, made: Prepared) -> None:
        """Raises UsageError where the backbone cannot hold a row."""
        backbone, causal = self.backbone, self.backbone.kind == "causal"
        needed = made.positions + (made.depth if causal else 0)
        if backbone.max_length is not None and needed > backbone.max_length:
            behind = f", its answer {made.depth}" if causal else ""
            raise UsageError(
                f"the text has {len(made.ids)} tokens and its prompt {made.length}{behind}; backbone '{backbone.name}' holds "
                f"{backbone.max_length} positions: shorten the text."
            )
        most = getattr(backbone, "max_target_length", None)
        if most is not None and made.depth > most:
            raise UsageError(
                f"an answer of {made.depth} tokens was asked for; backbone '{backbone.name}' writes {most}."
            )
        if causal and not made.positions:
            raise UsageError("a decoder-only backbone cannot answer an empty text without a prompt: give a text.")

    def check(self, request: Request) -> int:
        """The positions a request needs, answer left out; refusals as in ``prepare``."""
        return self.prepare(request).positions

    @torch.no_grad()
    def label_scores(self, rows: Sequence[Prepared]) -> list[Tensor]:
        """By row, float32 [labels], the log-probability of each label's answer in nats; all rows in one pass."""
        batch = TokenBatch.of([row.ids for row in rows], device=self.backbone.device)
        candidates = [list(row.served.candidates) if row.served is not None else [] for row in rows]
        return self.backbone.label_scores(batch, self.prompts(rows), candidates)

    @torch.no_grad()
    def begin(self, rows: Sequence[Prepared]) -> Decoding:
        """Begin to generate the rows' answers, all in one batch."""
        batch = TokenBatch.of([row.ids for row in rows], device=self.backbone.device)
        return self.backbone.decoding(batch, self.prompts(rows), max(row.depth for row in rows))

    def parts(self, rows: Sequence[Prepared]) -> list[list[Prepared]]:
        """The rows in batches that one forward pass takes."""
        lengths = np.asarray([row.positions + (row.depth if row.scored else 0) for row in rows])
        return [[rows[i] for i in part] for part in length_batches(lengths, 0, self.batch_tokens)]

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """Answers in the order of the requests; see ``prepare`` for what is refused."""
        rows = [self.prepare(request) for request in requests]
        found: dict[int, Reply] = {}
        for part in self.parts([row for row in rows if row.scored]):
            for row, scores in zip(part, self.label_scores(part), strict=True):
                found[id(row)] = self.most_probable(row, scores)
        generated = [row for row in rows if not row.scored]
        for depth in sorted({row.depth for row in generated}):
            for part in self.parts([row for row in generated if row.depth == depth]):
                batch = TokenBatch.of([row.ids for row in part], device=self.backbone.device)
                outputs = self.backbone.generate(batch, self.prompts(part), depth)
                for row, ids, text in zip(part, outputs, self.backbone.decode(outputs), strict=True):
                    found[id(row)] = row.answer(text, len(ids))
        return [found[id(row)] for row in rows]

    def most_probable(self, row: Prepared, scores: Tensor) -> Reply:
        """The answer where labels were scored: ``scores`` is float [labels], log-probabilities."""
        assert row.served is not None
        return row.answer(row.served.texts[int(scores.argmax())], row.depth)

    def prompts(self, rows: Sequence[Prepared]) -> PromptBatch | None:
        """One batch of prompts from all that the rows name, as they were when the rows were prepared."""
        known: dict[int, Served] = {id(row.served): row.served for row in rows if row.served is not None}
        if not known:
            return None
        device, width = self.backbone.device, self.backbone.hidden_size
        parts: list[PromptBatch] = []
        which_B = torch.zeros(len(rows), dtype=torch.int64, device=device)
        # The first unique prompt is empty: requests without a prompt use it.
        lengths: list[int] = [0]
        keys: list[str | None] = [None]
        for number, served in known.items():
            mine = [i for i, row in enumerate(rows) if id(row.served) == number]
            part = _part(served, [rows[i].worded for i in mine], device)
            which_B[torch.tensor(mine, device=device)] = part.which_B + len(lengths)
            parts.append(part)
            lengths.extend(part.length_U)
            keys.extend(None if None in (served.key, key) else f"{served.key}/{key}" for key in part.key_U)
        unique_UPH = torch.zeros(len(lengths), max(p.unique_UPH.shape[1] for p in parts), width, device=device)
        start = 1
        for part in parts:
            count, length, _ = part.unique_UPH.shape
            unique_UPH[start : start + count, :length] = part.unique_UPH
            start += count
        return PromptBatch(unique_UPH=unique_UPH, which_B=which_B, length_U=tuple(lengths), key_U=tuple(keys))


def _part(served: Served, texts: Sequence[str], device: torch.device) -> PromptBatch:
    run_B = torch.full((len(texts),), served.run, dtype=torch.int64, device=device)
    return served.prompter.prompts(Rows(run_B=run_B, inputs=texts, keys=[f"request/{text}" for text in texts]))
