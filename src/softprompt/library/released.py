"""The libraries that ship in the package: source prompts with task embeddings, one library a backbone.

Made by ``recipes/build_released_library.py``; what is in them, and under which licences, is in docs/builtin-tasks.md.
"""

from __future__ import annotations

from pathlib import Path

from softprompt.artifacts import cache_folder
from softprompt.errors import UsageError
from softprompt.library.store import Library

FOLDER = Path(__file__).parent / "released"
FOLDERS = {"builtin": FOLDER, "smollm2": FOLDER.with_name("released_smollm2")}
"""By the backbone's name; a folder may be absent."""


def find_released(folder: Path = FOLDER) -> Library | None:
    """The released library, or None where this installation has none (or an empty one).

    Its caches go to the user's cache folder, never into the installed package.
    """
    if not folder.is_dir():
        return None
    library = Library(folder)
    library.folders.index_folder = cache_folder("index", "released")
    return library if library.folders.scan() else None


def released_library(folder: Path = FOLDER) -> Library:
    """The released library.

    Raises:
        UsageError: this installation has none.
    """
    library = find_released(folder)
    if library is None:
        raise UsageError(
            f"this installation has no released library ({folder} holds no prompt): make one with "
            "recipes/build_released_library.py, or open a library of your own."
        )
    return library
