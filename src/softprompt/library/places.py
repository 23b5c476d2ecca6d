"""Where prompts are: a library, the folder of a run (which holds one), or the folder of one prompt."""

from __future__ import annotations

from pathlib import Path

from softprompt.errors import UsageError
from softprompt.library.record import MANIFEST
from softprompt.library.store import Library, StoredPrompt

RUN_LIBRARY = "library"
"""The folder of a run's prompts inside the run's folder."""


def split_place(place: str | Path) -> tuple[str, str | None]:
    """The library of a place and, where the place is one prompt's folder, that prompt's name.

    Args:
        place: a library's folder or URL, a run's folder, or a prompt's folder; URLs stay as they are.
    """
    text = str(place)
    if "://" in text:
        return text, None
    path = Path(text).expanduser()
    if (path / MANIFEST).is_file():
        return str(path.parent), path.name
    if (path / RUN_LIBRARY).is_dir() and not (path / RUN_LIBRARY / MANIFEST).is_file():
        return str(path / RUN_LIBRARY), None
    return text, None


def prompt_at(place: str | Path) -> StoredPrompt:
    """The prompt of a place that holds one.

    Raises:
        UsageError: there is nothing, no prompt, or more than one.
        CorruptArtifactError: its manifest is not what was written.
    """
    where, name = split_place(place)
    if name is None and "://" not in where and not Path(where).expanduser().is_dir():
        raise UsageError(f"there is no prompt at {place}: give the folder of a run, of a library or of one prompt.")
    library = Library(where)
    return library.get(name if name is not None else only_name(library))


def only_name(library: Library) -> str:
    """The name of a library's only prompt.

    Raises:
        UsageError: it has none, or several.
    """
    names = library.names()
    if not names:
        raise UsageError(f"{library.location} holds no prompt: tune one with `softprompt train`.")
    if len(names) > 1:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise UsageError(f"{library.location} holds {len(names)} prompts ({shown}): say which one.")
    return names[0]
