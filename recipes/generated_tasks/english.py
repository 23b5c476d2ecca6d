"""Small English morphology: articles, plurals, verb forms and sentence case, as far as the lexicons here need them."""

from __future__ import annotations

from typing import NamedTuple

from generated_tasks.data import data_of, frozen
from generated_tasks.lists import words

_DATA = data_of("english")

_IRREGULAR_PLURALS = frozen(_DATA["_IRREGULAR_PLURALS"])
_VOWEL_SOUND = ("hour", "honest", "heir", "honour")
_CONSONANT_SOUND = ("uni", "use", "euro", "ukulele", "one", "once")


class Verb(NamedTuple):
    """A verb's five forms; the base form is its identity."""

    base: str
    third: str
    past: str
    participle: str
    ing: str


def article(phrase: str) -> str:
    """``phrase`` with "a" or "an" in front, by its first sound."""
    word = phrase.lower()
    vowel = word.startswith(_VOWEL_SOUND) or (word[0] in "aeiou" and not word.startswith(_CONSONANT_SOUND))
    return f"{'an' if vowel else 'a'} {phrase}"


def plural(noun: str) -> str:
    """The plural of a noun; of a phrase, the plural of its last word."""
    head, _, last = noun.rpartition(" ")
    if last in _IRREGULAR_PLURALS:
        form = _IRREGULAR_PLURALS[last]
    elif last.endswith("man") and last != "human":
        form = last[:-3] + "men"
    elif last.endswith("y") and last[-2] not in "aeiou":
        form = last[:-1] + "ies"
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        form = last + "es"
    else:
        form = last + "s"
    return f"{head} {form}".strip()


_IRREGULAR_VERBS = {
    base: (past, participle) for base, past, participle in (entry.split("-") for entry in _DATA["_IRREGULAR_VERBS"])
}
_DOUBLING = frozenset(_DATA["_DOUBLING"])
_ING_DOUBLING = frozenset(words("run sit swim cut put get win begin set let dig shut hit forget spin quit"))


def verb(phrase: str) -> Verb:
    """The forms of a verb, or of a verb phrase: what follows the first word ("pay the bill") stays as it is."""
    base, _, rest = phrase.partition(" ")
    double = base + base[-1]
    consonant_y = base.endswith("y") and base[-2] not in "aeiou"
    if base == "have":
        third = "has"
    elif consonant_y:
        third = base[:-1] + "ies"
    else:
        third = base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) or base in ("go", "do") else "s")
    if base.endswith("e"):
        regular = base + "d"
    elif consonant_y:
        regular = base[:-1] + "ied"
    else:
        regular = (double if base in _DOUBLING else base) + "ed"
    if base.endswith("ie"):
        ing = base[:-2] + "ying"
    elif base.endswith("e") and not base.endswith(("ee", "ye", "oe")):
        ing = base[:-1] + "ing"
    else:
        ing = (double if base in _DOUBLING | _ING_DOUBLING else base) + "ing"
    past, participle = _IRREGULAR_VERBS.get(base, (regular, regular))
    return Verb(*(f"{form} {rest}".strip() for form in (base, third, past, participle, ing)))


def sentence(text: str) -> str:
    """``text`` with a capital first letter, single spaces and a full stop where it ends without a mark."""
    text = (
        " ".join(text.split())
        .replace(" ,", ",")
        .replace(" .", ".")
        .replace(" ?", "?")
        .replace(" :", ":")
        .replace(" ;", ";")
    )
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def listed(items: list[str]) -> str:
    """ "a", "a and b", or "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
