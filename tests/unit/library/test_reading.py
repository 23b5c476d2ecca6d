"""Libraries made by others: what is signed again is found out, what is replaced while it is read is read again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from tests.support.hub import FakeHub
from tests.support.manifests import record, signed
from torch import Tensor

from softprompt.artifacts import sha256_bytes
from softprompt.errors import CorruptArtifactError, SoftpromptError
from softprompt.library.formats.hub import pull, push
from softprompt.library.record import TASK_EMBEDDING, TASK_VECTORS
from softprompt.library.search import search
from softprompt.library.store import Library

ADAPTER = "adapter_model.safetensors"


def put(library: Library, name: str, file: str, tensors: dict[str, Tensor], **fields: Any) -> None:
    """Replaces a file of a prompt and signs its manifest again, as somebody would who wants to be believed."""
    folder = Path(library.location) / name
    (folder / file).write_bytes(save(tensors))
    content = json.loads((folder / "manifest.json").read_text())
    content["files"][file] = sha256_bytes((folder / file).read_bytes())
    (folder / "manifest.json").write_bytes(signed({**content, **fields}))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    made = Library(tmp_path / "lib")
    for name in ("bad", "good", "other"):
        made.add(record(name))
    return made


def vectors(**changed: Tensor) -> dict[str, Tensor]:
    return {"per_token": torch.randn(4) / 10, "average": torch.randn(4) / 10, **changed}


CASES: dict[str, tuple[Callable[[Library], None], str]] = {
    "long vectors": (
        lambda lib: put(lib, "bad@0", TASK_VECTORS, vectors(per_token=torch.full((4,), 4769.0))),
        "vector of length 9538",
    ),
    "NaN vectors": (
        lambda lib: put(lib, "bad@0", TASK_VECTORS, vectors(average=torch.tensor([0.1, torch.nan, 0, 0]))),
        "vector of length nan",
    ),
    "integer vectors": (
        lambda lib: put(lib, "bad@0", TASK_VECTORS, vectors(average=torch.tensor([1, 0, 0, 0]))),
        "no average vector of 4 float32 numbers",
    ),
    "vectors of another": (
        lambda lib: put(lib, "bad@0", TASK_VECTORS, vectors(average=torch.tensor([1.0, 0, 0, 0]))),
        "that its task embedding does not give",
    ),
    "NaN embedding": (
        lambda lib: put(lib, "bad@0", TASK_EMBEDDING, {"task_embedding": torch.full((3, 4), torch.nan)}),
        "holds NaN or infinity",
    ),
    "wide embedding": (
        lambda lib: put(lib, "bad@0", TASK_EMBEDDING, {"task_embedding": torch.randn(3, 5)}),
        "has width 5, its prompt 4",
    ),
    "float8 embedding": (
        lambda lib: put(lib, "bad@0", TASK_EMBEDDING, {"task_embedding": torch.ones(3, 4).to(torch.float8_e4m3fn)}),
        "has dtype float8_e4m3fn",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_poisoned_prompt_is_named_by_verify_and_never_ranked(library: Library, case: str) -> None:
    spoil, words = CASES[case]
    spoil(library)
    again = Library(library.location)
    problems = again.verify()
    assert list(problems) == ["bad@0"]
    assert words in " ".join(problems["bad@0"])
    ranked = search(again, [torch.randn(3, 4)], top_k=2)
    assert sorted(match.name for match in ranked) == ["good@0", "other@0"]
    assert all(-1 <= match.similarity <= 1 for match in ranked)
    assert words in again.index.problems["bad@0"]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.complex64, torch.bool])
def test_a_prompt_of_a_strange_dtype_stops_nothing(library: Library, dtype: torch.dtype) -> None:
    put(library, "bad@0", ADAPTER, {"prompt_embeddings": torch.ones(3, 4).to(dtype)})
    problems = Library(library.location).verify()
    assert list(problems) == ["bad@0"]
    assert str(dtype).removeprefix("torch.") in problems["bad@0"][0]
    with pytest.raises(SoftpromptError):
        library.get("bad@0").prompt()


@pytest.mark.parametrize("file", ["task.py", ".hidden", "deep/run.sh", "prompt.bin"])
def test_a_folder_holds_the_known_files_alone(library: Library, tmp_path: Path, file: str) -> None:
    strange = Path(library.location) / "bad@0" / file
    strange.parent.mkdir(exist_ok=True)
    strange.write_text("import os")
    problems = library.verify()
    assert list(problems) == ["bad@0"]
    assert f"holds {file}, which a prompt's folder does not have" in problems["bad@0"][0]
    target = Library(tmp_path / "target")
    with pytest.raises(CorruptArtifactError, match="does not have"):
        target.copy_from(library.get("bad@0"))
    hub = FakeHub(tmp_path / "hub")
    push(Library(library.location), "someone/prompts", ["good@0"], api=hub)
    hub.commits["someone/prompts"][-1]["good@0/" + file] = b"import os"
    with pytest.raises(CorruptArtifactError, match="it was not taken"):
        pull(target, "someone/prompts", ["good@0"], api=hub)
    assert target.names() == []


def test_further_tensors_and_another_config_are_found(library: Library) -> None:
    folder = Path(library.location) / "good@0"
    put(library, "good@0", ADAPTER, {"prompt_embeddings": torch.ones(3, 4), "more": torch.ones(1)})
    assert "'prompt_embeddings' alone belongs there" in library.verify()["good@0"][0]
    config = json.loads((Path(library.location) / "bad@0" / "adapter_config.json").read_text())
    data = json.dumps({**config, "peft_type": "LORA"}).encode()
    folder = Path(library.location) / "bad@0"
    (folder / "adapter_config.json").write_bytes(data)
    content = json.loads((folder / "manifest.json").read_text())
    content["files"]["adapter_config.json"] = sha256_bytes(data)
    (folder / "manifest.json").write_bytes(signed(content))
    assert "something else than the manifest under peft_type" in library.verify()["bad@0"][0]


@pytest.mark.parametrize("place", ["disk", "memory"])
@pytest.mark.slow
def test_a_reader_during_a_replace_never_sees_damage(tmp_path: Path, place: str) -> None:
    """One thread replaces a prompt again and again; readers of every kind see the old one or the new one, whole."""
    writer = Library(tmp_path / "lib") if place == "disk" else Library(f"memory://replace-{tmp_path.name}/lib")
    records = [record("films", prompt=torch.full((3, 4), float(i)), task_embedding=torch.randn(3, 4)) for i in range(2)]
    writer.add(records[0])
    reader, held, stop = Library(writer.location), writer.get("films@0"), threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                assert reader.get("films@0").prompt().unique().numel() == 1
                assert held.prompt().shape == (3, 4)
                assert held.task_embedding().shape == (3, 4)
                assert len(held.files()) == 6
                problems = reader.verify()
                assert problems == {}, problems
                assert "films@0" in {m.name for m in search(reader, [torch.randn(3, 4)])} or place == "memory"
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        writer.add(records[turn % 2], replace=True)
        time.sleep(0.01 * (turn % 3))
    stop.set()
    for thread in threads:
        thread.join()
    if place == "memory":  # between removal and writing anew such a store has no prompt at all, which is said so
        wrong = [text for text in wrong if not text.startswith("UnknownNameError")]
    assert wrong == []
