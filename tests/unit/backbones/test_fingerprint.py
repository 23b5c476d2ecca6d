"""The fingerprint follows what is computed: weights, architecture, tokenizer; not dtype, sharding or a config's text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models import save_tiny, tiny_backbone, tiny_model, tiny_tokenizer

from softprompt.backbones import fingerprint as module
from softprompt.backbones.fingerprint import digest_stored, digest_tensors, digest_tokenizer
from softprompt.backbones.load import load_backbone, wrap


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return save_tiny("t5-gated-untied", tmp_path / "model")


def _print(folder: Path) -> str:
    return load_backbone(str(folder), dtype="float32").fingerprint


def test_one_changed_weight_changes_it(folder: Path) -> None:
    before = _print(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["shared.weight"][3, 3] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert _print(folder) != before


def test_two_swapped_tensors_change_it(folder: Path) -> None:
    before = _print(folder)
    tensors = load_file(folder / "model.safetensors")
    a, b = (f"encoder.block.{i}.layer.0.SelfAttention.q.weight" for i in (0, 1))
    tensors[a], tensors[b] = tensors[b], tensors[a]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert _print(folder) != before


def test_the_text_of_the_config_and_the_split_into_files_do_not(folder: Path) -> None:
    before = _print(folder)
    config = json.loads((folder / "config.json").read_text())
    config["_name_or_path"], config["a_comment"] = "elsewhere", "of no meaning"
    (folder / "config.json").write_text(json.dumps(config, indent=7))
    assert _print(folder) == before
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002": names[::2], "model-00002-of-00002": names[1::2]}
    index = {}
    for file, part in halves.items():
        save_file({n: tensors[n] for n in part}, folder / f"{file}.safetensors", metadata={"format": "pt"})
        index |= dict.fromkeys(part, f"{file}.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert _print(folder) == before


def test_a_tied_tensor_stored_twice_is_the_same_model(tmp_path: Path) -> None:
    tensors = {"shared.weight": torch.randn(4, 3), "encoder.block.weight": torch.randn(3, 3)}
    save_file(tensors, tmp_path / "once.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["shared.weight"].clone()}, tmp_path / "twice.safetensors")
    save_file({**tensors, "lm_head.weight": torch.randn(4, 3)}, tmp_path / "other.safetensors")
    once, twice, other = (digest_stored([tmp_path / f"{n}.safetensors"]) for n in ("once", "twice", "other"))
    assert once == twice
    assert once != other


def test_the_second_digest_reads_no_weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, cache = [folder / "model.safetensors"], tmp_path / "digests.json"
    first = digest_stored(files, cache)
    monkeypatch.setattr(module, "_file_tensors", lambda path: pytest.fail("read again"))
    assert digest_stored(files, cache) == first
    cache.write_text("not json")
    monkeypatch.undo()
    assert digest_stored(files, cache) == first


def test_the_cache_of_digests_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    cache = tmp_path / "digests.json"
    for n in range(5):
        (tmp_path / f"{n}.bin").write_bytes(bytes([n]))
        module.digest_file(tmp_path / f"{n}.bin", cache)
    assert [Path(key.split("|")[1]).name for key in json.loads(cache.read_text())] == ["2.bin", "3.bin", "4.bin"]


def test_tokenizers_and_dtypes() -> None:
    assert digest_tokenizer(tiny_tokenizer("t5")) == digest_tokenizer(tiny_tokenizer("t5"))
    assert digest_tokenizer(tiny_tokenizer("t5")) != digest_tokenizer(tiny_tokenizer("llama"))
    x = torch.randn(3)
    assert digest_tensors([("a", x)]) != digest_tensors([("a", x.double())])
    assert digest_tensors([("a", x), ("b", x)]) == digest_tensors([("b", x), ("a", x)])


def test_a_setting_that_changes_the_computation_changes_it() -> None:
    model, tokenizer = tiny_model("t5")
    first = wrap(model, tokenizer, name="a").fingerprint
    model, tokenizer = tiny_model("t5")
    model.config.layer_norm_epsilon = 1e-3
    assert wrap(model, tokenizer, name="a").fingerprint != first
    assert tiny_backbone("t5").fingerprint == first
