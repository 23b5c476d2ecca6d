"""NumPy and vLLM files: lossless both ways, nothing pickled, no more memory than the file has bytes."""

from __future__ import annotations

import base64
import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.models import CAUSAL_KINDS, tiny_backbone

from softprompt.errors import (
    CorruptArtifactError,
    DataError,
    IncompatibleBackboneError,
    NonFiniteError,
    SoftpromptError,
    UsageError,
)
from softprompt.library.formats.npy import npy_bytes, npy_record, read_npy, write_npy
from softprompt.library.formats.vllm import (
    completions_body,
    encode,
    prompt_embeds,
    read_prompt_embeds,
    write_prompt_embeds,
)
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.prompts.stack import PromptStack

DTYPES = (torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_npy_round_trip_is_bitwise(tmp_path: Path, dtype: torch.dtype) -> None:
    prompt = torch.randn(5, 8, dtype=torch.float64).to(dtype)
    write_npy(tmp_path / "p.npy", prompt)
    read = read_npy(tmp_path / "p.npy")
    assert read.dtype == dtype
    assert torch.equal(read, prompt)
    narrow = prompt.to(torch.bfloat16)
    write_npy(tmp_path / "b.npy", narrow)
    assert torch.equal(read_npy(tmp_path / "b.npy").to(torch.bfloat16), narrow)


def test_npy_layouts_that_mean_the_same(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    for i, variant in enumerate((array, np.asfortranarray(array), array.astype(">f4"), array[None])):
        np.save(tmp_path / f"{i}.npy", variant)
        read = read_npy(tmp_path / f"{i}.npy")
        assert np.array_equal(read.numpy(), array)
        read[0, 0] = 1.0  # its own memory


def test_names_and_steps_of_the_official_code(tmp_path: Path) -> None:
    folder = tmp_path / "boolq" / "numpy_checkpoints" / "checkpoint_1130000"
    folder.mkdir(parents=True)
    (folder / "encoder.prompt.prompt.prompt").write_bytes(npy_bytes(torch.randn(3, 1024)))
    record = npy_record(folder / "encoder.prompt.prompt.prompt")
    assert (record.task, record.steps, record.backbone_name) == ("boolq", 30_000, "google/t5-large-lm-adapt")
    assert record.backbone_fingerprint is None
    write_npy(tmp_path / "wic.npy", torch.randn(3, 5))
    record = npy_record(tmp_path / "wic.npy", seed=2, licence="Apache-2.0")
    assert (record.task, record.steps, record.backbone_name, record.seed) == ("wic", None, "unknown", 2)
    assert npy_record(tmp_path / "wic.npy", "other").task == "other"


def test_the_released_prompts_import_with_their_tasks(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "google"
    if not (folder / "sst2.npy").exists():
        pytest.skip("no released prompts beside the data")
    library = Library(tmp_path / "p")
    for path in sorted(folder.glob("*.npy")):
        stored = library.add(npy_record(path, licence="Apache-2.0"))
        assert np.array_equal(stored.prompt().numpy(), np.load(path, allow_pickle=False))
        write_npy(tmp_path / "again.npy", stored.prompt())
        assert np.array_equal(np.load(tmp_path / "again.npy"), np.load(path, allow_pickle=False))
    listed = library.list(verified=False)
    assert [entry.task for entry in listed] == ["mrpc", "rte", "sst2"]
    assert {(entry.prompt_length, entry.width, entry.backbone_name) for entry in listed} == {
        (100, 768, "google/t5-base-lm-adapt")
    }
    assert max(entry.mean_row_norm or 0 for entry in listed) > 100, (
        "the released prompts are far outside the vocabulary's norms"
    )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (tmp_path / "p.npy").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="pickles are not opened"):
        read_npy(tmp_path / "o.npy")
    with pytest.raises(CorruptArtifactError):
        read_npy(tmp_path / "p.npy")
    torch.save(torch.ones(1, 2), tmp_path / "t.pt")
    with pytest.raises(CorruptArtifactError):
        read_prompt_embeds(tmp_path / "t.pt")


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.full((2, 3), np.nan, np.float32), NonFiniteError),
        (np.full((2, 3), 1e300), None),
        (np.ones((2, 3), np.int64), DataError),
        (np.ones((2, 3), np.complex64), DataError),
        (np.ones(3, np.float32), DataError),
        (np.ones((2, 2, 3), np.float32), DataError),
        (np.ones((0, 3), np.float32), DataError),
        (np.zeros(2, dtype=[("a", "f4")]), DataError),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, array: Any, error: type[SoftpromptError] | None) -> None:
    np.save(tmp_path / "x.npy", array)
    if error is None:
        read_npy(tmp_path / "x.npy")
        return
    with pytest.raises(error):
        read_npy(tmp_path / "x.npy")


def test_a_header_cannot_ask_for_more_than_the_file(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
    (tmp_path / "x.npy").write_bytes(stream.getvalue() + b"\0" * 64)
    with pytest.raises(CorruptArtifactError, match="has 64 bytes"):
        read_npy(tmp_path / "x.npy")


def test_fuzzed_files_are_read_or_refused(tmp_path: Path) -> None:
    stored = Library(tmp_path / "p").add(record())
    write_npy(tmp_path / "x.npy", stored.prompt())
    write_prompt_embeds(tmp_path / "x.safetensors", stored.prompt())
    draw = random.Random(0)
    for path, read in ((tmp_path / "x.safetensors", read_prompt_embeds), (tmp_path / "x.npy", read_npy)):
        original = path.read_bytes()
        refused = 0
        for _ in range(150):
            data = bytearray(original)
            for _ in range(draw.randrange(1, 4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            path.write_bytes(bytes(data[: draw.randrange(len(data))] if draw.random() < 0.3 else data))
            try:
                read(path)  # type: ignore[operator]
            except SoftpromptError:
                refused += 1
        assert refused > 20


def record(**more: Any) -> PromptRecord:
    values: dict[str, Any] = {
        "task": "mnli", "seed": 2, "prompt": torch.randn(3, 4), "task_embedding": torch.randn(3, 4), "backbone_name": "tiny",
        "backbone_fingerprint": "f" * 64, "backbone_kind": "t5", "scores": {"score": 12.5}, "recipe": {"steps": 7},
        "tags": ("a", "b"), "licence": "MIT", "command": "softprompt train mnli", "versions": {"torch": "2"},
    }  # fmt: skip
    return PromptRecord(**{**values, **more})


@pytest.mark.parametrize("kind", CAUSAL_KINDS)
def test_vllm_embeddings_continue_as_the_backbone_does(tmp_path: Path, kind: str) -> None:
    backbone = tiny_backbone(kind)
    prompt = torch.randn(4, backbone.hidden_size)
    text = "the cat sees a dog"
    body = completions_body(backbone, prompt, text, max_tokens=6)
    assert set(body) == {"prompt_embeds", "temperature", "max_tokens"}  # a "prompt" beside it would be a second one
    # what the server does with the field: torch's restricted loader, then the embeddings as they are
    embeds = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"])), weights_only=True)
    assert torch.equal(embeds, prompt_embeds(backbone, prompt, text))
    assert torch.equal(embeds[:4], prompt)
    with torch.no_grad():
        out = backbone.hf_model.generate(
            inputs_embeds=embeds[None],
            attention_mask=torch.ones(1, len(embeds)),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
        )
    from softprompt.batch import TokenBatch

    batch = TokenBatch.of(backbone.tokenize_inputs([text]))
    (ours,) = backbone.generate(batch, PromptStack(prompt[None])(torch.zeros(1, dtype=torch.int64)), 6)
    assert out[0].tolist()[: len(ours)] == ours
    write_prompt_embeds(tmp_path / "p.safetensors", prompt)
    assert torch.equal(read_prompt_embeds(tmp_path / "p.safetensors"), prompt)
    assert len(encode(prompt)) > 0


def test_vllm_refuses_what_it_cannot_serve() -> None:
    with pytest.raises(UsageError, match="decoder-only"):
        prompt_embeds(tiny_backbone("t5"), torch.ones(2, 24), "x")
    with pytest.raises(IncompatibleBackboneError, match="width 8"):
        prompt_embeds(tiny_backbone("gpt2"), torch.ones(2, 8), "x")
