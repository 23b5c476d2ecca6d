"""What verbs take with them: objects, prepositions, clauses, to or -ing; with it, and with what they do not take."""

from __future__ import annotations

from softprompt.tasks.generated.data import data_of, frames_of, frozen
from softprompt.tasks.generated.draw import Draw
from softprompt.tasks.generated.english import verb
from softprompt.tasks.generated.events import DEEDS
from softprompt.tasks.generated.lists import phrases
from softprompt.tasks.generated.nouns import FEMALE_NAMES, MALE_NAMES, of_kind
from softprompt.tasks.generated.pairs import THINGS, Pair, minimal_pair
from softprompt.tasks.generated.pairs import who as somebody

_DATA = data_of("arguments")

_INTRANSITIVE = phrases(
    "laugh, sleep, arrive, disappear, sneeze, cry, exist, fall, blush, faint, smile, cough, vanish, snore, yawn, hesitate, rise"
)
_TRANSITIVE = frozen(_DATA["_TRANSITIVE"])
#: (verb, its preposition, a wrong one, what may follow)
_PREPOSITIONS: tuple[tuple[str, str, str, str], ...] = frozen(_DATA["_PREPOSITIONS"])
_GERUND = phrases("enjoys, avoids, finishes, keeps, suggests, practises, considers, misses, imagines, postpones, risks")
_INFINITIVE = phrases(
    "wants, hopes, refuses, decides, manages, promises, offers, fails, hesitates, agrees, expects, wishes"
)
_BARE = phrases("let, made, saw, heard, helped, watched, had, noticed")
_TO = phrases(
    "asked, told, forced, allowed, wanted, expected, persuaded, invited, ordered, advised, encouraged, taught"
)


def _argument(draw: Draw) -> Pair:
    """A verb with what it takes, and with what it does not."""
    who, thing = somebody(draw), draw.pick(THINGS)
    deed, kind = (
        draw.pick(DEEDS),
        draw.pick(("bare", "object", "preposition", "gerund", "clause", "place", "causative")),
    )
    if kind == "bare":
        form = verb(draw.word(_INTRANSITIVE)).past if draw.chance(0.5) else ""
        if form:
            good, bad = f"{who} {form}", f"{who} {form} the {thing}"
        else:
            past = verb(draw.word(_TRANSITIVE)).past
            good, bad = f"{who} {past} the {thing}", f"{who} {past}"
    elif kind == "object":
        taker = verb(draw.word(_TRANSITIVE)).past
        sitter = verb(draw.word(_INTRANSITIVE)).past
        good, bad = f"{who} {taker} the {thing} and {sitter}", f"{who} {sitter} the {thing} and {taker}"
    elif kind == "preposition":
        third, right, wrong, what = draw.word(_PREPOSITIONS)
        good, bad = f"{who} {third} {right} {what}", f"{who} {third} {wrong} {what}"
    elif kind == "gerund":
        doing = draw.chance(0.5)
        main = draw.word(_GERUND if doing else _INFINITIVE)
        forms = (deed.ing, f"to {deed.base}") if doing else (f"to {deed.base}", deed.ing)
        good, bad = f"{who} {main} {forms[0]}", f"{who} {main} {forms[1]}"
    elif kind == "causative":
        bare = draw.chance(0.5)
        main = draw.word(_BARE if bare else _TO)
        other = draw.pick([name for name in FEMALE_NAMES + MALE_NAMES if name != who])
        forms = (deed.base, f"to {deed.base}") if bare and main != "helped" else (f"to {deed.base}", deed.base)
        good, bad = f"{who} {main} {other} {forms[0]}", f"{who} {main} {other} {forms[1]}"
        if main == "helped":
            bad = f"{who} {main} {other} {deed.past}"
    elif kind == "clause":
        asker, teller = draw.word(_ASKING), draw.word(_TELLING)
        right_asks = draw.chance(0.5)
        main = asker if right_asks else teller
        clause = f"{draw.pick(FEMALE_NAMES + MALE_NAMES)} {deed.past}"
        links = ("whether", "that") if right_asks else ("that", "whether")
        good, bad = f"{who} {main} {links[0]} {clause}", f"{who} {main} {links[1]} {clause}"
    else:
        main = draw.word(_PLACING)
        place = draw.pick(("on the table", "in the basket", "on the shelf", "under the bed", "into the box"))
        good, bad = f"{who} {main} the {draw.pick(_SMALL)} {place}", f"{who} {main} {place}"
    frame = draw.frame(_ARGUMENTS)
    return frame.format(c=good), frame.format(c=bad)


_ASKING = phrases("wondered, asked, inquired, investigated, wanted to know, tried to find out, could not decide")
_TELLING = phrases("believed, thought, claimed, hoped, feared, insisted, pretended, assumed, suspected")
_SMALL: tuple[str, ...] = tuple(
    noun.name for noun in of_kind("toy", "piece of jewellery", "fruit", "vegetable", "publication", "flower")
)
_PLACING = phrases("put, placed, laid, stuffed, slid, lowered, shoved, tucked")
_ARGUMENTS = frames_of(_DATA["_ARGUMENTS"])

acceptability_verbs = minimal_pair((_argument,))
