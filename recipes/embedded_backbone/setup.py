"""Building what a run trains, and writing what it ships."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from embedded_backbone import adapters, attention
from embedded_backbone.batches import Teacher
from embedded_backbone.corpus import Corpus
from embedded_backbone.model import Slots, TokenBatch, Trainee, compose
from embedded_backbone.objectives import slot_names
from embedded_backbone.settings import PretrainSettings
from embedded_backbone.shards import TokenShards
from embedded_backbone.wording import BINARY, TERNARY
from softprompt.backbones import builtin
from softprompt.backbones.builtin import DECODER_FILE, decoder_tensors, load_decoder


def build(settings: PretrainSettings, corpus: Corpus | TokenShards) -> tuple[Trainee, Any]:
    """The model in training and its tokenizer."""
    torch.manual_seed(settings.seed)
    if settings.architecture == "t5":
        return _build_t5(settings, corpus)
    encoder, tokenizer = builtin.load_encoder(
        None if settings.encoder == "builtin" else Path(settings.encoder), torch.bfloat16
    )
    model = compose(
        encoder,
        layers=settings.layers,
        positions=settings.positions,
        feed_forward=settings.feed_forward,
        heads=settings.heads,
    )
    if settings.initial is not None:
        load_decoder(cast("Any", model).decoder, settings.initial / DECODER_FILE)
    encoder.requires_grad_(False)
    if settings.rank:
        adapters.adapt(encoder, settings.rank)
        if settings.initial is not None:
            adapters.restore(encoder, load_file(settings.initial / DECODER_FILE))
    slots = None
    if settings.slot_rows:
        slots = Slots(len(slot_names()), settings.slot_rows, encoder.get_input_embeddings().weight)
        if settings.initial is not None and (settings.initial.parent / "state").exists():
            _earlier_slots(slots, settings.initial.parent)
    model.eval()
    if settings.device == "cpu":
        attention.use(model)
    return Trainee(model, slots, frozen_encoder=not settings.rank), tokenizer


def _earlier_slots(slots: Slots, folder: Path) -> None:
    from embedded_backbone.checkpoint import load_state

    found = load_state(folder)
    rows = None if found is None else found[0].get("weight.slots.rows_SRH")
    if rows is not None and rows.shape == slots.rows_SRH.shape:
        with torch.no_grad():
            slots.rows_SRH.copy_(rows)


def _build_t5(settings: PretrainSettings, corpus: Corpus | TokenShards) -> tuple[Trainee, Any]:
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = own_vocabulary(settings, corpus)
    config = T5Config(
        vocab_size=-(-len(tokenizer) // 64) * 64, d_model=settings.width, d_kv=settings.width // settings.heads,
        d_ff=settings.feed_forward, num_layers=settings.layers, num_decoder_layers=settings.layers, num_heads=settings.heads,
        feed_forward_proj="gated-gelu", tie_word_embeddings=True, decoder_start_token_id=0, dropout_rate=0.1,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model: Any = T5ForConditionalGeneration(config)
    with torch.no_grad():
        model.shared.weight.normal_(std=0.05)
    model.eval()
    return Trainee(model, None, frozen_encoder=False), tokenizer


def own_vocabulary(settings: PretrainSettings, corpus: Corpus | TokenShards) -> Any:
    """A T5 tokenizer over a SentencePiece vocabulary trained on a sample of ``corpus`` (kept in the run's folder).

    Shards bring theirs along; it lies in the run's folder before this is called.
    """
    import sentencepiece
    from transformers import T5Tokenizer

    place = settings.folder / "spiece.model"
    if not place.exists():
        assert isinstance(corpus, Corpus)
        rng = random.Random(f"{settings.seed}:vocabulary")
        sample = [corpus.text(rng)[:2000] for _ in range(6000)]
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample), model_writer=written, vocab_size=settings.vocabulary, model_type="unigram",
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=2, normalization_rule_name="identity", hard_vocab_limit=False,
            minloglevel=1,
        )  # fmt: skip
        place.write_bytes(written.getvalue())
    pieces: Any = sentencepiece.SentencePieceProcessor(model_file=str(place))
    vocabulary = [(pieces.id_to_piece(at), pieces.get_score(at)) for at in range(pieces.get_piece_size())]
    return T5Tokenizer(vocab=vocabulary, extra_ids=100)


def teacher(trainee: Trainee, tokenizer: Any, settings: PretrainSettings) -> Teacher:
    """Cosines of the untouched encoder's mean-pooled sentence vectors: the measure of likeness it was made for."""
    encoder: Any = trainee.model.get_encoder()
    if settings.rank:
        encoder = builtin.load_encoder(
            None if settings.encoder == "builtin" else Path(settings.encoder), torch.bfloat16
        )[0]
        encoder.to(settings.device)

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        texts = [text for pair in pairs for text in pair]
        coded = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        device = trainee.words().device
        mask = coded["attention_mask"].to(device)
        with torch.no_grad():
            states = encoder(input_ids=coded["input_ids"].to(device), attention_mask=mask)[0].float()
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        unit = functional.normalize(pooled, dim=-1)
        return cast("list[float]", (unit[0::2] * unit[1::2]).sum(1).tolist())

    return score


def label_ids(tokenizer: Any) -> Tensor:
    """Ids of every usual label word, always among the candidates."""
    words = sorted({word for group in (*BINARY, *TERNARY) for word in group} | {"0.0 1.2 3.4 5.6 7.8 9."})
    ids = {one for coded in tokenizer(words, add_special_tokens=True)["input_ids"] for one in coded}
    return torch.tensor(sorted(ids))


def compile_encoder(trainee: Trainee) -> None:
    """Compile the encoder's layers in place (a T5's decoder too); weights and names stay as they are."""
    encoder: Any = trainee.model.get_encoder()
    if hasattr(encoder, "encoder"):
        layers = list(encoder.encoder.layer)
    else:
        decoder: Any = trainee.model.get_decoder()
        layers = [*encoder.block, *decoder.block]
    for layer in layers:
        layer.compile(dynamic=True)


def to_device(batch: TokenBatch, device: str) -> TokenBatch:
    """The same batch on ``device``."""
    if device == "cpu":
        return batch
    return dataclasses.replace(
        batch, ids_BT=batch.ids_BT.to(device), mask_BT=batch.mask_BT.to(device), labels_BD=batch.labels_BD.to(device),
        slot_B=batch.slot_B.to(device),
    )  # fmt: skip


def export(trainee: Trainee, tokenizer: Any, settings: PretrainSettings, folder: Path) -> None:
    """Write the model as it ships, in bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = trainee.model
    if settings.architecture == "t5":
        plain: Any = type(model)(model.config)
        plain.load_state_dict(model.state_dict())
        if getattr(plain.config, "scale_decoder_outputs", plain.config.tie_word_embeddings):
            # A tied T5 scales decoder states by H^-0.5 before the output matrix and training did not: the last norm takes it.
            with torch.no_grad():
                plain.decoder.final_layer_norm.weight *= plain.config.d_model**0.5
        plain.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    shipped = {**decoder_tensors(model.decoder), **adapters.tensors(model.encoder)}
    save_file(shipped, folder / DECODER_FILE, metadata={"format": "pt"})
    config = model.decoder.config.to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
