"""Backbones that are published as pytorch_model.bin: converted once, stated, and nothing of a pickle runs."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import pytest
import torch
from tests.support.cli import call
from tests.support.models import random_batch, save_tiny

from softprompt.backbones import load, pickled
from softprompt.backbones.converted import RECORD
from softprompt.backbones.load import convert_backbone, load_backbone
from softprompt.errors import BackboneError, CorruptArtifactError, UnknownNameError, UsageError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))


def as_bin(folder: Path, *, legacy: bool = False, parts: int = 1) -> Path:
    """The same model with its weights pickled, as hubs have it: tied tensors under each of their names."""
    from transformers import AutoModelForSeq2SeqLM

    state = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    (folder / "model.safetensors").unlink()
    names = list(state)
    for number in range(parts):
        part = {name: state[name] for name in names[number::parts]}
        file = "pytorch_model.bin" if parts == 1 else f"pytorch_model-{number + 1:05d}-of-{parts:05d}.bin"
        torch.save(part, folder / file, _use_new_zipfile_serialization=not legacy)
    return folder


@pytest.mark.parametrize("kind", ["t5", "t5-gated-untied"])
@pytest.mark.parametrize(("legacy", "parts"), [(False, 1), (True, 1), (False, 3)])
def test_a_bin_loads_as_the_same_model(
    kind: str, legacy: bool, parts: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load_backbone(str(save_tiny(kind, tmp_path / "plain")), dtype="float32")
    folder = as_bin(save_tiny(kind, tmp_path / "pickled"), legacy=legacy, parts=parts)
    with caplog.at_level(logging.WARNING):
        backbone = load_backbone(str(folder), dtype="float32")
    assert "converting pytorch_model" in caplog.text
    assert "sha256" in caplog.text
    batch = random_batch(plain)
    assert torch.equal(backbone.logits(batch, None), plain.logits(batch, None))
    assert backbone.fingerprint == plain.fingerprint
    caplog.clear()
    load_backbone(str(folder), dtype="float32")
    assert "converting" not in caplog.text


class Harmful:
    """Makes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.path,))


def test_nothing_of_a_pickle_runs(tmp_path: Path) -> None:
    folder = save_tiny("t5", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"shared.weight": Harmful(str(tmp_path / "harm"))}))
    with pytest.raises(CorruptArtifactError, match=r"pytorch_model\.bin"):
        load_backbone(str(folder))
    assert not (tmp_path / "harm").exists()
    assert not list((tmp_path / "cache" / "backbones").glob("bin-*[!k]"))


@pytest.mark.parametrize("value", [{"a": 1}, [torch.ones(2)], {"a": {"b": torch.ones(2)}}])
def test_more_than_tensors_is_refused(value: object, tmp_path: Path) -> None:
    folder = save_tiny("t5", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(value, folder / "pytorch_model.bin")
    with pytest.raises(CorruptArtifactError, match="tensors"):
        load_backbone(str(folder))


@pytest.mark.parametrize("keep", [0, 10, 5000, -10])
def test_a_truncated_bin_is_one_sentence(keep: int, tmp_path: Path) -> None:
    folder = as_bin(save_tiny("t5", tmp_path / "model"))
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptArtifactError, match="fetch it again") as caught:
        load_backbone(str(folder))
    assert "\n" not in str(caught.value)


def test_convert_writes_a_folder_that_transformers_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForSeq2SeqLM

    folder, out = as_bin(save_tiny("t5", tmp_path / "model")), tmp_path / "out"
    code, answer, problem = call(capsys, "convert", str(folder), str(out), "--json")
    assert code == 0, problem
    told = json.loads(answer)
    assert told["sha256"].keys() == {"pytorch_model.bin"}
    assert json.loads((out / RECORD).read_text())["weights"] == told["tensors"]
    _, report = AutoModelForSeq2SeqLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert call(capsys, "convert", str(folder), str(out))[0] == 2, "an existing folder is left alone"
    with pytest.raises(UsageError, match="nothing to convert"):
        convert_backbone(str(out))


def test_a_hub_id_with_bins_only_fetches_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder, asked = as_bin(save_tiny("t5", tmp_path / "0123abc")), []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    backbone = load_backbone("google/t5-tiny-lm-adapt", dtype="float32")
    assert backbone.name == "google/t5-tiny-lm-adapt"
    assert "pytorch_model*.bin" not in asked[0]
    assert "pytorch_model*.bin" in asked[1]


@pytest.mark.parametrize(
    ("name", "framework"), [("t5_1_1_lm100k_base", "T5X"), ("t5.1.1.lm100k.base", "Mesh TensorFlow"),
                            ("google/t5.1.1.lm100k.xxl", "Mesh TensorFlow")],
)  # fmt: skip
def test_names_of_other_frameworks_say_where_the_weights_are(name: str, framework: str) -> None:
    with pytest.raises(UnknownNameError, match=framework) as caught:
        load_backbone(name)
    assert f"google/t5-{name.rpartition('base')[1] or 'xxl'}-lm-adapt" in str(caught.value)


def test_checkpoints_of_other_frameworks_are_told_apart(tmp_path: Path) -> None:
    mesh, t5x = tmp_path / "mesh", tmp_path / "t5x"
    mesh.mkdir()
    (mesh / "model.ckpt-1100000.index").touch()
    (t5x / "target.encoder.encoder_norm.scale").mkdir(parents=True)
    (t5x / "checkpoint").touch()
    for folder, framework in ((mesh, "Mesh TensorFlow"), (t5x, "T5X")):
        with pytest.raises(BackboneError, match=framework):
            pickled.refuse_other_frameworks(str(folder), folder)
        with pytest.raises(BackboneError, match=framework):
            load_backbone(str(folder))


def test_encoder_decoders_without_a_parity_test_are_refused(tmp_path: Path) -> None:
    from transformers import BartConfig

    folder = save_tiny("t5", tmp_path / "model")
    BartConfig().save_pretrained(folder)
    with pytest.raises(BackboneError, match="bart"):
        load.load_backbone(str(folder))
