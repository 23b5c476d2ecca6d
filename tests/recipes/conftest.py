"""A tiny corpus and a tiny encoder with a tokenizer of its own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

_WORDS = """river mountain castle garden teacher morning winter answer letter music wonderful terrible happy gloomy small great
seven 1912 London Paris walked painted carried opened found lost quiet bright never always before after""".split()  # noqa: SIM905


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 documents of ten sentences."""
    rng, folder = random.Random(3), tmp_path_factory.mktemp("text")
    lines = [
        " ".join(
            "The " + " ".join(rng.choices(_WORDS, k=6)) + " was in the " + " ".join(rng.choices(_WORDS, k=3)) + "."
            for _ in range(10)
        )
        for _ in range(400)
    ]
    (folder / "prose.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers and width 32, with a WordPiece tokenizer whose marks stand where BERT's do."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    marks = ["[PAD]", *(f"[unused{at}]" for at in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(at) for at in range(33, 127) if not chr(at).isupper()]
    words = sorted({word.lower() for word in _WORDS} | {"the", "was", "in", "yes", "no", "positive", "negative"})
    pieces = list(dict.fromkeys([*marks, *letters, *("##" + letter for letter in letters), *words]))
    pieces += [f"filler{at}" for at in range(1200 - len(pieces))]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    names = {
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
