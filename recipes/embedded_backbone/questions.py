"""Self-supervised questions with few answers: each is made from plain text and carries its own label.

A question has fields (what is shown), one condition for each class (what that class means, in several wordings) and
the label sets that suit it. How it is asked and in which words it is answered is decided in ``objectives``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from embedded_backbone.corpus import Corpus, Passage
from embedded_backbone.wording import FUNCTION_WORDS, NEGATIVE, NEGATORS, OPPOSITES, POSITIVE

T = TypeVar("T")
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question made from text.

    Attributes:
        kind: the maker's name.
        fields: (key, text) in the order shown.
        conditions: for each class, wordings of what it means.
        label: the class, or -1 where ``pair`` has to be scored by the encoder first.
        sets: names of label sets that suit the classes, first the most usual.
        pair: two texts whose likeness decides the label.
    """

    kind: str
    fields: Fields
    conditions: tuple[tuple[str, ...], ...]
    label: int
    sets: tuple[tuple[str, ...], ...]
    pair: tuple[str, str] | None = None


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """One of ``options``."""
    return options[int(rng.random() * len(options))]


def content_words(words: Sequence[str]) -> list[int]:
    """Places of words that carry content: four letters or more, or capitalised inside the sentence, or a number."""
    return [
        at for at, word in enumerate(words)
        if word.lower() not in FUNCTION_WORDS and (len(word) > 3 or word[0].isdigit() or (at and word[0].isupper()))
    ]  # fmt: skip


def light_edit(rng: random.Random, sentence: str) -> str:
    """Nearly the same words in nearly the same order: function words dropped, a clause moved, the ending cut."""
    words = sentence.split()
    if ", " in sentence and rng.random() < 0.4:
        parts = sentence.rstrip(".").split(", ")
        at = 1 + int(rng.random() * (len(parts) - 1))
        words = (", ".join(parts[at:] + parts[:at]) + ".").split()
    kept = [word for word in words if word.lower() not in FUNCTION_WORDS or rng.random() > 0.35]
    if len(kept) > 8 and rng.random() < 0.4:
        kept = kept[: len(kept) - 1 - int(rng.random() * 3)]
    return " ".join(kept if len(kept) > 2 else words)


def swap_content(rng: random.Random, sentence: str, other: str, count: int) -> str:
    """``count`` content words replaced by content words of another sentence."""
    words, others = sentence.split(), other.split()
    places, fresh = content_words(words), content_words(others)
    for place in rng.sample(places, min(count, len(places))):
        if fresh:
            words[place] = others[pick(rng, fresh)].strip(',.;:()"')
    return " ".join(words)


def contradict(rng: random.Random, sentence: str) -> str | None:
    """One word turned into its opposite, or a number changed; None where there is none."""
    words = sentence.split()
    places = [at for at, word in enumerate(words) if word in OPPOSITES]
    digits = [at for at, word in enumerate(words) if word.strip(",.()").isdigit()]
    if digits and (not places or rng.random() < 0.3):
        at = pick(rng, digits)
        words[at] = words[at].replace(
            words[at].strip(",.()"), str(int(words[at].strip(",.()")[:9]) + 1 + int(rng.random() * 40))
        )
    elif places:
        at = pick(rng, places)
        words[at] = OPPOSITES[words[at]]
    else:
        return None
    return " ".join(words)


def clause(rng: random.Random, sentence: str) -> str:
    """A part of the sentence which stands for itself: between commas, or its beginning."""
    parts = [part for part in sentence.rstrip(".!?").replace(" and ", ", ").split(", ") if part.count(" ") >= 2]
    if len(parts) > 1:
        return pick(rng, parts) + "."
    words = sentence.split()
    return " ".join(words[: max(4, int(len(words) * (0.5 + 0.4 * rng.random())))])


def two_texts(rng: random.Random, passage: Passage, other: Passage) -> tuple[str, str, int]:
    """Two sentences and how they relate: 0 the same edited, 1 nearly the same, 2 the same passage, 3 another document."""
    first = pick(rng, passage.sentences)
    relation = int(rng.random() * 4)
    if relation == 0:
        return first, light_edit(rng, first), 0
    if relation == 1:
        edited = swap_content(rng, light_edit(rng, first), pick(rng, other.sentences), 1 + int(rng.random() * 3))
        return first, edited, 1
    if relation == 2:
        return first, pick(rng, [s for s in passage.sentences if s is not first] or other.sentences), 2
    return first, pick(rng, other.sentences), 3


def _paraphrase(rng: random.Random, corpus: Corpus) -> Question:
    passage = corpus.passage(rng)
    other = passage if rng.random() < 0.5 else corpus.passage(rng, at_least=1)
    first, second, relation = two_texts(rng, passage, other)
    if rng.random() < 0.3:
        second, relation = light_edit(rng, first), 0
    if rng.random() < 0.5:
        first, second = second, first
    keys = pick(rng, (("sentence1", "sentence2"), ("question1", "question2"), ("first", "second"), ("a", "b")))
    return Question(
        kind="paraphrase", fields=((keys[0], first), (keys[1], second)), label=int(relation != 0),
        conditions=(("both say the same", "they are paraphrases", "the second repeats the first"),
                    ("they differ", "they say different things", "the second changes the first")),
        sets=(("duplicate", "not_duplicate"), ("equivalent", "not_equivalent"), ("yes", "no"), ("same", "different")),
    )  # fmt: skip


def _likeness(rng: random.Random, corpus: Corpus) -> Question:
    passage = corpus.passage(rng)
    first, second, _ = two_texts(rng, passage, corpus.passage(rng, at_least=1))
    keys = pick(rng, (("sentence1", "sentence2"), ("question1", "question2"), ("a", "b")))
    return Question(
        kind="likeness", fields=((keys[0], first), (keys[1], second)), label=-1, pair=(first, second),
        conditions=(("they are about the same", "their meaning is close"), ("they are not alike", "their meaning is far apart")),
        sets=(("equivalent", "not_equivalent"), ("duplicate", "not_duplicate"), ("yes", "no")),
    )  # fmt: skip


def _inference(rng: random.Random, corpus: Corpus) -> Question:
    passage = corpus.passage(rng)
    premise, label = pick(rng, passage.sentences), int(rng.random() * 3)
    hypothesis: str | None = clause(rng, premise) if rng.random() < 0.6 else light_edit(rng, premise)
    if label == 2:
        hypothesis = contradict(rng, hypothesis or premise) or contradict(rng, premise)
        if hypothesis is None:
            hypothesis, label = clause(rng, premise), 0
    elif label == 1:
        others = [sentence for sentence in passage.sentences if sentence is not premise] or [premise[::-1]]
        hypothesis = (
            pick(rng, others) if rng.random() < 0.5 else swap_content(rng, hypothesis or premise, pick(rng, others), 2)
        )
    assert hypothesis is not None
    fields = (("hypothesis", hypothesis), ("premise", premise))
    if rng.random() < 0.3:
        fields = (("sentence1", premise), ("sentence2", hypothesis))
    return Question(
        kind="inference", fields=fields, label=label,
        conditions=(("it follows", "the premise says so"), ("one cannot know", "something is new"),
                    ("it is contrary", "the premise denies it")),
        sets=(("entailment", "neutral", "contradiction"), ("yes", "maybe", "no"), ("true", "unknown", "false")),
    )  # fmt: skip


def _sentiment(rng: random.Random, corpus: Corpus) -> Question:
    for _ in range(12):
        for sentence in corpus.passage(rng, at_least=2).sentences:
            words = sentence.split()
            bare = [word.strip(",.;:!?\"'()").lower() for word in words]
            good, bad = sum(w in POSITIVE for w in bare), sum(w in NEGATIVE for w in bare)
            if bool(good) != bool(bad) and not NEGATORS.intersection(bare):
                return _sentiment_of(rng, words, bare, int(bad > 0))
    return _paraphrase(rng, corpus)


def _sentiment_of(rng: random.Random, words: list[str], bare: list[str], label: int) -> Question:
    polar = POSITIVE | NEGATIVE
    hide = rng.random()
    if hide < 0.25:
        words = ["[MASK]" if word in polar else shown for word, shown in zip(bare, words, strict=True)]
    if len(words) > 14 and rng.random() < 0.5:
        at = next(place for place, word in enumerate(bare) if word in polar)
        low = max(0, at - int(rng.random() * 8))
        words = words[low : at + 2 + int(rng.random() * 8)]
    key = pick(rng, ("sentence", "review", "text", "sentence", "it"))
    return Question(
        kind="sentiment", fields=((key, " ".join(words)),), label=label,
        conditions=(("it is favourable", "the tone is good", "the feeling is pleasant"),
                    ("it is unfavourable", "the tone is bad", "the feeling is unpleasant")),
        sets=(("positive", "negative"), ("good", "bad"), ("yes", "no")),
    )  # fmt: skip


def _acceptable(rng: random.Random, corpus: Corpus) -> Question:
    words = pick(rng, corpus.passage(rng, at_least=1).sentences).split()[:20]
    label = int(rng.random() < 0.5)
    if label:
        way, at = int(rng.random() * 5), int(rng.random() * (len(words) - 2))
        if way == 0:
            part = words[at : at + 5]
            rng.shuffle(part)
            words[at : at + 5] = part
            words[at], words[at + 1] = words[at + 1], words[at]
        elif way == 1:
            words.insert(at, words[int(rng.random() * len(words))])
        elif way == 2:
            places = [place for place, word in enumerate(words) if word.lower() in FUNCTION_WORDS] or [at]
            del words[pick(rng, places)]
        elif way == 3:
            words[at], words[at + 2] = words[at + 2], words[at]
        else:
            other = pick(rng, corpus.passage(rng, at_least=1).sentences).split()
            words[at] = pick(rng, other)
    return Question(
        kind="acceptable", fields=(("sentence", " ".join(words)),), label=label,
        conditions=(("the sentence is well formed", "it is good English"), ("the sentence is broken", "something is wrong in it")),
        sets=(("acceptable", "unacceptable"), ("yes", "no"), ("right", "wrong")),
    )  # fmt: skip


def _contains(rng: random.Random, corpus: Corpus) -> Question:
    passage, other = corpus.passage(rng), corpus.passage(rng, at_least=1)
    text = " ".join(passage.sentences[: 1 + int(rng.random() * 2)])
    label = int(rng.random() < 0.5)
    source = (pick(rng, other.sentences) if label else text).split()
    word = source[pick(rng, content_words(source) or [0])].strip(",.;:()\"'")
    if label and word.lower() in text.lower():
        label = 0
    return Question(
        kind="contains", fields=(("word", word), ("text", text)), label=label,
        conditions=(("the word is in the text", "the text has it"), ("the word is not in the text", "the text lacks it")),
        sets=(("true", "false"), ("yes", "no"), ("right", "wrong")),
    )  # fmt: skip


def _neighbours(rng: random.Random, corpus: Corpus) -> Question:
    passage = corpus.passage(rng)
    at, label = int(rng.random() * max(1, len(passage.sentences) - 1)), int(rng.random() < 0.5)
    first, second = passage.sentences[at], passage.sentences[min(at + 1, len(passage.sentences) - 1)]
    if label:
        second = pick(rng, corpus.passage(rng, at_least=1).sentences)
    keys = pick(
        rng, (("question", "sentence"), ("passage", "sentence"), ("sentence1", "sentence2"), ("premise", "hypothesis"))
    )
    return Question(
        kind="neighbours", fields=((keys[0], first), (keys[1], second)), label=label,
        conditions=(("both are of one passage", "the second goes on from the first", "they belong together"),
                    ("they are of different passages", "the second has nothing to do with the first")),
        sets=(("entailment", "not_entailment"), ("yes", "no"), ("true", "false")),
    )  # fmt: skip


def _answers(rng: random.Random, corpus: Corpus) -> Question:
    passage = corpus.passage(rng)
    source = pick(rng, passage.sentences)
    words = source.split()
    place, label = pick(rng, content_words(words) or [0]), int(rng.random() < 0.5)
    asked = [*words]
    asked[place] = pick(rng, ("what", "which", "who", "what"))
    low = max(0, place - int(rng.random() * 8))
    question = light_edit(rng, " ".join(asked[low : place + 8])).rstrip(".,") + "?"
    shown = source if not label else pick(rng, [s for s in passage.sentences if s is not source] or [source[::-1]])
    return Question(
        kind="answers", fields=(("question", question), ("sentence", shown)), label=label,
        conditions=(("the sentence answers the question", "the answer is there"), ("it does not answer", "the answer is missing")),
        sets=(("entailment", "not_entailment"), ("yes", "no"), ("true", "false")),
    )  # fmt: skip


def _choice(rng: random.Random, corpus: Corpus) -> Question:
    passage, other = corpus.passage(rng), corpus.passage(rng, at_least=1)
    label, way = int(rng.random() < 0.5), rng.random()
    if way < 0.5:
        at = int(rng.random() * max(1, len(passage.sentences) - 1))
        stem = ("premise", passage.sentences[at])
        right, wrong = passage.sentences[min(at + 1, len(passage.sentences) - 1)], pick(rng, other.sentences)
    else:
        words, others = pick(rng, passage.sentences).split(), pick(rng, other.sentences).split()
        place = pick(rng, content_words(words) or [0])
        right, wrong = words[place].strip(",.;:"), others[pick(rng, content_words(others) or [0])].strip(",.;:")
        words[place] = pick(rng, ("[MASK]", "_"))
        stem = ("sentence", " ".join(words))
    pair = (wrong, right) if label else (right, wrong)
    return Question(
        kind="choice", fields=(("choice1", pair[0]), ("choice2", pair[1]), stem), label=label,
        conditions=(("the first fits", "the first choice goes with it"), ("the second fits", "the second choice goes with it")),
        sets=(("choice1", "choice2"), ("first", "second"), ("1", "2")),
    )  # fmt: skip


def _style(rng: random.Random, corpus: Corpus) -> Question:
    want = int(rng.random() * len(corpus.files))
    passage = corpus.passage(rng, at_least=1)
    for _ in range(6):
        if passage.origin == want:
            break
        passage = corpus.passage(rng, at_least=1)
    label = int("novel" not in corpus.files[passage.origin].name)
    return Question(
        kind="style", fields=(("text", pick(rng, passage.sentences)),), label=label,
        conditions=(("it is told in a novel", "it is fiction"), ("it is of an encyclopedia", "it states facts")),
        sets=(("false", "true"), ("no", "yes"), ("wrong", "right")),
    )  # fmt: skip


MAKERS: dict[str, Callable[[random.Random, Corpus], Question]] = {
    "paraphrase": _paraphrase, "likeness": _likeness, "inference": _inference, "sentiment": _sentiment,
    "acceptable": _acceptable, "contains": _contains, "neighbours": _neighbours, "answers": _answers,
    "choice": _choice, "style": _style,
}  # fmt: skip
