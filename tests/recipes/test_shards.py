"""Tokenised shards: what is written is read, spans are T5's, batches repeat, and a T5 trains from them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from embedded_backbone import PretrainSettings
from embedded_backbone.corpus import Corpus, text_files
from embedded_backbone.objectives import span_corruption
from embedded_backbone.setup import own_vocabulary
from embedded_backbone.shards import MANIFEST, TokenShards, corrupt_spans, is_shards, write_shards
from embedded_backbone.train import pretrain
from softprompt.errors import CorruptArtifactError, DataError, UsageError

pytestmark = pytest.mark.slow  # how the embedded backbone was trained: nothing that ships runs it

SENTINELS = list(range(900, 800, -1))


@pytest.fixture(scope="module")
def shards(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the tiny corpus with a vocabulary of its own."""
    place = tmp_path_factory.mktemp("shards")
    settings = PretrainSettings(text=text_folder, folder=place, architecture="t5", objective="span", vocabulary=120)
    files = text_files(text_folder)
    corpus = Corpus.load(files)
    tokenizer = own_vocabulary(settings, corpus)
    coded = tokenizer([text for text, _ in corpus.documents], add_special_tokens=False)["input_ids"]
    documents = [(at % 50 == 49, ids) for at, ids in enumerate(coded)]
    write_shards(
        place / "shards", documents, vocabulary=(place / "spiece.model").read_bytes(), pieces=len(tokenizer) - 100,
        end_id=1, text=files, shard_bytes=20_000, note={"command": "test"},
    )  # fmt: skip
    return place / "shards"


def settings_for(shards: Path, folder: Path, **more: object) -> PretrainSettings:
    options: dict[str, object] = {
        "text": shards, "folder": folder, "architecture": "t5", "objective": "span", "layers": 1, "width": 32, "heads": 2,
        "feed_forward": 64, "steps": 6, "batch": 8, "micro_batch": 4, "inputs_tokens": 48, "slot_rows": 0, "adapt": 0.4,
        "candidates": 0, "warm_up": 1, "validate_every": 3, "save_every": 3, "validation_examples": 8,
    }  # fmt: skip
    return PretrainSettings(**(options | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(("length", "noise"), [(64, 0.15), (7, 0.5), (2, 0.15), (300, 0.3)])
def test_spans_are_those_of_the_plain_function(length: int, noise: float) -> None:
    draw = np.random.default_rng(0)
    chunk = np.arange(5 * length, dtype=np.int64).reshape(5, length) % 700
    inputs, targets = corrupt_spans(draw, chunk, sentinels=SENTINELS, noise=noise)
    plain = span_corruption(random.Random(0), chunk[0].tolist(), sentinels=SENTINELS, noise=noise)
    assert inputs.shape == (5, len(plain[0]))
    assert targets.shape == (5, len(plain[1]))
    for row in range(5):
        hidden: dict[int, list[int]] = {}
        for token in targets[row].tolist():
            hidden.setdefault(token, []) if token in SENTINELS else hidden[list(hidden)[-1]].append(token)
        last = list(hidden)[-1]
        assert hidden.pop(last) == []
        whole = [t for token in inputs[row].tolist() for t in hidden.get(token, [token])]
        assert whole == chunk[row].tolist()
        assert list(hidden) == SENTINELS[: len(hidden)]
        assert all(hidden.values())


def test_every_place_is_hidden_about_as_often() -> None:
    chunk = np.tile(np.arange(40, dtype=np.int64), (4000, 1))
    inputs, _ = corrupt_spans(np.random.default_rng(1), chunk, sentinels=SENTINELS, noise=0.25)
    seen = np.bincount(inputs[inputs < 40], minlength=40) / 4000
    # A row begins with a gap and ends with a span, as in the reference implementation; in between all is even.
    assert abs(seen[5:-5] - 0.75).max() < 0.08
    assert seen.mean() == pytest.approx(0.75)


def test_shards_are_read_as_written_and_batches_repeat(shards: Path) -> None:
    train, held = TokenShards.load(shards), TokenShards.load(shards, held_out=True)
    manifest = json.loads((shards / MANIFEST).read_text())
    assert train.tokens == manifest["tokens"] > held.tokens > 0
    assert len(train.parts) > 1
    assert all(part.nbytes <= 20_000 for part in train.parts)
    settings = settings_for(shards, shards.parent)
    tokenizer = own_vocabulary(settings, Corpus(files=[]))
    text = tokenizer.decode(train.parts[0][:30].tolist())
    assert "The" in text
    for prefix in (False, True):
        one, two = (
            train.batches(random.Random(3), tokenizer, 10, length=48, micro=4, prefix=prefix, noise=0.15)
            for _ in range(2)
        )
        assert [len(kinds) for _, kinds in one] == [4, 4, 2]
        assert all(torch.equal(a.ids_BT, b.ids_BT) and torch.equal(a.labels_BD, b.labels_BD) for (a, _), (b, _) in zip(one, two, strict=True))  # fmt: skip
        assert all(int(batch.mask_BT.min()) == 1 and int(batch.labels_BD.min()) >= 0 for batch, _ in one)
        assert all(int(batch.ids_BT[:, -1].max()) == 1 == int(batch.labels_BD[:, -1].min()) for batch, _ in one)
        assert prefix == all(batch.ids_BT.shape[1] + batch.labels_BD.shape[1] == 50 for batch, _ in one)


@pytest.mark.slow
def test_a_t5_trains_from_shards_and_resume_is_exact(shards: Path, tmp_path: Path) -> None:
    assert is_shards(shards)
    whole = settings_for(shards, tmp_path / "whole")
    model = pretrain(whole)
    halves = settings_for(shards, tmp_path / "halves")
    asked: list[int] = []
    pretrain(halves, stop=lambda: asked.append(1) is None and len(asked) == 4)
    assert len(asked) == 4
    pretrain(halves)
    one, two = ((tmp_path / name / "state" / "tensors.safetensors").read_bytes() for name in ("whole", "halves"))
    assert one == two
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "prose.txt" in card
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_the_exported_t5_has_the_loss_it_was_trained_with(shards: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    lines: list[dict[str, object]] = []
    folder = pretrain(settings_for(shards, tmp_path, adapt=0.0), log=lines.append)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder).float(), AutoTokenizer.from_pretrained(folder)
    held = TokenShards.load(shards, held_out=True)
    rng = random.Random("1:held out:5:0")
    batches = held.batches(rng, tokenizer, 8, length=48, micro=4, prefix=False, noise=0.15)
    with torch.no_grad():
        losses = [model(input_ids=b.ids_BT, attention_mask=b.mask_BT, labels=b.labels_BD).loss for b, _ in batches]
    expected = [line["loss"] for line in lines if line["part"] == "held out"][-1]
    assert float(torch.stack(losses).mean()) == pytest.approx(expected, rel=0.02)


def test_what_cannot_be_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tokenised shards"):
        pretrain(PretrainSettings(text=shards, folder=tmp_path))
    with pytest.raises(DataError, match="holds 100000 tokens"):
        TokenShards.load(shards).chunks(np.random.default_rng(0), 2, 100_000)
    with pytest.raises(UsageError, match="int16"):
        write_shards(tmp_path, [], vocabulary=b"", pieces=40_000, end_id=1, text=[], shard_bytes=100)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "train-000.ids").write_bytes(b"\0\0")
    with pytest.raises(CorruptArtifactError, match=r"train-000\.ids"):
        TokenShards.load(copy)
