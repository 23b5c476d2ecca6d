"""The calibration that lies beside a library's prompts, as a file: read, checked, and copied with its bytes unchanged.

What it says of gains is `softprompt.methods.spot.calibration`'s. Here it is a JSON object that names its format and the
fingerprint of its backbone, and carries a digest of everything else in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from softprompt.artifacts import json_bytes, parse_json, sha256_bytes
from softprompt.errors import CorruptArtifactError
from softprompt.library.store import Library

CALIBRATION = "calibration.json"
FORMAT = "softprompt-calibration/1"

Placed = Literal["none", "added", "same", "replaced", "kept", "no prompt"]
"""What became of a calibration that was offered to a library: there was ``none``; it was ``added``; the ``same`` one was
there; another one was there and was ``replaced`` or ``kept``; the library has ``no prompt`` of its backbone."""


def sealed(content: Mapping[str, Any]) -> bytes:
    """The file of a calibration's content, with a digest of its own over everything else in it."""
    whole = {"format": FORMAT, **content}
    return json_bytes({**whole, "sha256": sha256_bytes(json_bytes(whole))})


def unsealed(data: bytes, place: str) -> dict[str, Any]:
    """The content of a calibration's file, without format and digest.

    Raises:
        CorruptArtifactError: it is not one that this version reads, or not what was written.
    """
    content = parse_json(data, place)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CorruptArtifactError(f"{place} is no calibration of format {FORMAT!r}; make it again, or delete it.")
    if content.pop("sha256", None) != sha256_bytes(json_bytes(content)):
        raise CorruptArtifactError(f"{place} is not what was written: its own digest differs; make it again.")
    del content["format"]
    return content


def read_calibration(library: Library) -> bytes | None:
    """The calibration's file of a library, checked; None where it has none.

    Raises:
        CorruptArtifactError: it is not what was written.
    """
    data = library.folders.read_beside(CALIBRATION)
    if data is not None:
        unsealed(data, library.folders.show(CALIBRATION))
    return data


def place_calibration(library: Library, data: bytes, place: str, *, replace: bool = False) -> Placed:
    """Put a calibration's file into a library that has prompts of its backbone; another one that is there is kept.

    Args:
        library: where to.
        data: the file.
        place: where it comes from, for messages.
        replace: whether another one that is there is replaced.

    Raises:
        CorruptArtifactError: it is not what was written; the library is left as it is.
    """
    fingerprint = unsealed(data, place).get("backbone_fingerprint")
    there = library.folders.read_beside(CALIBRATION)
    if there == data:
        return "same"
    if not any(entry.backbone_fingerprint == fingerprint for entry in library.list(verified=True)):
        return "no prompt"
    if there is not None and not replace:
        return "kept"
    library.folders.write_beside(CALIBRATION, data)
    return "added" if there is None else "replaced"


def copy_calibration(origin: Library, target: Library, *, replace: bool = False) -> Placed:
    """Copy a library's calibration into another one, as `place_calibration` does.

    Raises:
        CorruptArtifactError: it is not what was written.
    """
    data = read_calibration(origin)
    if data is None:
        return "none"
    return place_calibration(target, data, origin.folders.show(CALIBRATION), replace=replace)
