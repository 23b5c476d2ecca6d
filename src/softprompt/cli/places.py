"""What commands take by position: tasks, and places of prompts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from softprompt.cli import opening
from softprompt.errors import UsageError


def tasks_asked(given: str | None, flag: str | None) -> tuple[str, ...]:
    """The tasks named by position or by ``--task``.

    Raises:
        UsageError: neither or both.
    """
    if (given is None) == (flag is None):
        raise UsageError(
            "name the task once, by position or as --task: a file (my.csv), a folder, hf:NAME, or one that "
            "`softprompt tasks ls` lists."
        )
    return opening.words(str(given if given is not None else flag), "--task")


def is_place(text: str) -> bool:
    """Whether a word is the folder of a run, of a library or of a prompt, or names a library that ships in the package."""
    from softprompt.library.places import split_place
    from softprompt.library.store import Library

    if not os.path.isdir(os.path.expanduser(text)):  # says no to what is too long or strange for a path; Path raises
        return text in opening.RELEASED
    where, name = split_place(text)
    return name is not None or where != text or bool(Library(where).names())


def refuse_missing(word: str) -> None:
    """Raises UsageError for a first word that is meant as a place and is none: ``runs/my`` is no text for a bare backbone."""
    if "/" in word and not word.split()[1:] and len(word) < 200:
        raise UsageError(
            f"there is no run, library or prompt at {word}: see `ls {word.rpartition('/')[0] or '/'}`; to ask the bare backbone "
            "this very text, name it with --backbone."
        )


def prompts_asked(
    place: str | None, library: str | None, names: Sequence[str], *, one: bool = False
) -> tuple[str | None, tuple[str, ...]]:
    """The library and the prompts that a place, ``--library`` and ``--prompt`` name; of a place alone all of its prompts.

    Args:
        place: a word given by position.
        library: of ``--library``.
        names: of ``--prompt``.
        one: one prompt is needed.

    Raises:
        UsageError: two places, a place without prompts, or several where one is needed.
    """
    if place is None:
        return library, tuple(names)
    if library is not None:
        raise UsageError(f"the prompts are in {place} or in --library {library}: name one of the two.")
    from softprompt.library.places import only_name, split_place

    where, name = split_place(place)
    store = opening.open_library(where)
    if names:
        return where, tuple(names)
    if name is not None:
        return where, (name,)
    if one or not store.names():
        return where, (only_name(store),)
    return where, tuple(store.names())
