"""Tiny random models of every supported kind, each with a small real tokenizer, built in memory in milliseconds."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import torch

from softprompt.backbones.base import Backbone
from softprompt.backbones.load import wrap
from softprompt.batch import TokenBatch
from softprompt.prompts.stack import PromptStack

KINDS = ("t5", "t5-gated-untied", "t5-gated-tied", "t5-plain-untied", "umt5", "encdec", "llama", "gpt2")
SEQ2SEQ_KINDS = KINDS[:6]
CAUSAL_KINDS = KINDS[6:]

_WORDS = [
    "a",
    "the",
    "one",
    "two",
    "three",
    "four",
    "five",
    "cat",
    "dog",
    "bird",
    "fish",
    "house",
    "river",
    "tree",
    "stone",
    "light",
    "red",
    "green",
    "blue",
    "yes",
    "no",
    "true",
    "false",
    "positive",
    "negative",
    "entailment",
    "contradiction",
    "neutral",
    "sentence",
    "question",
    "premise",
    "hypothesis",
    "passage",
    "review",
    "title",
    "good",
    "bad",
    "great",
    "poor",
    "film",
    "story",
    "plot",
    "actor",
    "music",
    "sees",
    "likes",
    "takes",
    "gives",
    "runs",
    "walks",
    "eats",
    "near",
    "under",
    "over",
    "with",
    "not",
]


def corpus(rows: int = 300, seed: int = 0) -> list[str]:
    """Random sentences over a small vocabulary, for training tokenizers and for test inputs."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(_WORDS, k=draw.randint(3, 12))) + "." for _ in range(rows)]


def _pieces(tokenizer: Any, inside: str, count: int) -> list[tuple[str, float]]:
    """Characters, then words, then what saves most characters, each with its log-probability.

    The library's own trainers of such tokenizers give others in every process.

    Args:
        tokenizer: one that cuts texts into words.
        inside: mark of a piece that does not begin a word.
        count: pieces to give.
    """
    found: Counter[str] = Counter()
    words: set[str] = set()
    for text in corpus():
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text):
            words.add(word.rstrip(".") or word)
            found.update(
                (inside if i else "") + word[i:j] for i in range(len(word)) for j in range(i + 1, len(word) + 1)
            )

    def rank(piece: str) -> tuple[int, int, str]:
        letters = len(piece.removeprefix(inside))
        return 0 if letters == 1 else 1 if piece in words else 2, -found[piece] * letters, piece

    pieces = sorted(found, key=rank)[:count]
    total = sum(found[piece] for piece in pieces)
    return [(piece, math.log(found[piece] / total)) for piece in pieces]


@cache
def _tokenizer_text(kind: str) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if kind == "t5":
        special = ["<pad>", "</s>", "<unk>"]
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        pieces = [(name, 0.0) for name in special] + _pieces(tokenizer, "", 197)
        tokenizer.model = models.Unigram(pieces, 2, False)
        tokenizer.add_special_tokens(special)
    elif kind == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        names = special + [piece for piece, _ in _pieces(tokenizer, "##", 195)]
        tokenizer.model = models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
        tokenizer.add_special_tokens(special)
    elif kind == "llama":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"])
        tokenizer.train_from_iterator(corpus(), trainer)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        tokenizer.train_from_iterator(corpus(), trainer)
    if kind == "bert":
        cls_id, sep_id = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep_id), ("[CLS]", cls_id))
    if kind == "llama":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return str(tokenizer.to_str())


_SPECIAL = {
    "t5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    "bert": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "llama": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "gpt2": {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"},
}


def tiny_tokenizer(kind: str) -> Any:
    """A real, trained tokenizer: ``t5`` (unigram), ``bert`` (word pieces), ``llama`` (BPE), ``gpt2`` (byte-level BPE)."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_tokenizer_text(kind)), **_SPECIAL[kind])


def _spread(model: Any) -> Any:
    """Random weights large enough that no layer is a near-identity and every path matters."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            parameter.data = torch.randn_like(parameter) * (
                0.7 / parameter.shape[1] ** 0.5 if "embed" not in name else 0.7
            )
        elif "norm" in name.lower() or "ln_" in name:
            parameter.data = (1.0 if name.endswith("weight") else 0.0) + 0.1 * torch.randn_like(parameter)
        else:
            parameter.data = 0.1 * torch.randn_like(parameter)
    return model.eval()


def tiny_t5(
    *, gated: bool = False, tied: bool = True, seed: int = 0, width: int = 24, layers: int = 2, act: str | None = None
) -> Any:
    """A random T5ForConditionalGeneration: original (ReLU) or gated, with a tied or a separate output head."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    vocab = len(tiny_tokenizer("t5"))
    config = T5Config(
        vocab_size=vocab,
        d_model=width,
        d_kv=8,
        d_ff=3 * width // 2,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj=act or ("gated-gelu" if gated else "relu"),
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        dropout_rate=0.1,
    )
    model = _spread(T5ForConditionalGeneration(config))
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(vocab, width) * 0.3)
    return model


def tiny_umt5(*, seed: int = 0, width: int = 24, layers: int = 2) -> Any:
    """A random UMT5ForConditionalGeneration, whose layers have relative biases of their own."""
    from transformers import UMT5Config, UMT5ForConditionalGeneration

    torch.manual_seed(seed)
    config = UMT5Config(
        vocab_size=len(tiny_tokenizer("t5")), d_model=width, d_kv=8, d_ff=3 * width // 2, num_layers=layers,
        num_decoder_layers=layers, num_heads=4, relative_attention_num_buckets=8, relative_attention_max_distance=20,
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, dropout_rate=0.1,
    )  # fmt: skip
    return _spread(UMT5ForConditionalGeneration(config))


def tiny_encdec(*, seed: int = 0, width: int = 24, layers: int = 2, positions: int = 128) -> Any:
    """A random BERT encoder with a BERT decoder that cross-attends to it."""
    from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer("bert")
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "max_position_embeddings": positions,
    }
    encoder = BertModel(BertConfig(**shape), add_pooling_layer=False)
    decoder = BertLMHeadModel(BertConfig(**shape, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=_spread(encoder), decoder=_spread(decoder))
    model.config.decoder_start_token_id = tokenizer.cls_token_id
    model.config.eos_token_id = tokenizer.sep_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def tiny_llama(*, seed: int = 0, width: int = 24, layers: int = 2) -> Any:
    """A random Llama-shaped causal model with grouped keys and values."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer("llama")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return _spread(LlamaForCausalLM(config))


def tiny_gpt2(*, seed: int = 0, width: int = 24, layers: int = 2) -> Any:
    """A random GPT-2-shaped causal model with learned positions, of a form that only transformers runs."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer("gpt2")
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=width,
        n_layer=layers,
        n_head=4,
        n_positions=256,
        scale_attn_by_inverse_layer_idx=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _spread(GPT2LMHeadModel(config))


def tiny_model(kind: str, **shape: Any) -> tuple[Any, Any]:
    """The Hugging Face module (float32) of one of ``KINDS`` and its tokenizer: whoever asks has his own."""
    words = {"umt5": "t5", "encdec": "bert", "llama": "llama", "gpt2": "gpt2"}.get(kind, "t5")
    known = _pickled_tiny(kind, tuple(sorted(shape.items())), words, _tokenizer_text(words))
    torch.manual_seed(shape.get("seed", 0))  # what is drawn next is the same, whether it was made now or before
    return pickle.loads(known)


@cache
def _pickled_tiny(kind: str, shape: tuple[tuple[str, Any], ...], words: str, text: str) -> bytes:
    """Made once for each text of a tokenizer: transformers takes long to make a tiny model."""
    how = dict(shape)
    if kind.startswith("t5"):
        model = tiny_t5(gated="gated" in kind, tied="untied" not in kind, **how)
    else:
        model = {"umt5": tiny_umt5, "encdec": tiny_encdec, "llama": tiny_llama, "gpt2": tiny_gpt2}[kind](**how)
    return pickle.dumps((model, tiny_tokenizer(words)))


def tiny_backbone(kind: str = "t5", *, dtype: torch.dtype = torch.float32, **shape: Any) -> Backbone:
    """A tiny random backbone of one of ``KINDS``."""
    model, tokenizer = tiny_model(kind, **shape)
    return wrap(model.to(dtype), tokenizer, name=f"tiny-{kind}")


def save_tiny(kind: str, folder: Path, **shape: Any) -> Path:
    """A tiny random model written as a folder that ``load_backbone`` reads."""
    model, tokenizer = tiny_model(kind, **shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_batch(backbone: Backbone, rows: int = 5, seed: int = 0, targets: bool = True) -> TokenBatch:
    """Rows of different length."""
    texts = corpus(rows, seed + 100)
    labels = [" ".join(text.split()[: 1 + i % 3]) for i, text in enumerate(texts)]
    inputs = backbone.tokenize_inputs(texts)
    return TokenBatch.of(inputs, backbone.tokenize_targets(labels) if targets else None)


def random_prompts(
    backbone: Backbone, lengths: tuple[int, ...] = (4, 7, 1), seed: int = 0, tuned: bool = True
) -> PromptStack:
    """Prompts of different lengths at the scale of the word embeddings."""
    generator = torch.Generator().manual_seed(seed)
    scale = float(backbone.embedding_table().std())
    prompts = [torch.randn(n, backbone.hidden_size, generator=generator) * scale for n in lengths]
    return PromptStack.of(prompts, keys=[f"prompt-{seed}-{i}" for i in range(len(lengths))], tuned=tuned)


def save_bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    tokenizer = tiny_tokenizer("bert")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
