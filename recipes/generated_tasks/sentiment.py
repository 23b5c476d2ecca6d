"""Sentiment of reviews in four domains: positive or negative, with negation, contrast and plain-fact verdicts; and which domain."""

from __future__ import annotations

from collections.abc import Mapping

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw, RowMaker
from generated_tasks.english import article, sentence
from generated_tasks.sentiment_words import BAD, FILM, GOOD, HOTEL, PRODUCT, RESTAURANT, Domain

_DATA = data_of("sentiment")

LABELS = ("negative", "positive")

# Frames say what becomes of the polarity: {same} holds an adjective of the label, {other} one of the opposite label.
# {a} and {b} are aspects; {thing} is the domain's noun.
_PLAIN = frames_of(_DATA["_PLAIN"])
_NEGATED = frames_of(_DATA["_NEGATED"])
_CONTRAST = frames_of(_DATA["_CONTRAST"])
_VERDICT = frames_of(_DATA["_VERDICT"])
_MASS = frozenset(
    ("acting", "humour", "camera work", "packaging", "staff", "customer service", "pacing", "bread", "fish")
)
# Mostly what an opinion word or a fact says; a fifth of the clauses turn an opposite word round.
_KINDS = ("plain",) * 4 + ("verdict",) * 4 + ("contrast", "negated")


def _adjective(draw: Draw, domain: Domain, aspect: str, positive: bool) -> str:
    own = next((good if positive else bad) for name, good, bad in domain.aspects if name == aspect)
    pool = (GOOD if positive else BAD) if draw.chance(0.5) else own
    try:
        return draw.word(pool)
    except ValueError:  # an aspect's own short list may lie wholly on the other side
        return draw.word(GOOD if positive else BAD)


def _clause(draw: Draw, domain: Domain, positive: bool) -> str:
    frames = {"plain": _PLAIN, "negated": _NEGATED, "contrast": _CONTRAST, "verdict": _VERDICT}[draw.pick(_KINDS)]
    frame = draw.frame(frames)
    a, b = draw.shuffled([name for name, _, _ in domain.aspects])[:2]
    # "{other}" stands beside {b} where a frame has one, else beside {a}.
    values: dict[str, str] = {"a": a, "b": b, "thing": domain.thing}
    if "same}" in frame:
        values["same"] = (
            _adjective(draw, domain, a, positive)
            if "on the whole" not in frame
            else draw.word(GOOD if positive else BAD)
        )
        if "everything else" in frame:
            values["same"] = draw.word(GOOD if positive else BAD)
        values["art_same"] = values["same"] if a in _MASS else article(values["same"])
    if "other}" in frame:
        near = b if "{b}" in frame else a
        values["other"] = _adjective(draw, domain, near, not positive)
        if "critics" in frame:
            values["other"] = draw.word(BAD if positive else GOOD)
        values["art_other"] = values["other"] if near in _MASS else article(values["other"])
    if "{verdict}" in frame:
        values["verdict"] = draw.word(domain.good if positive else domain.bad)
    if "{fact}" in frame:
        values["fact"] = draw.pick(domain.neutral)
    return frame.format(**values)


def review(domain: Domain) -> RowMaker:
    """Rows of one domain: field ``sentence``."""

    def make(draw: Draw, label: str) -> Mapping[str, str]:
        positive = label == "positive"
        clauses = [_clause(draw, domain, positive)]
        if draw.chance(0.3):
            clauses.append(_clause(draw, domain, positive))
        elif draw.chance(0.3):
            unsaid = [fact for fact in domain.neutral if fact not in clauses[0]]
            clauses.insert(0, draw.pick(unsaid))
        return {"sentence": " ".join(sentence(clause) for clause in clauses)}

    return make


_REVIEWED: tuple[Domain, ...] = (FILM, HOTEL, PRODUCT, RESTAURANT)
DOMAIN_LABELS = tuple(domain.thing for domain in _REVIEWED)


def reviewed_thing(draw: Draw, label: str) -> Mapping[str, str]:
    """Field ``sentence``, a review, good or bad; the label is the kind of thing it is about."""
    domain = next(d for d in _REVIEWED if d.thing == label)
    while True:
        positive = draw.chance(0.5)
        clauses = [_clause(draw, domain, positive) for _ in range(1 + int(draw.chance(0.4)))]
        text = " ".join(sentence(clause) for clause in clauses)
        if label not in text:  # the label's own word would give it away
            return {"sentence": text}
        draw.start_row()
