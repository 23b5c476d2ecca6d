"""Loading: the supported kinds, what is refused and how, and the identity of what was loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.models import KINDS, random_batch, save_tiny

from softprompt.backbones.engine.native.library import library
from softprompt.backbones.load import load_backbone
from softprompt.errors import BackboneError, CorruptArtifactError, UnknownNameError, UsageError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SOFTPROMPT_KERNELS", "torch")
    library.cache_clear()
    yield
    library.cache_clear()  # the tests after these have the kernels of their own level


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_loads_and_answers_in_both_dtypes(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(kind, tmp_path / "model")
    exact = load_backbone(str(folder), dtype="float32")
    rough = load_backbone(str(folder), dtype="bfloat16")
    assert (exact.dtype, rough.dtype) == (torch.float32, torch.bfloat16)
    assert exact.fingerprint == rough.fingerprint
    assert exact.weights_digest() != rough.weights_digest()
    batch = random_batch(exact)
    found = [b.example_losses(batch, None).nll_B for b in (exact, rough)]
    torch.testing.assert_close(found[0], found[1], rtol=0.1, atol=0.5)


def test_float16_is_refused_for_t5(tmp_path: Path) -> None:
    folder = save_tiny("t5", tmp_path / "model")
    with pytest.raises(UsageError, match="overflows"):
        load_backbone(str(folder), dtype="float16")


@pytest.mark.parametrize("name", ["nosuch", "someone/nosuch", "./no/such/folder"])
def test_an_unknown_backbone_is_a_usage_error(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"nosuch|no/such"):
        load_backbone(name)


def test_unknown_dtype_and_device() -> None:
    with pytest.raises(UnknownNameError, match="bfloat16"):
        load_backbone(dtype="bfloat61")
    with pytest.raises(UnknownNameError, match="device"):
        load_backbone(device="gpu zero")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = save_tiny("t5", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="neither safetensors"):
        load_backbone(str(folder))


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny("t5", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["decoder.final_layer_norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="final_layer_norm"):
        load_backbone(str(folder))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = save_tiny("t5", tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((BackboneError, CorruptArtifactError)):
        load_backbone(str(folder))


def test_an_unsupported_kind_is_named(tmp_path: Path) -> None:
    folder = save_tiny("t5", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "nonsense"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="transformers"):
        load_backbone(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"config\.json"):
        load_backbone(str(folder))


@pytest.mark.parametrize("kind", ["t5gemma", "t5gemma2", "bart"])
def test_other_encoder_decoders_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    folder = save_tiny("t5", tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "is_encoder_decoder": True}))
    with pytest.raises(BackboneError, match=rf"encoder-decoder of kind '{kind}'.*take a T5"):
        load_backbone(str(folder))


def test_the_embedded_backbone(tmp_path: Path) -> None:
    backbone = load_backbone(dtype="float32")
    assert (backbone.kind, backbone.hidden_size) == ("encoder-decoder", 384)
    ids = backbone.tokenize_inputs(["a small sentence"])
    assert backbone.decode(ids) == ["a small sentence"]
