"""Settings whose fields are written once: what a field means stands in its class's ``Attributes``, its range in its type.

`Settings` checks every value against its type; the command line makes flags, their help and their reading of text from the
same. Nothing heavy is imported here.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from softprompt.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Scoring = Literal["auto", "labels", "generate"]
"""How answers are found, in training and in evaluation; see `softprompt.inference.evaluate`."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a field takes; stands in its type.

    Attributes:
        least: smallest, itself allowed.
        above: smallest, itself not allowed.
        below: largest, itself not allowed.
    """

    least: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number is in it; one that is not finite never is."""
        lower = (
            value >= self.least if self.least is not None else value > self.above if self.above is not None else True
        )
        return lower and value < (self.below if self.below is not None else float("inf"))

    def words(self) -> str:
        """As a sentence goes on after "must be": ``at least 1``, ``in [0, 1)``."""
        start = self.above if self.least is None else self.least
        if self.below is not None:
            return f"in {'(' if self.least is None else '['}{start:g}, {self.below:g})"
        return f"at least {start:g}" if self.least is not None else f"above {start:g}"


Count = Annotated[int, Range(least=1)]
Whole = Annotated[int, Range(least=0)]
Amount = Annotated[float, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
Probability = Annotated[float, Range(least=0, below=1)]
Share = Annotated[float, Range(above=0, below=1)]


class Settings:
    """Base of frozen settings dataclasses."""

    def __post_init__(self) -> None:
        for name, kind in kinds(type(self)).items():
            check(name, getattr(self, name), kind)

    @classmethod
    def names(cls) -> list[str]:
        """The names of all settings."""
        return [f.name for f in fields(cls)]  # type: ignore[arg-type]

    def having(self, **changes: Any) -> Self:
        """The same settings with some changed; a name that does not exist is refused with the nearest one."""
        current = {name: getattr(self, name) for name in self.names()}
        for name in changes:
            if name not in current:
                raise UnknownNameError("setting", name, current)
        return type(self)(**{**current, **changes})

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]


def kinds(owner: type) -> dict[str, Any]:
    """The type of each field, ranges with it."""
    cached: Any = owner
    return _kinds(cached)


@functools.cache
def _kinds(owner: Any) -> dict[str, Any]:
    found = get_type_hints(owner, include_extras=True)
    return {f.name: found[f.name] for f in fields(owner)}


def docs(owner: type) -> dict[str, str]:
    """What the ``Attributes`` of a class and its bases say of each field."""
    cached: Any = owner
    return _docs(cached)


@functools.cache
def _docs(owner: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section.partition("\n\n")[0], re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def options(kind: Any) -> tuple[Any, ...]:
    """The types that a field's type is one of; itself, where it is no union."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def check(name: str, value: Any, kind: Any) -> None:
    """Refuse a value that a field does not take.

    Args:
        name: of the field.
        value: what it was given.
        kind: its type: a number with a `Range`, a text, a switch, a Literal, a union or tuple of these; others pass.

    Raises:
        UnknownNameError: a word that is none of the Literal's.
        UsageError: a value of another type, or out of range.
    """
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            raise UsageError(f"{name} takes a list, got {value!r}: write it in brackets.")
        for one in value:
            check(name, one, get_args(kind)[0])
        return
    parts = options(kind)
    if any(_fits(value, part) for part in parts):
        return
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    numbers = [part for part in parts if _bare(part) in (int, float)]
    if words and not numbers:
        raise UnknownNameError(name.replace("_", " "), str(value), words)
    where = _range(numbers[0]) if numbers and _is_number(value, _bare(numbers[0])) else None
    if where is None:
        raise UsageError(f"{name} takes {' or '.join(_name(part) for part in parts)}, got {value!r}.")
    if words:
        raise UsageError(f"{name} must be {' or '.join(words)} or a number {where.words()}, got {value}.")
    raise UsageError(
        f"{name} must {'not be negative' if where == Range(least=0) else f'be {where.words()}'}, got {value}."
    )


def read(name: str, text: str, kind: Any) -> Any:
    """A text as a field's type; what it may be is left to `check`.

    Raises:
        UsageError: it is not of that type.
    """
    if get_origin(kind) is tuple:
        return tuple(read(name, word.strip(), get_args(kind)[0]) for word in text.split(",") if word.strip())
    parts = options(kind)
    for part in parts:
        origin = _bare(part)
        if get_origin(part) is Literal or origin is str:
            if origin is str or text in get_args(part) or len(parts) == 1:
                return text
        elif origin is bool:
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
        elif origin in (int, float):
            try:
                return origin(text)
            except ValueError:
                continue
    raise UsageError(f"{name} takes {' or '.join(_name(part) for part in parts)}, got {text!r}.")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    bare = _bare(kind)
    if bare in (int, float):
        where = _range(kind)
        return _is_number(value, bare) and (where is None or where.holds(value))
    if bare in (str, bool):
        return isinstance(value, bare)
    return value is None if bare is type(None) else True


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _range(kind: Any) -> Range | None:
    found: Iterable[Any] = kind.__metadata__ if get_origin(kind) is Annotated else ()
    return next((one for one in found if isinstance(one, Range)), None)


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    shown = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "nothing"}
    return shown.get(_bare(kind), "another value")
