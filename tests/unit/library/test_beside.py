"""The calibration beside a library's prompts, copied between libraries on a disk and in an object store."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from softprompt.errors import CorruptArtifactError
from softprompt.library.beside import (
    CALIBRATION,
    copy_calibration,
    place_calibration,
    read_calibration,
    sealed,
    unsealed,
)
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library

_numbers = itertools.count()


def a_library(place: Path | str, fingerprint: str | None = "f" * 64, study: str | None = None) -> Library:
    library = Library(place)
    library.add(
        PromptRecord(
            task="mnli", prompt=torch.ones(2, 4), backbone_name="tiny", backbone_fingerprint=fingerprint,
            backbone_kind="t5",
        )
    )  # fmt: skip
    if study is not None:
        library.folders.write_beside(CALIBRATION, made(study))
    return library


def made(study: str, fingerprint: str = "f" * 64) -> bytes:
    return sealed({"backbone_fingerprint": fingerprint, "study": study})


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return tmp_path / "other" if request.param == "local" else f"memory://beside-{next(_numbers)}"


def test_it_is_copied_with_its_bytes_and_another_one_is_kept(tmp_path: Path, place: Path | str) -> None:
    origin, target = a_library(tmp_path / "a", study="one"), a_library(place)
    assert copy_calibration(origin, target) == "added"
    assert read_calibration(target) == made("one")
    assert copy_calibration(origin, target) == "same"
    origin.folders.write_beside(CALIBRATION, made("two"))
    assert copy_calibration(origin, target) == "kept"
    assert read_calibration(target) == made("one")
    assert copy_calibration(origin, target, replace=True) == "replaced"
    assert read_calibration(target) == made("two")
    assert copy_calibration(a_library(tmp_path / "none"), target, replace=True) == "none"
    assert read_calibration(target) == made("two")


def test_it_goes_only_where_prompts_of_its_backbone_are(tmp_path: Path, place: Path | str) -> None:
    origin = a_library(tmp_path / "a", study="one")
    for fingerprint in ("e" * 64, None):
        target = a_library(f"{place}-{fingerprint}", fingerprint=fingerprint)
        assert copy_calibration(origin, target, replace=True) == "no prompt"
        assert read_calibration(target) is None


def test_what_is_not_what_was_written_is_not_taken(tmp_path: Path, place: Path | str) -> None:
    target = a_library(place, study="mine")
    good = made("one")
    for wrong in (good.replace(b'"one"', b'"two"'), good[:-4], b"[]", b'{"format": "softprompt-calibration/9"}'):
        with pytest.raises(CorruptArtifactError):
            place_calibration(target, wrong, "elsewhere/calibration.json", replace=True)
        origin = a_library(tmp_path / f"a{len(wrong)}")
        origin.folders.write_beside(CALIBRATION, wrong)
        with pytest.raises(CorruptArtifactError):
            copy_calibration(origin, target, replace=True)
    assert read_calibration(target) == made("mine")
    assert unsealed(good, "here") == {"backbone_fingerprint": "f" * 64, "study": "one"}
