"""Opinion words of the sentiment tasks: aspects of each domain, what can be said of them, and verdicts without such words."""

from __future__ import annotations

from typing import NamedTuple

from generated_tasks.data import data_of, frozen

_DATA = data_of("sentiment_words")

GOOD: tuple[str, ...] = frozen(_DATA["GOOD"])
BAD: tuple[str, ...] = frozen(_DATA["BAD"])


class Domain(NamedTuple):
    """What is reviewed, and how it is talked about.

    Attributes:
        thing: what the review is about, e.g. "film".
        aspects: (noun, good adjectives of its own, bad adjectives of its own).
        good: whole clauses that say it was good; they follow a subject of their own.
        bad: whole clauses that say it was bad.
        neutral: clauses that say nothing about quality.
    """

    thing: str
    aspects: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    neutral: tuple[str, ...]


def _domain(name: str) -> Domain:
    return Domain(**frozen(_DATA[name]))


FILM, RESTAURANT, HOTEL, PRODUCT = (_domain(name) for name in ("FILM", "RESTAURANT", "HOTEL", "PRODUCT"))
