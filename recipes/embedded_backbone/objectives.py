"""Training examples from plain text: reading aloud, questions with announced answers, span corruption, prefix LM.

The *reading* mixture makes a decoder depend on its encoder early: it copies, restores masked words, goes on, and
answers questions whose answer words are announced in the input. Each kind of question and label set also has a
*slot*: a few trained rows that stand in front of the input in place of the instruction, as a soft prompt will.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedded_backbone.corpus import Corpus
from embedded_backbone.questions import MAKERS, Question, content_words, light_edit, pick
from embedded_backbone.wording import BINARY, NEGATIVE, POSITIVE, TERNARY

TELLING = ("copy", "restore", "masked", "first", "last", "after", "continue", "next", "lookup", "shorten")
SETS_PER_KIND = 4
NO_SLOT = -1
SLOTTED = 0.5
_QUESTION_WEIGHTS = {
    "paraphrase": 4, "likeness": 4, "inference": 5, "sentiment": 3, "acceptable": 2,
    "contains": 1, "neighbours": 1, "answers": 3, "choice": 2, "style": 0.5,
}  # fmt: skip
_TELLING_WEIGHTS = {
    "copy": 2, "restore": 2, "masked": 4, "first": 1, "last": 1, "after": 2, "continue": 1, "next": 1, "lookup": 3, "shorten": 1,
}  # fmt: skip
_DEFAULT_SET = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Text to text; ``slot`` is the row of the slot prompt that replaces the instruction, or ``NO_SLOT``."""

    inputs: str
    targets: str
    kind: str
    slot: int = NO_SLOT


def slot_names() -> list[str]:
    """The slots in the order of their rows: every telling, then every kind of question with each label set."""
    return [*TELLING, *(f"{kind}/{index}" for kind in MAKERS for index in range(SETS_PER_KIND))]


_SLOTS = {name: row for row, name in enumerate(slot_names())}


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """An example before its label is known: a question, or a finished example."""

    question: Question | None = None
    example: Example | None = None


def draft(rng: random.Random, corpus: Corpus, *, telling: float, short: float) -> Draft:
    """One draft: with probability ``telling`` something to tell, else a question.

    Args:
        short: 0 keeps everything short, 1 lets texts be as long as they come.
    """
    if rng.random() < telling:
        kind = rng.choices(list(_TELLING_WEIGHTS), list(_TELLING_WEIGHTS.values()))[0]
        return Draft(example=_tell(rng, corpus, kind, short))
    kind = rng.choices(list(_QUESTION_WEIGHTS), list(_QUESTION_WEIGHTS.values()))[0]
    return Draft(question=MAKERS[kind](rng, corpus))


def settle(rng: random.Random, question: Question, score: float) -> Question | Example:
    """Label a question whose answer hangs on a likeness ``score`` in [-1, 1]; it may be asked for the grade itself."""
    graded = f"{round(max(0.0, score) * 25) / 5:.1f}"
    if rng.random() < 0.4:
        shown = _show(question.fields)
        slotted = rng.random() < SLOTTED
        prefix = (
            "" if slotted else pick(rng, ("how alike are they from 0.0 to 5.0: ", "grade the likeness: ", "score "))
        )
        slot = _SLOTS["likeness/3"] if slotted else NO_SLOT
        return Example(inputs=prefix + shown, targets=graded, kind="grade", slot=slot)
    return replace(question, label=int(score < 0.7))


def ask(rng: random.Random, question: Question) -> Example:
    """Put a question into words: with a slot, with its usual label words, or with announced ones."""
    shown, style = _show(question.fields), rng.random()
    classes = len(question.conditions)
    if style < SLOTTED:
        index = int(rng.random() * min(SETS_PER_KIND, len(question.sets)))
        lead = "" if rng.random() < 0.5 else pick(rng, ("task ", "question ", "data ", question.kind + " "))
        return Example(
            inputs=lead + shown, targets=question.sets[index][question.label], kind=question.kind,
            slot=_SLOTS[f"{question.kind}/{index}"],
        )  # fmt: skip
    if style < SLOTTED + 0.1:
        words = question.sets[_DEFAULT_SET]
        inputs = f"{question.kind} {shown}"
        return Example(inputs=inputs, targets=words[question.label], kind=question.kind)
    words = _announced(rng, question, classes)
    order = list(range(classes))
    rng.shuffle(order)
    said = [pick(rng, question.conditions[at]) for at in order]
    rules = [f"{words[at]} if {what}" for at, what in zip(order, said, strict=True)]
    if rng.random() < 0.3:
        rules[-1] = f"otherwise {words[order[-1]]}"
    elif rng.random() < 0.3:
        rules = [f"if {what} say {words[at]}" for at, what in zip(order, said, strict=True)]
    rule = pick(rng, ("answer ", "", "say ")) + pick(rng, (", ", "; ", " or ")).join(rules)
    inputs = f"{rule}: {shown}" if rng.random() < 0.8 else f"{shown} {rule}."
    return Example(inputs=inputs, targets=words[question.label], kind=question.kind)


def _announced(rng: random.Random, question: Question, classes: int) -> tuple[str, ...]:
    """Label words: those that suit, those of another task, or any words at all; the order may be turned."""
    draw = rng.random()
    if draw < 0.35:
        return pick(rng, question.sets)
    if draw < 0.65:
        words = list(pick(rng, BINARY if classes == 2 else TERNARY))
    else:
        texts = [word for field in question.fields for word in field[1].split() if word.isalpha()]
        pool = list(_POLAR) if rng.random() < 0.5 or len(set(texts)) < classes else sorted(set(texts))
        words = rng.sample(pool, classes)
    rng.shuffle(words)
    return tuple(words)


_POLAR = tuple(sorted(POSITIVE | NEGATIVE))


def _show(fields: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{key}: {text}" for key, text in fields)


def _tell(rng: random.Random, corpus: Corpus, kind: str, short: float) -> Example:
    passage = corpus.passage(rng, at_least=2)
    longest = 6 + int(rng.random() * (6 + 16 * short))
    words = pick(rng, passage.sentences).split()
    if len(words) > longest:
        start = int(rng.random() * (len(words) - longest))
        words = words[start : start + longest]
    text = " ".join(words)
    lead, inputs, targets = _TELLERS[kind](rng, words, text, passage.sentences)
    slotted = rng.random() < SLOTTED and kind not in ("first", "last", "after")
    return Example(
        inputs=inputs if slotted else f"{lead}: {inputs}", targets=targets, kind=kind,
        slot=_SLOTS[kind] if slotted else NO_SLOT,
    )  # fmt: skip


Told = tuple[str, str, str]


def _tell_copy(rng: random.Random, words: list[str], text: str, _: Sequence[str]) -> Told:
    return pick(rng, ("copy", "repeat", "say again")), text, text


def _tell_shorten(rng: random.Random, words: list[str], text: str, _: Sequence[str]) -> Told:
    kept = [words[at] for at in content_words(words)] or words[:1]
    return pick(rng, ("content words", "keywords", "the main words")), text, " ".join(kept)


def _tell_restore(rng: random.Random, words: list[str], text: str, _: Sequence[str]) -> Told:
    words = words[:16]
    rate = pick(rng, (0.15, 0.3, 0.5))
    shown = ["[MASK]" if rng.random() < rate else word for word in words]
    return pick(rng, ("restore", "write in full", "fill in")), " ".join(shown), " ".join(words)


def _tell_masked(rng: random.Random, words: list[str], text: str, _: Sequence[str]) -> Told:
    count = min(1 + int(rng.random() * 4), len(words) - 1)
    places = set(rng.sample(range(len(words)), count))
    shown = ["[MASK]" if at in places else word for at, word in enumerate(words)]
    targets = " ".join(words[at] for at in sorted(places))
    return pick(rng, ("missing words", "which words are masked", "masked")), " ".join(shown), targets


def _tell_first(rng: random.Random, words: list[str], text: str, _: Sequence[str]) -> Told:
    count = 1 + int(rng.random() * 3)
    return (f"first {count} words" if count > 1 else "first word"), text, " ".join(words[:count])


def _tell_last(rng: random.Random, words: list[str], text: str, _: Sequence[str]) -> Told:
    count = 1 + int(rng.random() * 3)
    return (f"last {count} words" if count > 1 else "last word"), text, " ".join(words[-count:])


def _tell_after(rng: random.Random, words: list[str], text: str, _: Sequence[str]) -> Told:
    at = int(rng.random() * (len(words) - 1))
    if rng.random() < 0.7:
        return f"which word follows {words[at]}", text, words[at + 1]
    return f"which word comes before {words[at + 1]}", text, words[at]


def _tell_continue(rng: random.Random, words: list[str], text: str, sentences: Sequence[str]) -> Told:
    full = " ".join(sentences[:3]).split()[:40]
    cut = min(len(full) - 3, 6 + int(rng.random() * 24))
    return pick(rng, ("continue", "go on")), " ".join(full[:cut]), " ".join(full[cut : cut + 8])


def _tell_next(rng: random.Random, words: list[str], text: str, sentences: Sequence[str]) -> Told:
    return pick(rng, ("next sentence", "what comes next")), sentences[0], " ".join(sentences[-1].split()[:10])


def _tell_lookup(rng: random.Random, words: list[str], text: str, sentences: Sequence[str]) -> Told:
    source = pick(rng, sentences).split()
    places = content_words(source) or [0]
    at = pick(rng, places)
    length = 1 + int(rng.random() * 2)
    answer = " ".join(source[at : at + length]).strip(",.;:()\"'")
    low = max(0, at - 2 - int(rng.random() * 7))
    wh = pick(rng, ("what", "who", "which", "where", "when", "[MASK]"))
    asked = light_edit(rng, " ".join([*source[low:at], wh, *source[at + length : at + length + 6]])).rstrip(".,")
    context = " ".join(source)
    if rng.random() < 0.4:
        extra = pick(rng, sentences)
        context = f"{extra} {context}" if rng.random() < 0.5 else f"{context} {extra}"
    lead = pick(rng, ("answer", "find", "squad"))
    return lead, f"question: {asked}? context: {context}", answer or source[at]


_TELLERS = {
    "copy": _tell_copy, "restore": _tell_restore, "masked": _tell_masked, "first": _tell_first, "last": _tell_last,
    "after": _tell_after, "continue": _tell_continue, "next": _tell_next, "lookup": _tell_lookup, "shorten": _tell_shorten,
}  # fmt: skip


def span_corruption(
    rng: random.Random, ids: Sequence[int], *, sentinels: Sequence[int], noise: float = 0.15, mean_span: float = 3.0
) -> tuple[list[int], list[int]]:
    """T5's objective: spans of mean length ``mean_span`` covering ``noise`` of the tokens become sentinels.

    Returns:
        Inputs with one sentinel for each span, and targets with each sentinel followed by what it stands for.
    """
    noisy = max(1, min(round(len(ids) * noise), len(ids) - 1))
    spans = max(1, min(round(noisy / mean_span), len(ids) - noisy, len(sentinels) - 1))
    lengths, gaps = _partition(rng, noisy, spans), _partition(rng, len(ids) - noisy, spans)
    inputs: list[int] = []
    targets: list[int] = []
    at = 0
    for sentinel, gap, length in zip(sentinels, gaps, lengths, strict=False):
        inputs += [*ids[at : at + gap], sentinel]
        targets += [sentinel, *ids[at + gap : at + gap + length]]
        at += gap + length
    return inputs, [*targets, sentinels[spans]]


def prefix_lm(rng: random.Random, ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """Lester's adaptation: a chunk cut at a uniformly drawn point; the first part is read, the second told."""
    cut = 1 + int(rng.random() * (len(ids) - 1))
    return list(ids[:cut]), list(ids[cut:])


def _partition(rng: random.Random, total: int, parts: int) -> list[int]:
    cuts = sorted(rng.sample(range(1, total), parts - 1)) if parts > 1 else []
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]
