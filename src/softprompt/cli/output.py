"""What a command gives back, and how it is printed: for people, or as one JSON document."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


# JSON escapes control characters below a blank itself; these it leaves, and a terminal may obey them.
_JSON_UNPRINTABLE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


PIPED_COLUMNS = 200
"""Width of tables that another program reads."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a command.

    Attributes:
        data: what ``--json`` prints; plain values, dataclasses, paths and numbers of numpy or torch.
        show: prints the same for people; None prints nothing (the command has already said it).
        next: what can be done next, each the words of a command without the program's name; printed on standard error, ready
            to paste, so that standard output holds results alone.
    """

    data: Mapping[str, Any]
    show: Callable[[Console], None] | None = None
    next: Sequence[Sequence[object]] = ()


AT_HAND = "gen_sentiment_hotel"
"""A built-in task, for next commands where no task was named."""

asked: list[str] = []
"""The words of the command that runs, without the program's name."""


def first_process() -> bool:
    """Whether this is the process that speaks: among those of ``torchrun`` the one of rank 0."""
    return os.environ.get("RANK", "0") == "0"


def put(answer: Answer, *, as_json: bool) -> None:
    """Print an answer on standard output."""
    if not first_process():
        return
    if as_json:
        text = json.dumps(plain(answer.data), ensure_ascii=False, indent=2, allow_nan=False)
        sys.stdout.write(_JSON_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
    elif answer.show is not None:
        answer.show(console())
    sys.stdout.flush()
    if answer.next and not as_json:
        made = (shlex.join(["softprompt", *map(str, words)]) for words in answer.next)
        lines("", "next:", *(f"  {line}" for line in made), wrap=False)(console(stderr=True))


def console(stderr: bool = False) -> Console:
    """A console as wide as ``COLUMNS`` says, else as the terminal; where there is none it neither wraps lines nor colours."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    asked = os.environ.get("COLUMNS", "")
    width = int(asked) if asked.isdecimal() and int(asked) else None if stream.isatty() else PIPED_COLUMNS
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Callable[[Console], None]:
    """A function that prints a table; numbers stand right, everything else left."""
    raw = [list(row) for row in rows]
    body = [[cell(value) for value in row] for row in raw]

    def show(out: Console) -> None:
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        made = Table(
            title=title and printable(title),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for number, column in enumerate(columns):
            numeric = bool(raw) and all(isinstance(row[number], int | float | None) for row in raw)
            made.add_column(escape(printable(column)), justify="right" if numeric else "left", overflow="fold")
        for row in body:
            made.add_row(*[escape(printable(value)) for value in row])
        out.print(made)

    return show


def lines(*texts: str, wrap: bool = True) -> Callable[[Console], None]:
    """A function that prints lines, control characters spelled out; on a terminal broken between words, unless they are to be copied."""

    def show(out: Console) -> None:
        for text in texts:
            out.print(printable(text), markup=False, soft_wrap=None if wrap else True)

    return show


def named(values: Mapping[str, object]) -> Callable[[Console], None]:
    """A function that prints names and values; on a terminal a long value goes on below itself."""
    longest = max(len(name) for name in values)

    def show(out: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        if not out.is_terminal:
            lines(*(f"{name:<{longest}} {value}" for name, value in values.items()))(out)
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        for name, value in values.items():
            grid.add_row(escape(printable(name)), escape(printable(str(value))))
        out.print(grid)

    return show


def both(*parts: Callable[[Console], None]) -> Callable[[Console], None]:
    """A function that prints one thing after the other."""

    def show(out: Console) -> None:
        for part in parts:
            part(out)

    return show


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def plain(value: Any) -> Any:
    """JSON values only: dataclasses and mappings become objects, paths strings, numbers that are not finite null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):  # a pydantic model
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)
