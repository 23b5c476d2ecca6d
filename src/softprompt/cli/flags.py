"""Flags in groups: a command takes several flags of one kind as one parameter, and those of a settings class are made from it.

`--help` shows the flags that most need; the others stand in panels of their own, behind `--help-all`. Nothing heavy is
imported here.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from softprompt.errors import UnknownNameError, UsageError
from softprompt.fields import Settings, docs, kinds, options, read

LONGEST_HELP = 110
"""Letters of a flag's help; a field's doc goes on where there is more to say."""


def flag(name: str, help: str, panel: str | None = None, *, complete: Any = None, **more: Any) -> Any:
    """A flag and what it means.

    Args:
        name: with its dashes.
        help: one sentence.
        panel: its heading in ``--help-all``; None where ``--help`` shows it.
        complete: gives the words that complete; see `among`.
        more: as `typer.Option` takes them.
    """
    return typer.Option(name, help=help, rich_help_panel=panel, autocompletion=complete, **more)


class Flags:
    """Base of groups of flags: a keyword-only dataclass whose fields are annotated as a command's parameters are."""

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """What the command line reads."""
        hints = get_type_hints(cls, include_extras=True)
        return [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[f.name],
                default=inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default,
            )
            for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        ]  # fmt: skip

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The group from what was read."""
        return cls(**given)

    def words(self, *without: str) -> tuple[str, ...]:
        """The flags that were given, spelled out again for a next command; some left out by name."""
        fields = [f for f in dataclasses.fields(self) if f.name not in without]  # type: ignore[arg-type]
        return spelled({f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default})


def parameters_of(group: type[Flags]) -> tuple[inspect.Parameter, ...]:
    """`Flags.parameters` of a group that several commands take, made once."""
    cached: Any = group
    return _parameters_of(cached)


@functools.cache
def _parameters_of(group: Any) -> tuple[inspect.Parameter, ...]:
    return tuple(group.parameters())


class SettingFlags(Flags):
    """Flags for the fields of a settings class: names, help, choices and reading come from the class.

    Attributes:
        owner: the settings class.
        basic: fields that ``--help`` shows.
        without: fields that have no flag.
        panel: heading of the others.
        defaults: whether the class's own defaults are shown; no where a recipe gives them.
        given: what was given, by field.
    """

    owner: ClassVar[type[Settings]]
    basic: ClassVar[Sequence[str]] = ()
    without: ClassVar[Sequence[str]] = ()
    panel: ClassVar[str] = "Settings"
    defaults: ClassVar[bool] = False

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = {name: value for name, value in given.items() if value is not None}

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """See `Flags.parameters`."""
        own = {f.name: f.default for f in dataclasses.fields(cls.owner)}  # type: ignore[arg-type]
        names = [*cls.basic, *(name for name in own if name not in cls.basic and name not in cls.without)]
        return [cls._flag(name, own[name]) for name in names]

    @classmethod
    def _flag(cls, name: str, default: Any) -> inspect.Parameter:
        kind, panel = kinds(cls.owner)[name], None if name in cls.basic else cls.panel
        text = clause(docs(cls.owner)[name])
        if cls.defaults and default not in (dataclasses.MISSING, "", None):
            text += f"  [default: {_shown(default)}]"
        more: dict[str, Any] = {"help": text, "rich_help_panel": panel, "show_default": False}
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            annotation: Any = Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", **more)]
        else:
            words = _words(kind)
            option = typer.Option(flag, metavar=_metavar(kind), autocompletion=among(words) if words else None, **more)
            annotation = Annotated[str | None, option]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """See `Flags.of`."""
        return cls(given)

    def words(self, *without: str) -> tuple[str, ...]:
        """See `Flags.words`."""
        return spelled({name: value for name, value in self.given.items() if name not in without})

    def changed(self, base: Settings | None = None, items: Sequence[str] = (), **more: Any) -> Any:
        """Settings with what the flags, ``NAME=VALUE`` items and ``more`` (None: not given) say.

        Args:
            base: what they change; the class with its defaults where None.
            items: of ``--set``.
            more: further fields.
        """
        given = {**self.given, **{name: value for name, value in more.items() if value is not None}}
        changes = changes_of(kinds(self.owner), items, **given)
        return self.owner(**changes) if base is None else base.having(**changes)


def spelled(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Flags by parameter name and value as words; what was not given (None, False, the empty text) is left out."""
    made: list[str] = []
    for name, value in given.items():
        if value not in (None, False, ""):
            made += [f"--{name.strip('_').replace('_', '-')}", *([] if value is True else [str(value)])]
    return tuple(made)


def changes_of(
    known: Mapping[str, Any], items: Sequence[str] = (), flag: str = "--set", **flags: Any
) -> dict[str, Any]:
    """The settings that flags (None: not given) and ``NAME=VALUE`` items change, read as their types say.

    Args:
        known: type of each setting by name.
        items: of ``flag``.
        flag: for messages.
        flags: by name; a text is read.

    Raises:
        UnknownNameError: no such setting; the nearest names are offered.
        UsageError: no ``=``, a value of another type, or a setting that is changed twice.
    """
    changes = {
        name: read(name, value, known[name]) if isinstance(value, str) else value
        for name, value in flags.items()
        if value is not None
    }
    for item in items:
        name, sign, value = item.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise UsageError(f"{flag} takes NAME=VALUE, got {item!r}.")
        if name not in known:
            raise UnknownNameError("setting", name, known)
        if name in changes:
            raise UsageError(f"{name} is set twice: leave one out.")
        changes[name] = read(name, value.strip(), known[name])
    return changes


def clause(doc: str) -> str:
    """The first sentence of a field's doc as the help of its flag; its first clause where that is long."""
    plain = re.sub(r"`+([^`]*)`+", r"\1", doc).split(". ")[0]
    if len(plain) > LONGEST_HELP:
        plain = plain.split(";")[0]
    return f"{plain[:1].upper()}{plain[1:].rstrip('.')}."


def _words(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is tuple:
        return _words(get_args(kind)[0])
    return tuple(str(word) for part in options(kind) if get_origin(part) is Literal for word in get_args(part))


def _metavar(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "LIST"
    words, rest = _words(kind), [part for part in options(kind) if get_origin(part) is not Literal]
    number = "NAME" if rest == [str] else "N"
    shown = "|".join([*words, *([number] if rest else [])])
    return shown if len(shown) <= 24 else "NAME"


def _shown(value: Any) -> str:
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


# -- completion ---------------------------------------------------------------------------------------------------------


def among(words: Iterable[str] | Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes names, also the last of several with commas between."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        known = words() if callable(words) else words
        return [before + comma + word for word in known if word.startswith(last)]

    return complete


# -- help ---------------------------------------------------------------------------------------------------------------


def _help_all(context: typer.Context, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        context.obj = {"all": True}
        typer.echo(context.get_help())
        raise typer.Exit


HelpAll = Annotated[bool, typer.Option("--help-all", help="Show every flag.", is_eager=True, callback=_help_all)]


class Command(TyperCommand):
    """A command whose help has the flags that most need, then examples; ``--help-all`` adds the panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, panels = [], {"": []}  # type: tuple[list[Any], dict[str, list[Any]]]
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(record)
        everything = bool((ctx.obj or {}).get("all"))
        shown = {name: rows for name, rows in panels.items() if everything or not name}
        for name, rows in (("Arguments", arguments), *((name or "Options", rows) for name, rows in shown.items())):
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows)
        hidden = [name for name in panels if name not in shown]
        if hidden:
            count = sum(len(panels[name]) for name in hidden)
            formatter.write_paragraph()
            formatter.write_text(f"{count} more flags with --help-all: {', '.join(hidden)}.")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
