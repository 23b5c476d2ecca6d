"""Small English morphology: articles, plurals, verb forms and sentence case, as far as the lexicons here need them."""

from __future__ import annotations

from typing import NamedTuple

from softprompt.tasks.generated.lists import words

_IRREGULAR_PLURALS = {
    "child": "children",
    "person": "people",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "tooth": "teeth",
    "sheep": "sheep",
    "deer": "deer",
    "fish": "fish",
    "trout": "trout",
    "salmon": "salmon",
    "knife": "knives",
    "wolf": "wolves",
    "leaf": "leaves",
    "loaf": "loaves",
    "shelf": "shelves",
    "thief": "thieves",
    "scarf": "scarves",
    "calf": "calves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "hero": "heroes",
    "mango": "mangoes",
}
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
    base: (past, participle)
    for base, past, participle in (
        entry.split("-")
        for entry in words(
            "run-ran-run eat-ate-eaten drink-drank-drunk hold-held-held draw-drew-drawn ride-rode-ridden drive-drove-driven "
            "sleep-slept-slept speak-spoke-spoken sing-sang-sung hide-hid-hidden cut-cut-cut sit-sat-sat swim-swam-swum "
            "throw-threw-thrown take-took-taken make-made-made read-read-read feed-fed-fed leap-leapt-leapt weep-wept-wept "
            "sell-sold-sold buy-bought-bought lend-lent-lent give-gave-given teach-taught-taught beat-beat-beaten "
            "lose-lost-lost win-won-won pay-paid-paid meet-met-met find-found-found leave-left-left write-wrote-written "
            "send-sent-sent bring-brought-brought catch-caught-caught build-built-built break-broke-broken go-went-gone "
            "see-saw-seen hear-heard-heard know-knew-known think-thought-thought forget-forgot-forgotten come-came-come "
            "put-put-put set-set-set shut-shut-shut hit-hit-hit hurt-hurt-hurt let-let-let tell-told-told say-said-said "
            "keep-kept-kept spend-spent-spent fall-fell-fallen forgive-forgave-forgiven mislead-misled-misled lead-led-led "
            "get-got-got begin-began-begun choose-chose-chosen steal-stole-stolen wear-wore-worn grow-grew-grown "
            "fly-flew-flown feel-felt-felt stand-stood-stood understand-understood-understood fight-fought-fought "
            "light-lit-lit shoot-shot-shot bite-bit-bitten tear-tore-torn wake-woke-woken hang-hung-hung sweep-swept-swept "
            "dig-dug-dug do-did-done have-had-had show-showed-shown strike-struck-struck mow-mowed-mown sew-sewed-sewn "
            "seek-sought-sought overtake-overtook-overtaken rise-rose-risen shake-shook-shaken freeze-froze-frozen "
            "knit-knitted-knitted bend-bent-bent bleed-bled-bled ring-rang-rung quit-quit-quit sink-sank-sunk spread-spread-spread"
        )
    )
}
_DOUBLING = frozenset(
    words(
        "hug grab drop plan stop chat shop jog nap hop sip drag chop rob beg pat trim zip wrap tip tap rub scrub hum grip "
        "clap slip trip ban cancel travel sob stir prefer admit commit spot skip strum dim sag unwrap mop pin regret skim knit permit grin jam ship"
    )
)
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
