"""Word lists as they are written here: words apart by blanks, phrases apart by commas."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of a text; an underscore stands for a blank inside one."""
    return tuple(word.replace("_", " ") for word in text.split())


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text, between commas."""
    return tuple(part.strip() for part in " ".join(text.split()).split(",") if part.strip())
