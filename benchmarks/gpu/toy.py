"""A tiny random T5 with a tokenizer of its own, for self-checks: no network, no package with weights."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import job  # noqa: F401 (puts the package on the path)

SOURCES = ("gen_sentiment_film", "gen_entailment_scene")
TARGETS = ("gen_sentiment_hotel", "gen_entailment_question")


def toy_backbone(folder: Path, *, width: int = 24, layers: int = 1) -> Path:
    """Write a random T5 whose vocabulary comes from the generated tasks; a folder that ``load_backbone`` reads."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    from softprompt.tasks.catalog import load_task

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    texts = [
        text
        for name in (*SOURCES, *TARGETS)
        for example in load_task(name).split("train", max_rows=60).examples
        for text in (example.inputs, example.targets)
    ]
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(fast), d_model=width, d_kv=8, d_ff=2 * width, num_layers=layers, num_decoder_layers=layers,
        num_heads=2, feed_forward_proj="gated-gelu", tie_word_embeddings=True, decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn_like(parameter) * (0.7 / parameter.shape[1] ** 0.5)
    with torch.no_grad():
        model.shared.weight.normal_(std=0.7)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
