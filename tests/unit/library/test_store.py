"""The library: folders complete in themselves, lazily read, hashed, bound to one backbone."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.errors import (
    CorruptArtifactError,
    DataError,
    IncompatibleBackboneError,
    NonFiniteError,
    SoftpromptError,
    UnknownNameError,
    UsageError,
)
from softprompt.library.folders import RemoteFolders
from softprompt.library.record import PromptRecord, default_name
from softprompt.library.store import Library, UnverifiedPromptWarning


@dataclass
class Identity:
    name: str = "tiny"
    hidden_size: int = 8
    fingerprint: str = "f" * 64


def make(task: str = "mnli", seed: int = 0, *, length: int = 5, width: int = 8, **more: Any) -> PromptRecord:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{task} {seed}".encode()))
    values: dict[str, Any] = {
        "task": task,
        "seed": seed,
        "prompt": torch.randn(length, width, generator=generator),
        "task_embedding": torch.randn(length, width, generator=generator),
        "backbone_name": "tiny",
        "backbone_fingerprint": "f" * 64,
        "backbone_kind": "t5",
        "scores": {"accuracy": 81.25, "score": 81.25},
        "steps": 100,
        "best_step": 80,
        "embedding_step": 10,
        "command": "softprompt train mnli",
        "data_fingerprint": "d" * 64,
        "recipe": {"steps": 100, "learning_rate": 0.3},
        "tags": ("glue",),
        "licence": "Apache-2.0",
    }
    return PromptRecord(**{**values, **more})


@pytest.fixture(params=["disk", "url"])
def library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    if request.param == "disk":
        return Library(tmp_path / "prompts")
    return Library(f"memory://{uuid.uuid4().hex}/prompts")


def test_round_trip_is_bitwise(library: Library) -> None:
    assert library.names() == []
    record = make(prompt=torch.randn(5, 8).to(torch.bfloat16))
    stored = library.add(record)
    assert stored.name == "mnli@0"
    again = Library(library.location).get("mnli@0")
    assert again.prompt().dtype == torch.bfloat16
    assert torch.equal(again.prompt(), record.prompt)
    assert record.task_embedding is not None
    assert torch.equal(again.task_embedding(), record.task_embedding)
    assert again.manifest == stored.manifest
    manifest = again.manifest
    assert (manifest.prompt_length, manifest.width, manifest.score) == (5, 8, 81.25)
    assert manifest.recipe == {"steps": 100, "learning_rate": 0.3}
    assert set(manifest.files) == {
        "adapter_config.json", "adapter_model.safetensors", "task_embedding.safetensors", "task_vectors.safetensors", "README.md",
    }  # fmt: skip
    assert library.verify() == {}
    assert "mnli@0" in library
    assert len(library) == 1


def test_several_seeds_filters_and_removal(library: Library) -> None:
    for task in ("mnli", "sst2"):
        for seed in range(3):
            library.add(make(task, seed, tags=("glue", task)))
    library.add(make("cr", 0, backbone_fingerprint=None))
    library.add(make("cr", 1, backbone_fingerprint="0" * 64))
    assert library.names() == ["cr@0", "cr@1", *(f"{t}@{s}" for t in ("mnli", "sst2") for s in range(3))]
    assert [e.name for e in library.list(task="sst2")] == ["sst2@0", "sst2@1", "sst2@2"]
    assert [e.name for e in library.list(tag="mnli")] == ["mnli@0", "mnli@1", "mnli@2"]
    assert [e.name for e in library.list(verified=False)] == ["cr@0"]
    assert len(library.list(backbone=Identity())) == 7
    assert library.list(backbone=Identity(hidden_size=16)) == []
    library.remove("mnli@1")
    assert "mnli@1" not in library.names()
    assert [e.seed for e in library.list(task="mnli")] == [0, 2]
    with pytest.raises(UnknownNameError, match="did you mean mnli@"):
        library.remove("mnli@1")


def test_taken_names_are_refused_and_replacement_shows(library: Library) -> None:
    library.add(make())
    with pytest.raises(UsageError, match="already exists"):
        library.add(make(length=6))
    assert library.list()[0].prompt_length == 5
    library.add(make(length=6), replace=True)
    assert library.get("mnli@0").prompt().shape == (6, 8)
    assert library.list()[0].prompt_length == 6


def test_identity_is_checked_at_load(library: Library) -> None:
    library.add(make())
    library.add(make("cr", backbone_fingerprint=None, backbone_name="google/t5-base-lm-adapt"))
    assert library.load("mnli@0", Identity()).shape == (5, 8)
    with pytest.raises(IncompatibleBackboneError, match=r"width 8 .*width 16.*load tiny or retrain") as width:
        library.load("mnli@0", Identity(hidden_size=16))
    assert width.value.exit_code == 4
    with pytest.raises(IncompatibleBackboneError, match=r"other weights, architecture or tokenizer.*retrain"):
        library.load("mnli@0", Identity(fingerprint="0" * 64))
    with pytest.warns(UnverifiedPromptWarning, match="unverified"):
        assert library.load("cr@0", Identity(fingerprint="0" * 64)).shape == (5, 8)
    with pytest.raises(IncompatibleBackboneError, match="google/t5-base-lm-adapt"):
        library.load("cr@0", Identity(hidden_size=16))
    assert library.get("mnli@0").check_backbone(Identity()) is True
    assert library.get("cr@0").check_backbone(Identity()) is False
    assert "unverified" in library.folders.read("cr@0", "README.md").decode()


def test_unknown_names_and_bad_names(library: Library) -> None:
    library.add(make())
    with pytest.raises(UnknownNameError, match="did you mean mnli@0"):
        library.get("mnli@1")
    for name in ("../mnli@0", "a/b", "a.b", ""):
        with pytest.raises(UsageError):
            library.get(name)
        with pytest.raises(UsageError):
            library.remove(name)
    assert default_name("super_glue/wsc.fixed v2", 3) == "super_glue-wsc-fixed-v2@3"
    assert default_name("../..", 0) == "prompt@0"


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ({"prompt": torch.full((2, 8), float("nan"))}, NonFiniteError, "NaN"),
        ({"prompt": torch.ones(2, 8, dtype=torch.int64)}, DataError, "int64"),
        ({"prompt": torch.ones(8)}, DataError, r"\[8\]"),
        ({"prompt": torch.ones(0, 8)}, DataError, r"\[0, 8\]"),
        ({"task_embedding": torch.ones(2, 9)}, UsageError, "width 9"),
        ({"name": "a.b"}, UsageError, "no dot"),
    ],
)
def test_bad_records_are_refused(tmp_path: Path, bad: dict[str, Any], error: type[SoftpromptError], words: str) -> None:
    with pytest.raises(error, match=words):
        Library(tmp_path / "p").add(make(**bad))
    assert not (tmp_path / "p").exists()


def test_prompts_without_an_embedding(library: Library) -> None:
    library.add(make(task_embedding=None))
    assert not library.list()[0].has_task_embedding
    with pytest.raises(UsageError, match="no task embedding"):
        library.get("mnli@0").task_embedding()
    assert library.verify() == {}


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    library = Library(tmp_path / "prompts")
    library.add(make())
    folder = tmp_path / "prompts" / "mnli@0"
    draw = random.Random(0)
    for file in sorted(os.listdir(folder)):
        path = folder / file
        original = path.read_bytes()
        for _ in range(25):
            data = bytearray(original)
            if draw.random() < 0.3:
                del data[draw.randrange(len(data)) :]
            else:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(bytes(data))
            assert list(library.verify()) == ["mnli@0"], file
            if file in ("manifest.json", "adapter_model.safetensors"):
                with pytest.raises(SoftpromptError) as caught:
                    library.load("mnli@0", Identity())
                assert caught.value.exit_code in (2, 3)
        path.write_bytes(original)
    assert library.verify() == {}


def test_a_damaged_prompt_does_not_end_a_listing(tmp_path: Path) -> None:
    library = Library(tmp_path / "prompts")
    library.add(make("mnli"))
    library.add(make("sst2"))
    (tmp_path / "prompts" / "mnli@0" / "manifest.json").write_text("{")
    (tmp_path / "prompts" / "not a prompt").mkdir()
    (tmp_path / "prompts" / "half").mkdir()
    (tmp_path / "prompts" / "half" / "adapter_config.json").write_text("{}")
    assert [e.name for e in library.list()] == ["sst2@0"]
    assert "not readable JSON" in library.index.problems["mnli@0"]
    assert "half" not in library.names()


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    library = Library(tmp_path / "prompts")
    manifest = library.add(make()).manifest
    (tmp_path / "secret").write_text("x")
    path = tmp_path / "prompts" / "mnli@0" / "manifest.json"
    wrong = manifest.model_copy(update={"files": {**manifest.files, "../../secret": "0" * 64}})
    path.write_bytes(wrong.to_bytes())
    with pytest.raises(CorruptArtifactError, match=r"and no other files, not \.\./\.\./secret"):
        library.get("mnli@0")


def test_a_renamed_folder_and_a_newer_format_are_refused(tmp_path: Path) -> None:
    library = Library(tmp_path / "prompts")
    library.add(make())
    shutil.copytree(tmp_path / "prompts" / "mnli@0", tmp_path / "prompts" / "other@0")
    with pytest.raises(CorruptArtifactError, match="that of prompt 'mnli@0'"):
        library.get("other@0")
    path = tmp_path / "prompts" / "mnli@0" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": "softprompt-prompt/9"}))
    with pytest.raises(CorruptArtifactError, match="update softprompt"):
        library.get("mnli@0")


def test_nothing_is_loaded_that_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path / "prompts")
    for seed in range(3):
        library.add(make(seed=seed))
    read: list[str] = []
    original = artifacts.read_bytes

    def spy(path: Any, **more: Any) -> bytes:
        read.append(Path(path).name)
        return original(path, **more)

    monkeypatch.setattr(artifacts, "read_bytes", spy)
    library.names()
    assert read == []
    library.list()
    assert set(read) <= {"manifest.json", "facts.json"}
    read.clear()
    library.list()
    assert read == [], "a second listing reads nothing"
    library.get("mnli@1").prompt()
    assert read == ["manifest.json", "adapter_model.safetensors"]


def test_copies_keep_their_bytes(tmp_path: Path, library: Library) -> None:
    library.add(make())
    other = Library(tmp_path / "other")
    copied = other.copy_from(library.get("mnli@0"))
    assert copied.files() == library.get("mnli@0").files()
    with pytest.raises(UsageError, match="already exists"):
        other.copy_from(library.get("mnli@0"))


def test_a_folder_without_its_manifest_is_absent_on_an_object_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import fsspec

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    root = uuid.uuid4().hex
    library = Library(f"memory://{root}")
    files: Any = fsspec.filesystem("memory")
    order: list[str] = []
    original = type(files).pipe_file

    def spy(self: Any, path: str, value: bytes, **more: Any) -> None:
        order.append(path.rsplit("/", 1)[-1])
        if path.endswith("README.md"):
            assert library.names() == [], "half a folder was seen"
            raise OSError("the network is gone")
        original(self, path, value, **more)

    monkeypatch.setattr(type(files), "pipe_file", spy)
    with pytest.raises(artifacts.StorageError, match="counts as absent"):
        library.add(make())
    assert library.names() == []
    assert "manifest.json" not in order
    monkeypatch.undo()
    library.add(make())
    assert library.verify() == {}


def test_two_writers_of_one_name_on_an_object_store_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = RemoteFolders(f"memory://{uuid.uuid4().hex}")
    original = folders.read

    def meddled(name: str, file: str) -> bytes:
        return original(name, file) + (b" " if file == "b" else b"")

    monkeypatch.setattr(folders, "read", meddled)
    with pytest.raises(CorruptArtifactError, match="at the same time"):
        folders.write("p", {"b": b"1", "manifest.json": b"{}"}, replace=False)


def test_a_library_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        Library(tmp_path / "x")
    with pytest.raises(UsageError, match="cannot be opened"):
        Library("nosuchprotocol://x")


def test_a_read_only_library_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path / "prompts")
    library.add(make())

    def refuse(*args: Any, **more: Any) -> str:
        raise artifacts.StorageError("read-only")

    monkeypatch.setattr("softprompt.library.index._REWRITE_COUNT", -1)
    monkeypatch.setattr(artifacts, "write_bytes", refuse)
    assert [e.name for e in Library(tmp_path / "prompts").list()] == ["mnli@0"]


def test_card_says_what_it_is(tmp_path: Path) -> None:
    library = Library(tmp_path / "p")
    library.add(make(tags=("a|b",), command="softprompt train mnli --x ```"))
    card = (tmp_path / "p" / "mnli@0" / "README.md").read_text()
    head = card.split("---")[1]
    assert "base_model" not in head  # "tiny" is no id on the Hub
    assert "license: apache-2.0" in head
    assert "| accuracy | 81.25 |" in card
    assert "softprompt train mnli --x '''" in card  # its own fence would end the block
    assert card.count("```") == 8


def test_distance_from_the_start_is_kept(tmp_path: Path) -> None:
    start = torch.zeros(2, 8)
    moved: Tensor = torch.zeros(2, 8)
    moved[0, 0], moved[1, 1] = 3.0, 4.0
    stored = Library(tmp_path / "p").add(make(prompt=moved, task_embedding=None, initial=start))
    assert stored.manifest.facts == {"mean_row_norm": 3.5, "distance_from_initial": 3.5}


def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path / "p")
    library.add(make())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(artifacts.StorageError, match="the disk is full"):
            library.add(make("sst2"))
        with pytest.raises(artifacts.StorageError, match="the disk is full"):
            library.add(make(length=9), replace=True)
    assert library.names() == ["mnli@0"]
    assert library.get("mnli@0").prompt().shape == (5, 8)
    assert library.verify() == {}
    assert os.listdir(tmp_path / "p") == ["mnli@0"]


def test_links_that_lead_out_of_a_library_are_not_followed(tmp_path: Path) -> None:
    library = Library(tmp_path / "p")
    Library(tmp_path / "other").add(make())
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mnli@0").symlink_to(tmp_path / "other" / "mnli@0")
    with pytest.raises(UsageError, match="leads out"):
        library.get("mnli@0")
    (tmp_path / "p" / "mnli@0").unlink()
    library.add(make())
    model = tmp_path / "p" / "mnli@0" / "adapter_model.safetensors"
    model.unlink()
    model.symlink_to(tmp_path / "other" / "mnli@0" / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="leads out"):
        library.get("mnli@0").prompt()
    (tmp_path / "p" / "inner@0").symlink_to(
        tmp_path / "p" / "mnli@0"
    )  # within the library: the manifest's name decides
    with pytest.raises(CorruptArtifactError, match="that of prompt"):
        library.get("inner@0")
