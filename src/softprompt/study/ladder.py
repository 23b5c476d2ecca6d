"""A ladder of model sizes (SPoT Figure 1, SharPT Figure 2): a file gives every method a backbone and a recipe of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.errors import UnknownNameError, UsageError
from softprompt.study.settings import Study, ready_files, study_of, toml_of


def folder_name(backbone: str) -> str:
    """A safe folder name for an id or a path; a digest keeps different paths apart."""
    last = "".join(c if c.isalnum() or c in "_-" else "-" for c in Path(backbone).name) or "backbone"
    return f"{last}-{artifacts.sha256_bytes(backbone.encode())[:8]}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One method on one size.

    Attributes:
        size: the column.
        arm: the row.
        ledger: its folder under the ladder's.
        study: what is run there.
    """

    size: str
    arm: str
    ledger: str
    study: Study


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Methods by sizes, as a ladder file gives them.

    Attributes:
        name: safe as a folder name.
        title: one line.
        sizes: in rising order.
        parts: every method on every size.
        published: rows that are not run: method -> size -> score in percent.
    """

    name: str
    title: str
    sizes: tuple[str, ...]
    parts: tuple[Part, ...]
    published: Mapping[str, Mapping[str, float]]


def load_ladder(path: str | Path) -> Ladder:
    """A ladder from a TOML file, or by the name of a ready one (``figure1``, ``sharpt-sizes``).

    Its ``[arms.NAME]`` tables hold what is special to a method; all else of a study stands above them. ``{size}`` in a
    backbone stands for the size.

    Raises:
        UnknownNameError: no such file, or an unknown key.
        DataError: it cannot be read or is not TOML.
        UsageError: it has no sizes or arms, or a value cannot be.
    """
    file, data = toml_of("ladder", path, ready_ladders())
    own = {name: data.pop(name, None) for name in ("name", "title", "sizes", "arms", "published")}
    for name in ("name", "sizes", "arms"):
        if not own[name]:
            raise UsageError(f"{file} has no '{name}': add it.")
    sizes = tuple(str(size) for size in own["sizes"])
    return Ladder(
        name=artifacts.check_name(own["name"], "ladder name"), title=str(own["title"] or own["name"]), sizes=sizes,
        parts=tuple(_part(size, arm, {**data, **more}, file) for size in sizes for arm, more in own["arms"].items()),
        published=_published(own["published"] or {}, sizes, file),
    )  # fmt: skip


def _part(size: str, arm: str, settings: Mapping[str, Any], file: Path) -> Part:
    backbone = str(settings.get("backbone", "builtin")).replace("{size}", size)
    study = study_of({**settings, "name": arm, "backbone": backbone}, f"{file}, [arms.{arm}]")
    return Part(size=size, arm=arm, ledger=f"{folder_name(backbone)}/{arm}", study=study)


def _published(
    rows: Mapping[str, Mapping[str, float]], sizes: Sequence[str], file: Path
) -> dict[str, dict[str, float]]:
    for row, values in rows.items():
        for size, value in values.items():
            if size not in sizes:
                raise UnknownNameError(f"size of published row '{row}' in {file}", size, sizes)
            if not isinstance(value, int | float):
                raise UsageError(f"{file}: the published score of '{row}' at {size} must be a number, got {value!r}.")
    return {row: {size: float(value) for size, value in values.items()} for row, values in rows.items()}


def ready_ladders() -> dict[str, Path]:
    """The ladder files that come along, by name."""
    return ready_files("ladders", "ladders")
