"""Articles, plurals and verb forms."""

from __future__ import annotations

import pytest

from generated_tasks.english import article, plural, sentence, verb


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("apple", "an apple"),
        ("dog", "a dog"),
        ("hour", "an hour"),
        ("honest man", "an honest man"),
        ("university", "a university"),
        ("ukulele", "a ukulele"),
        ("umbrella", "an umbrella"),
        ("unknown nurse", "an unknown nurse"),
        ("undersized rose", "an undersized rose"),
        ("one-legged chair", "a one-legged chair"),
    ],
)
def test_article(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("box", "boxes"),
        ("baby", "babies"),
        ("toy", "toys"),
        ("postman", "postmen"),
        ("child", "children"),
        ("goose", "geese"),
        ("spinning top", "spinning tops"),
        ("bench", "benches"),
        ("deer", "deer"),
    ],
)
def test_plural(noun: str, expected: str) -> None:
    assert plural(noun) == expected


@pytest.mark.parametrize(
    ("phrase", "third", "past", "participle", "ing"),
    [
        ("carry", "carries", "carried", "carried", "carrying"),
        ("play", "plays", "played", "played", "playing"),
        ("stop", "stops", "stopped", "stopped", "stopping"),
        ("write the letter", "writes the letter", "wrote the letter", "written the letter", "writing the letter"),
        ("free", "frees", "freed", "freed", "freeing"),
        ("quit", "quits", "quit", "quit", "quitting"),
        ("wash", "washes", "washed", "washed", "washing"),
        ("ship", "ships", "shipped", "shipped", "shipping"),
        ("have", "has", "had", "had", "having"),
    ],
)
def test_verb_forms(phrase: str, third: str, past: str, participle: str, ing: str) -> None:
    assert verb(phrase) == (phrase, third, past, participle, ing)


def test_sentence_tidies() -> None:
    assert sentence("in  the park , a dog  sleeps") == "In the park, a dog sleeps."
    assert sentence("who knows ?") == "Who knows?"
