"""The exception tree and its exit codes.

    SoftpromptError                 1   failure
    |-- UsageError                  2   a wrong request: unknown name, bad flag, bad value
    |   |-- UnknownNameError        2   with the nearest names
    |   `-- DataError               2   a data file that cannot be used: names file and line
    |-- CorruptArtifactError        3   a stored file that is not what was written
    |-- IncompatibleBackboneError   4   a prompt and a backbone that do not belong together
    |-- BackboneError               1   a backbone that cannot be loaded or used
    |-- NonFiniteError              5   training met NaN or infinity
    |-- OutOfMemoryError            1   says what to lower
    `-- Interrupted                 75  stopped, but resumable

Every message is one sentence or two: what was asked, what was found, what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class SoftpromptError(Exception):
    """Base of all errors this package raises on purpose."""

    exit_code = 1


class UsageError(SoftpromptError):
    """The request itself is wrong; nothing was started."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not in a closed set.

    Args:
        what: the kind of thing that was named, e.g. ``"task"``.
        name: what was asked for.
        known: the names that exist; the nearest three are offered.
        remedy: an extra sentence, e.g. the command that lists the names.
    """

    def __init__(self, what: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        self.name = name
        options = sorted(known)
        near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
        if near:
            hint = f"did you mean {', '.join(near)}?"
        elif options:
            shown = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
            hint = f"known: {shown}."
        else:
            hint = "none are known here."
        super().__init__(f"unknown {what} {name!r}: {hint}{' ' + remedy if remedy else ''}")


class DataError(UsageError):
    """A data file that is missing, empty or malformed; names the file, and the line where there is one."""


class CorruptArtifactError(SoftpromptError):
    """A stored artifact whose bytes are not those that were written."""

    exit_code = 3


class BackboneError(SoftpromptError):
    """A backbone that cannot be loaded or used as asked."""


class IncompatibleBackboneError(BackboneError):
    """A prompt, space or ledger made for another backbone."""

    exit_code = 4


class NonFiniteError(SoftpromptError):
    """Training met a loss or gradient that is not finite; the last good checkpoint is kept."""

    exit_code = 5


class OutOfMemoryError(SoftpromptError):
    """The device has too little memory for what was asked."""


class Interrupted(SoftpromptError):
    """Stopped on request; what was done is saved and can be resumed."""

    exit_code = 75


def wrong_fields(error: ValidationError, most: int = 3) -> str:
    """What pydantic found wrong, as part of a sentence: ``field 'scores.f1' is [1, 2]: Input should be a valid number``.

    Args:
        error: what pydantic raised.
        most: how many fields are named; the others are counted.
    """
    found = error.errors(include_url=False, include_context=False)
    told = []
    for one in found[:most]:
        place = ".".join(str(part) for part in one["loc"]) or "the whole"
        what = "lacks a value" if one["type"] == "missing" else f"is {short(one['input'])}"
        reason = "" if one["type"] == "missing" else f": {one['msg'].removeprefix('Value error, ')}"
        told.append(f"field {place!r} {what}{reason}")
    rest = f", and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(told) + rest


def some(words: Sequence[str], most: int = 3) -> str:
    """Words as a sentence lists them: the first ones with commas between, and how many more there are."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def short(value: object) -> str:
    """A value as a sentence quotes it: its ``repr``, cut to 60 signs."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# What a terminal may take for a command (C0, DEL, C1), what turns the direction of text, and halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text from outside (data, manifests, answers, names) as it may be shown: what could steer a terminal is spelled out.

    Tabs and ends of line stay; other control characters, marks that turn the direction of text and halves of characters
    become ``\\x1b``, ``\\u202e`` and the like.
    """
    return _UNPRINTABLE.sub(lambda match: _spelled(ord(match[0])), text)


def _spelled(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


LINE = 80
"""Letters of a line: what objects show of themselves fits one."""


def one_line(text: str) -> str:
    """What an object shows of itself, on one line: the middle of a longer text is left out."""
    text = " ".join(printable(text).split())
    return text if len(text) <= LINE else f"{text[:58]} ... {text[-17:]}"
