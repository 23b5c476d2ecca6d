"""The papers' studies at toy size."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path

import torch
from tests.support.models import corpus

from softprompt.study.settings import EmbeddingSettings, RowLimits, Study, load_study

ROWS = 20
"""Rows of every split of the stand-in hub."""


def small(name: str, backbone: str) -> Study:
    """A paper's study as it is, with one seed, a few steps and a few tokens."""
    study = load_study(name)
    short = {
        "steps": 4, "batch_size": 4, "prompt_length": 4, "eval_every": 2, "max_input_tokens": 32, "max_target_tokens": 6,
        "embedding_step": 2,
    }  # fmt: skip
    return replace(
        study, backbone=backbone, dtype="float32", seeds=(0,), source=study.source.having(**short),
        target=study.target.having(**short), embedding=EmbeddingSettings(step=2, other_steps=(1, 3)),
        rows={"c4": RowLimits(train=ROWS, validation=ROWS)} if "c4" in study.all_tasks else {},
    )  # fmt: skip


def save_spelling_t5(folder: Path) -> Path:
    """A tiny random T5 whose tokenizer can spell: the label words of all tasks stay apart."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
        initial_alphabet=[*string.ascii_letters, *string.digits, *string.punctuation],
    )  # fmt: skip
    pieces.train_from_iterator([*corpus(), " ".join(string.printable[:94])], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=24, num_layers=1, num_decoder_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
