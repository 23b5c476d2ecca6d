"""Templates: a text with the names of columns in braces, ``Review: {review text}``; nothing in them is ever run.

``{{`` and ``}}`` stand for braces themselves. ``{options[0]}`` and ``{answers[text]}`` reach into a list or an object,
unless a column has that very name; a list of texts is written with ", " between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from string import Formatter
from typing import Any

from softprompt.errors import UsageError
from softprompt.tasks.rows import Row

_INSIDE = re.compile(r"(.+)\[([^\[\]]+)\]")


@lru_cache(maxsize=4096)
def parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """(text, column behind it or None) in order.

    Raises:
        UsageError: a brace has no partner, or a place has no name.
    """
    found: list[tuple[str, str | None]] = []
    try:
        for text, name, spec, conversion in Formatter().parse(template):
            if name is not None:  # a column's name may hold "!" and ":", which mean something to str.format
                name += (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                if not name.strip() or "{" in name or "}" in name:
                    raise ValueError("a place should hold one column's name")
            found.append((text, name))
    except ValueError as error:
        raise UsageError(
            f"template {_short(template)} cannot be read ({error}): write a column as {{name}}, and a brace itself as "
            "{{ or }}."
        ) from None
    return tuple(found)


def places(template: str) -> tuple[str, ...]:
    """The columns a template names, each once, in order."""
    return tuple(dict.fromkeys(name for _, name in parts(template) if name is not None))


def column_of(place: str) -> str:
    """The column of a place: ``options`` of ``options[0]``."""
    while match := _INSIDE.fullmatch(place):
        place = match[1]
    return place


def fill(template: str, text_of: Callable[[str], str]) -> str:
    """The template with every place's text; texts are put in as they are, braces and all."""
    return "".join(text + (text_of(name) if name is not None else "") for text, name in parts(template))


def value_at(row: Mapping[str, Any], place: str) -> Any:
    """What a row holds at a place.

    Raises:
        KeyError: it has no such column, or the column has nothing there.
    """
    if place in row:
        return row[place]
    match = _INSIDE.fullmatch(place)
    if match is None:
        raise KeyError(place)
    outer = value_at(row, match[1])
    try:
        return outer[int(match[2])] if isinstance(outer, list | tuple) else outer[match[2]]
    except (IndexError, KeyError, TypeError, ValueError):
        raise KeyError(place) from None


def escaped(text: str) -> str:
    """A text as it stands in a template: its braces doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def worded(template: str, row: Row) -> str:
    """A template filled from a row.

    Raises:
        DataError: a column is missing or holds no text.
    """
    return fill(template, lambda place: _text(row, place))


def _text(row: Row, place: str) -> str:
    try:
        value = value_at(row.values, place)
    except KeyError:
        value = row.get(column_of(place))
        raise row.error(f"column {column_of(place)!r} holds nothing at {place!r}.") from None
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    return Row(values={place: value}, line=row.line, where=row.where).text(place)
